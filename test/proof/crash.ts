// Owns the proof by kill -9: a server that is killed at any time, again and again, while people write,
// and what the next start makes of it.
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from '../helpers/eventually.ts'
import { install, type Server } from '../helpers/executable.ts'
import { numbers } from '../helpers/random.ts'
import { noGuests, welcome } from './guests.ts'
import {
  FAR,
  Wrong,
  compare,
  countQuiet,
  nothingRecorded,
  sayQuiet,
  type Quiet,
} from './history.ts'
import { observe, type Found } from './observe.ts'
import { PROGRAM, end, rowsOf } from './recording.ts'
import { putVast, signUp, type Context, type Person } from './people.ts'
import { resume, work } from './workload.ts'

export interface Crashes {
  cycles: number
  seed: number
  mostProblems: number
  tell?: (line: string) => void
}

export interface Figures extends Quiet {
  cycles: number
  /** Of these, killed before it listened. */
  whileStarting: number
  acknowledged: number
  /** Asked for and not answered. */
  unanswered: number
  /** Files that a crash left and the next start set aside. */
  setAside: number
  seconds: number
  problems: string[]
}

// Folders at once: a kill waits more than it works.
const LANES = 2
// Superseded files stay for minutes, so a folder is not used for ever.
const CYCLES_A_FOLDER = 100
// They take space, and time to look at.
const CYCLES_A_VAST = 10
const MOST_STEPS = 150
const MOST_PAUSE_MS = 5
const MOST_STARTING_MS = 250

export async function run(options: Crashes): Promise<Figures> {
  const { cycles, seed, tell = () => undefined } = options
  const began = performance.now()
  const figures: Figures = {
    cycles: 0,
    whileStarting: 0,
    acknowledged: 0,
    sessionsEnded: 0,
    passwordsChanged: 0,
    accountsDeleted: 0,
    unanswered: 0,
    setAside: 0,
    seconds: 0,
    problems: [],
  }
  let nextFolder = 0
  async function lane(): Promise<void> {
    for (;;) {
      const first = nextFolder * CYCLES_A_FOLDER
      const count = Math.min(CYCLES_A_FOLDER, cycles - first)
      if (count <= 0 || figures.problems.length >= options.mostProblems) return
      const seedOfFolder = seed + nextFolder++
      try {
        await useFolder(count, seedOfFolder, figures)
      } catch (error) {
        if (!(error instanceof Wrong)) throw error
        figures.problems.push(`SEED=${seedOfFolder}: ${error.message}`)
      }
      figures.seconds = (performance.now() - began) / 1000
      const { problems, seconds } = figures
      tell(`${figures.cycles} cycles, ${problems.length} problems, ${seconds.toFixed(0)} s`)
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  figures.seconds = (performance.now() - began) / 1000
  return figures
}

/** A server and its data, killed so many times. Throws Wrong. */
async function useFolder(cycles: number, seed: number, figures: Figures): Promise<void> {
  const random = numbers(seed)
  const recorded = nothingRecorded()
  const afters: (() => unknown)[] = []
  const program = install({ after: (undo) => void afters.push(undo as () => unknown) }, PROGRAM)
  let now = 0
  const context: Context = {
    url: '',
    recorded,
    random,
    mark: () => ++now,
    restMs: 0,
    guests: noGuests(),
  }
  const people: Person[] = []
  try {
    let server = await program.serve()
    context.url = server.url
    for (const id of ['ana', 'ben', 'cid']) people.push(await signUp(context, id))
    for (let cycle = 0; cycle < cycles; cycle++) {
      if (random(2) === 0) await welcome(context)
      const vast = cycle % CYCLES_A_VAST === 1 ? [() => putVast(context, people[0] as Person)] : []
      await writeAndKill(server, context, { people, beside: vast })
      if (random(5) === 0) {
        figures.whileStarting++
        const starting = program.launch(['serve'])
        await pause(random(MOST_STARTING_MS))
        await end(starting, 'SIGKILL')
      }
      server = await program.serve()
      context.url = server.url
      figures.unanswered += unsettled(context)
      const rows = await rowsOf(program.root, recorded)
      const observed = await resume(context, people, rows)
      expectNothing(compare(recorded, observed, { from: now, to: now }))
      await expectWhole(program.root, context, false)
      figures.cycles++
    }
    await end(server, 'SIGTERM')
    figures.setAside += (await expectWhole(program.root, context, true)).trashed
    const versions = Object.values(recorded.versions).flat()
    figures.acknowledged += versions.filter(({ sure }) => sure !== FAR).length
    const quiet = countQuiet(recorded)
    for (const name of ['sessionsEnded', 'passwordsChanged', 'accountsDeleted'] as const) {
      figures[name] += quiet[name]
    }
  } finally {
    for (const after of afters) await after()
  }
}

async function writeAndKill(
  server: Server,
  context: Context,
  { people, beside }: { people: Person[]; beside: (() => Promise<void>)[] },
): Promise<void> {
  const { random, mark } = context
  let isOver = false
  const writing = work(context, people, () => isOver, beside)
  writing.catch(() => (isOver = true))
  // However fast the machine is, some are killed at their first writes and some later.
  const until = mark() + random(MOST_STEPS)
  while (mark() < until && !isOver) await pause(random(MOST_PAUSE_MS))
  // What fails from here on fails because of us.
  isOver = true
  await end(server, 'SIGKILL')
  await writing
}

const unsettled = ({ recorded }: Context): number =>
  Object.values(recorded.versions)
    .flat()
    .filter(({ sure, until }) => sure === FAR && until === FAR).length

function expectNothing(problems: string[]): void {
  if (problems.length > 0) throw new Wrong(problems.join('\n'))
}

/** All is there, agrees, and nothing is left over, at the latest when the start has looked around. */
async function expectWhole(root: string, context: Context, recover: boolean): Promise<Found> {
  const { recorded } = context
  const when = context.mark()
  const look = (): Promise<Found> => observe(root, recorded, { when, recover, cursors: true })
  const found = await look()
  expectNothing([...found.problems, ...compare(recorded, found.observed, { from: when, to: when })])
  if (found.leftOver.length > 0) {
    await eventually(async () => (await look()).leftOver, []).catch((error: Error) => {
      throw new Wrong(`LEAKED: ${error.message}`)
    })
  }
  return found
}

/** All that was done and found, in lines. */
export function toTable(figures: Figures): string {
  const { problems, ...counts } = figures
  const leaked = problems.filter((problem) => problem.includes('LEAKED')).length
  const rows: [string, string | number][] = [
    ['cycles of kill -9 and start', counts.cycles],
    ['  and killed once more while it started', counts.whileStarting],
    ['acknowledged, each looked for after every start', counts.acknowledged],
    sayQuiet(counts),
    ['under way at a kill', counts.unanswered],
    ['unfinished uploads set aside', counts.setAside],
    ['lost, torn, not whole, or wrong sums', problems.length - leaked],
    ['files left over', leaked],
    ['seconds', Math.round(counts.seconds)],
  ]
  return rows.map(([name, value]) => `${name.padEnd(54)} ${value}`).join('\n')
}
