// Owns the proof by power cuts: days are recorded on each file system, and so many states that a cut
// could have left of them are checked, on all cores at once.
import { execFileSync, fork } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLog, planCuts, type Cut } from './block-log.ts'
import type { Job, Verdict } from './checker.ts'
import { FILE_SYSTEMS, openPlace, type FileSystem, type Place } from './disk.ts'
import { Wrong, sayQuiet, type Quiet } from './history.ts'
import { record, type Recording } from './recording.ts'

export interface Powercuts {
  states: number
  seed: number
  /** How long people write, 1 being a second here and there. */
  pace: number
  fileSystems?: readonly FileSystem[]
  /** So many states of each day: then another is recorded. */
  statesADay: number
  startEvery: number
  programEvery: number
  /** It ends with so many problems. */
  mostProblems: number
  /** Keeps the recordings in which there are problems, to be cut again. */
  keep?: boolean
  /** Cuts one that was kept, once. */
  replay?: { folder: string; cut: Cut }
  tell?: (line: string) => void
}

export interface Figures extends Omit<Verdict, 'problems'>, Quiet {
  days: number
  entries: number
  acknowledged: number
  kinds: Record<string, number>
  fileSystems: Record<string, number>
  seconds: number
  problems: string[]
}

const STATES_A_PROCESS = 150
// Mounting waits more than it works.
const PROCESSES = availableParallelism() * 2

type Message = { told: string } | { figures: Figures } | { failed: string }

/**
 * Runs it in a process with mounts of its own. Others who make namespaces would keep ours mounted, and
 * ours go with that process, whatever ends it.
 */
export function run({ tell = () => undefined, ...options }: Powercuts): Promise<Figures> {
  const child = fork(import.meta.filename, {
    execPath: 'unshare',
    execArgv: ['--mount', '--propagation', 'private', process.execPath],
    env: { ...process.env, UV_THREADPOOL_SIZE: '16' },
  })
  const kill = (): void => void child.kill('SIGTERM')
  process.once('exit', kill)
  return new Promise((resolve, reject) => {
    child.on('message', (message: Message) => {
      if ('told' in message) tell(message.told)
      else if ('figures' in message) resolve(message.figures)
      else reject(new Error(message.failed))
    })
    child.once('error', reject)
    child.once('exit', (code) => {
      process.off('exit', kill)
      reject(new Error(`it ended with ${code}`))
    })
    child.send(options)
  })
}

async function runApart(options: Powercuts): Promise<Figures> {
  const { fileSystems = FILE_SYSTEMS, states, statesADay, seed, tell = () => undefined } = options
  const began = performance.now()
  const figures: Figures = {
    days: 0,
    entries: 0,
    acknowledged: 0,
    sessionsEnded: 0,
    passwordsChanged: 0,
    accountsDeleted: 0,
    states: 0,
    unmountable: 0,
    folders: 0,
    started: 0,
    byProgram: 0,
    backups: 0,
    restored: 0,
    kinds: {},
    fileSystems: {},
    seconds: 0,
    problems: [],
  }
  const place = openPlace()
  try {
    if (options.replay !== undefined) {
      const { folder, cut } = options.replay
      const recording = JSON.parse(readFileSync(join(folder, KEPT), 'utf8')) as Recording
      await checkAll(place, [{ recording, cuts: [cut] }], { options, figures })
      return figures
    }
    let told = 0
    for (let round = 0; figures.states < states; round++) {
      const seedOfRound = seed + round
      const days = await recordAll(place, { ...options, fileSystems, seed: seedOfRound }, figures)
      if (figures.problems.length >= options.mostProblems) break
      const left = Math.min(states - figures.states, statesADay * days.length)
      const jobs = days.flatMap((recording, index) => {
        const share = Math.floor(left / days.length)
        const count = index === 0 ? left - share * (days.length - 1) : share
        return split(recording, { count, seed: seedOfRound, figures })
      })
      await checkAll(place, jobs, { options, figures })
      if (options.keep === true) for (const day of days) keepWrong(day, figures)
      for (const { name } of days) rmSync(join(place.folder, name), { recursive: true })
      const seconds = ((performance.now() - began) / 1000).toFixed(0)
      for (const problem of figures.problems.slice(told)) tell(problem)
      told = figures.problems.length
      tell(`${figures.states} states, ${figures.problems.length} problems, ${seconds} s`)
      if (figures.problems.length >= options.mostProblems) break
    }
  } finally {
    place.close()
  }
  figures.seconds = (performance.now() - began) / 1000
  return figures
}

/** Those that went as they should; the others are problems. */
async function recordAll(
  place: Place,
  { fileSystems, seed, pace }: { fileSystems: readonly FileSystem[]; seed: number; pace: number },
  { problems }: Figures,
): Promise<Recording[]> {
  const days = await Promise.all(
    fileSystems.map((fileSystem) =>
      record(place, { fileSystem, seed, pace }).catch((error: unknown) => {
        if (!(error instanceof Wrong)) throw error
        problems.push(`${fileSystem}-${seed}: ${error.message}`)
        return null
      }),
    ),
  )
  return days.filter((day) => day !== null)
}

const KEPT = 'recording.json'

/** A day is never the same again, not even by its seed: what a problem is in has to be kept. */
function keepWrong(recording: Recording, { problems }: Figures): void {
  if (!problems.some((problem) => problem.startsWith(`${recording.name} `))) return
  const folder = mkdtempSync(join(tmpdir(), `sync-node-${recording.name}-`))
  const [log, image] = [join(folder, 'log.img'), join(folder, 'disk.img')]
  for (const [from, to] of [
    [recording.log, log],
    [recording.image, image],
  ] as const) {
    execFileSync('cp', ['--sparse=always', from, to])
  }
  writeFileSync(join(folder, KEPT), JSON.stringify({ ...recording, log, image }))
  problems.push(`${recording.name} is kept: REPLAY=${folder} AT='<kind> <at> <seed>' cuts it again`)
}

type Part = Pick<Job, 'recording' | 'cuts'>

function split(
  recording: Recording,
  { count, seed, figures }: { count: number; seed: number; figures: Figures },
): Part[] {
  const cuts = planCuts(openLog(recording.log), { begin: recording.begin, count, seed })
  figures.days++
  figures.entries += recording.entries - recording.begin
  figures.acknowledged += recording.acknowledged
  for (const name of ['sessionsEnded', 'passwordsChanged', 'accountsDeleted'] as const) {
    figures[name] += recording.quiet[name]
  }
  for (const { kind } of cuts) figures.kinds[kind] = (figures.kinds[kind] ?? 0) + 1
  // Of btrfs no two copies of one file system can be mounted at once.
  const isAlone = recording.fileSystem === 'btrfs'
  const parts = isAlone ? 1 : Math.ceil(cuts.length / STATES_A_PROCESS)
  // Each goes through the whole day, so that a problem anywhere in it is soon found.
  return Array.from({ length: parts }, (_, part) => ({
    recording,
    cuts: cuts.filter((_cut, index) => index % parts === part),
  }))
}

async function checkAll(
  place: Place,
  parts: Part[],
  { options, figures }: { options: Powercuts; figures: Figures },
): Promise<void> {
  // The longest first.
  const queue = parts.toSorted((one, other) => other.cuts.length - one.cuts.length)
  async function work(index: number): Promise<void> {
    const folder = join(place.folder, `check-${index}`)
    mkdirSync(folder, { recursive: true })
    for (let part = queue.shift(); part !== undefined; part = queue.shift()) {
      if (figures.problems.length >= options.mostProblems) return
      add(figures, part.recording, await checkApart(place, { ...part, folder, ...options }))
    }
  }
  await Promise.all(Array.from({ length: PROCESSES }, (_, index) => work(index)))
}

function add(figures: Figures, { fileSystem, name }: Recording, verdict: Verdict): void {
  for (const what of [
    'states',
    'unmountable',
    'folders',
    'started',
    'byProgram',
    'backups',
    'restored',
  ] as const) {
    figures[what] += verdict[what]
  }
  figures.fileSystems[fileSystem] = (figures.fileSystems[fileSystem] ?? 0) + verdict.states
  for (const { cut, problem } of verdict.problems) {
    figures.problems.push(`${name} ${sayCut(cut)}: ${problem}`)
  }
}

const sayCut = ({ kind, at, seed }: Cut): string => `${kind} ${at} ${seed}`

function checkApart(place: Place, job: Job): Promise<Verdict> {
  const child = fork(new URL('checker.ts', import.meta.url), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    env: {
      ...process.env,
      UV_THREADPOOL_SIZE: '16',
      // Each start loads its threads anew.
      NODE_COMPILE_CACHE: join(place.folder, 'compiled'),
    },
  })
  const kill = (): void => void child.kill('SIGKILL')
  place.onClose(kill)
  return new Promise((resolve, reject) => {
    child.once('message', (message: { verdict: Verdict } | { failed: string }) => {
      if ('verdict' in message) resolve(message.verdict)
      else reject(new Error(message.failed))
    })
    child.once('exit', (code) => reject(new Error(`a checker ended with ${code}`)))
    child.send({ ...job, tell: undefined })
  })
}

/** All that was done and found, in lines. */
export function toTable(figures: Figures): string {
  const { problems, seconds, kinds, fileSystems, ...counts } = figures
  const lost = problems.filter((problem) => /LOST|TORN|NOT WHOLE/.test(problem)).length
  const rows: [string, string | number][] = [
    ['states', counts.states],
    ...[...Object.entries(fileSystems), ...Object.entries(kinds)].map(
      ([name, count]): [string, number] => [`  ${name}`, count],
    ),
    ['  torn so that the file system itself gives up', counts.unmountable],
    ['different data folders, each opened through SQLite', counts.folders],
    ["  opened by the server's own start", counts.started],
    ['  opened by the program', counts.byProgram],
    ['backups verified, restored folders opened', `${counts.backups}, ${counts.restored}`],
    ['days recorded', counts.days],
    ['  writes and flushes of the disk', counts.entries],
    ['  acknowledged', counts.acknowledged],
    sayQuiet(counts),
    ['lost, torn or not whole', lost],
    ['other problems', problems.length - lost],
    ['seconds', Math.round(seconds)],
  ]
  return rows.map(([name, value]) => `${name.padEnd(54)} ${value}`).join('\n')
}

if (process.send !== undefined && process.argv[1] === import.meta.filename) {
  const tellParent = (message: Message): void => void process.send?.(message)
  process.once('disconnect', () => process.exit(1))
  process.once('message', (options: Powercuts) => {
    void runApart({ ...options, tell: (told) => tellParent({ told }) }).then(
      (figures) => process.send?.({ figures } satisfies Message, () => process.exit(0)),
      (error: Error) =>
        process.send?.({ failed: String(error.stack) } satisfies Message, () => process.exit(1)),
    )
  })
}
