// Owns a recording: a day in the life of a server on a disk whose every write is kept, from its first
// start through crashes, commands beside it, an upgrade and the way back, to a restored backup.
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { endBy, install, EXECUTABLE, FROM_SOURCE, type Server } from '../helpers/executable.ts'
import { takeBack as takeSchemaBack } from '../helpers/newer.ts'
import { numbers } from '../helpers/random.ts'
import { openDisk, type FileSystem, type Place } from './disk.ts'
import {
  FAR,
  Wrong,
  begin,
  compare,
  lastOf,
  nothingRecorded,
  takeBack,
  type Mark,
  type Recorded,
} from './history.ts'
import { digestOf, readFeed, resume, signUp, work, type Context, type Person } from './workload.ts'

export interface Recording {
  name: string
  fileSystem: FileSystem
  log: string
  image: string
  recorded: Recorded
  /** From here on there is a file system to cut. */
  begin: Mark
  entries: Mark
  /** What was on it, in the root folder of the disk. */
  backup: { name: string; from: Mark; to: Mark; sure: Mark }
  restored: { name: string; from: Mark; sure: Mark }
  upgraded: { from: Mark }
  acknowledged: number
}

/** The executable; from source in a copy of the project that has none. */
export const PROGRAM = existsSync(EXECUTABLE[0] as string) ? EXECUTABLE : FROM_SOURCE

const BACKUP = 'backup.tar.zst'
const RESTORED = 'restored'
const LEAST_MS = 60
const REST_MS = 25

/** Plays the day; `pace` stretches the time in which people write. Throws what went wrong in it. */
export async function record(
  place: Place,
  { fileSystem, seed, pace }: { fileSystem: FileSystem; seed: number; pace: number },
): Promise<Recording> {
  const name = `${fileSystem}-${seed}`
  const disk = await openDisk(place, name, fileSystem)
  const afters: (() => unknown)[] = []
  const program = install({ after: (undo) => void afters.push(undo as () => unknown) }, PROGRAM)
  try {
    const root = join(disk.at, 'data')
    const first = disk.mark()
    const day = await play({ disk, program, root, random: numbers(seed), pace })
    const entries = disk.mark()
    await disk.close()
    rmSync(join(place.folder, name, 'mnt'), { recursive: true })
    const { log, image } = disk
    return { name, fileSystem, log, image, begin: first, entries, ...day }
  } finally {
    for (const after of afters) await after()
  }
}

interface Stage {
  disk: { at: string; mark: () => Mark }
  program: ReturnType<typeof install>
  root: string
  random: (below: number) => number
  pace: number
}

type Day = Pick<Recording, 'recorded' | 'backup' | 'restored' | 'upgraded' | 'acknowledged'>

async function play(stage: Stage): Promise<Day> {
  const { disk, program, root, random, pace } = stage
  const { mark } = disk
  const here = { STATIC_ROOT: root, LOG_LEVEL: 'info' }
  const recorded = nothingRecorded()
  let server = await program.serve(here)
  const context: Context = { url: server.url, recorded, random, mark, restMs: REST_MS }
  const people: Person[] = []
  const people3 = ['ana', 'ben', 'cid']
  for (const id of people3) people.push(await signUp(context, id))

  async function start(): Promise<void> {
    server = await program.serve(here)
    context.url = server.url
  }

  const busy = (ms: number, ...beside: (() => Promise<void>)[]): Promise<void> =>
    writeFor(context, people, { ms: ms * pace, beside })

  // Commands close the database after them, and so put the log of it into the database each time.
  const invite = async (): Promise<void> => {
    const { stdout } = await expectDone(program.run(['invite'], here))
    const secret = /[\w-]{43}/.exec(stdout)?.[0] ?? ''
    begin(recorded, 0, { [`invitation ${digestOf(secret)}`]: 'good' }).confirm(mark())
  }
  await busy(700, invite, invite)
  const backup = { name: BACKUP, from: mark(), to: 0, sure: FAR }
  await busy(500, async () => {
    await expectDone(program.run(['backup', join(disk.at, BACKUP)], here))
    backup.to = backup.sure = mark()
  })
  await end(server, 'SIGTERM')
  await start()
  const dora = { recorded, program, here, mark, user: '' }
  await busy(500, () => addAccount(dora), invite)
  await crash(server, context, { people, afterMs: random(400 * pace), start })
  await busy(400, () => disable(dora), invite)

  const before = await upgrade(server, stage, { recorded, start })
  await resume(context, people)
  await busy(500, invite)
  await end(server, 'SIGTERM')
  await rollBack(stage, { recorded, before, here })
  await start()
  expectAgreement(recorded, mark(), await resume(context, people))
  for (const { feed } of people) {
    feed.cursor = undefined
    feed.known.clear()
  }
  const restored = { name: RESTORED, from: mark(), sure: FAR }
  await busy(500, async () => {
    const there = { STATIC_ROOT: join(disk.at, RESTORED) }
    await expectDone(program.run(['restore', join(disk.at, BACKUP)], there))
    restored.sure = mark()
  })
  await crash(server, context, { people, afterMs: random(400 * pace), start })
  await busy(300)
  await end(server, 'SIGTERM')
  const acknowledged = Object.values(recorded.versions)
    .flat()
    .filter(({ sure }) => sure !== FAR).length
  return { recorded, backup, restored, upgraded: { from: before.from }, acknowledged }
}

async function writeFor(
  context: Context,
  people: Person[],
  { ms, beside }: { ms: number; beside: (() => Promise<void>)[] },
): Promise<void> {
  let isOver = false
  const writing = work(context, people, () => isOver)
  const doing = (async () => {
    for (const act of beside) await act()
  })()
  await Promise.all([
    writing,
    Promise.all([doing, pause(ms)]).finally(() => {
      isOver = true
    }),
  ])
  for (const self of people) await readFeed(context, self)
}

/** By nothing else than this signal, and without a complaint. */
export async function end(
  server: Pick<Server, 'stop' | 'output'>,
  by: 'SIGTERM' | 'SIGKILL',
): Promise<void> {
  const problem = await endBy(server, by)
  if (problem !== null) throw new Wrong(problem)
}

/** Killed while people write; what nobody was told of is settled by what is there then. */
async function crash(
  server: Server,
  context: Context,
  { people, afterMs, start }: { people: Person[]; afterMs: number; start: () => Promise<void> },
): Promise<void> {
  let isKilled = false
  const writing = work(context, people, () => isKilled)
  writing.catch(() => undefined)
  await pause(LEAST_MS + afterMs)
  isKilled = true
  await end(server, 'SIGKILL')
  await writing
  await start()
  expectAgreement(context.recorded, context.mark(), await resume(context, people))
}

/** What a running server shows can be no other than what a crash may leave. */
function expectAgreement(
  recorded: Recorded,
  at: Mark,
  observed: ReadonlyMap<string, string>,
): void {
  const [problem] = compare(recorded, observed, { from: at, to: at })
  if (problem !== undefined) throw new Wrong(`while it ran: ${problem}`)
}

async function expectDone(
  running: Promise<{ code: number | null; stdout: string; stderr: string }>,
) {
  const ran = await running
  if (ran.code !== 0) throw new Wrong(`a command ended with ${ran.code}: ${ran.stderr}`)
  return ran
}

interface Dora {
  recorded: Recorded
  program: Stage['program']
  here: Record<string, string>
  mark: () => Mark
  user: string
}

async function addAccount(dora: Dora): Promise<void> {
  const { recorded, program, here, mark } = dora
  await expectDone(program.run(['account', 'add', 'dora'], here))
  const at = mark()
  const { stdout } = await expectDone(program.run(['account', 'show', 'dora', '--json'], here))
  dora.user = /~[\w-]{43}/.exec(stdout)?.[0] ?? ''
  begin(recorded, 0, { [`account ${dora.user}`]: 'enabled' }).confirm(at)
}

async function disable({ recorded, program, here, mark, user }: Dora): Promise<void> {
  const pending = begin(recorded, mark(), { [`account ${user}`]: 'disabled' })
  await expectDone(program.run(['account', 'disable', 'dora'], here))
  pending.confirm(mark())
}

/** The data becomes that of the program before; the start that follows brings it back up. */
async function upgrade(
  server: Server,
  { root, disk }: Stage,
  { recorded, start }: { recorded: Recorded; start: () => Promise<void> },
): Promise<{ from: Mark; last: ReturnType<typeof lastOf> }> {
  await end(server, 'SIGTERM')
  takeSchemaBack(root)
  const from = disk.mark()
  const last = lastOf(recorded)
  await start()
  return { from, last }
}

async function rollBack(
  { disk, program }: Stage,
  {
    recorded,
    before,
    here,
  }: {
    recorded: Recorded
    before: Awaited<ReturnType<typeof upgrade>>
    here: Record<string, string>
  },
): Promise<void> {
  const from = disk.mark()
  const isDone = takeBack(recorded, from, before.last)
  for (const one of recorded.cursors) if (one.at >= before.from) one.lostFrom = from
  await expectDone(program.run(['rollback', '--yes'], here))
  isDone(disk.mark())
}
