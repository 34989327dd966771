// Owns a recording: a day in the life of a server on a disk whose every write is kept, from its first
// start through crashes, commands beside it, an upgrade and the way back, to a restored backup.
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { endBy, install, EXECUTABLE, FROM_SOURCE, type Server } from '../helpers/executable.ts'
import { takeBack as takeSchemaBack } from '../helpers/newer.ts'
import { numbers } from '../helpers/random.ts'
import { openDisk, type FileSystem, type Place } from './disk.ts'
import { noGuests, openSession } from './guests.ts'
import {
  FAR,
  Wrong,
  begin,
  compare,
  countQuiet,
  lastOf,
  nothingRecorded,
  takeBack,
  type Mark,
  type Observed,
  type Quiet,
  type Recorded,
} from './history.ts'
import { observe } from './observe.ts'
import { call, digestOf, putVast, signUp, type Context, type Person } from './people.ts'
import { readFeed, resume, work } from './workload.ts'

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
  quiet: Quiet
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

type Day = Pick<
  Recording,
  'recorded' | 'backup' | 'restored' | 'upgraded' | 'acknowledged' | 'quiet'
>

async function play(stage: Stage): Promise<Day> {
  const { disk, program, root, random, pace } = stage
  const { mark } = disk
  const here = { STATIC_ROOT: root, LOG_LEVEL: 'info' }
  const recorded = nothingRecorded()
  let server = await program.serve(here)
  const context: Context = {
    url: server.url,
    recorded,
    random,
    mark,
    restMs: REST_MS,
    guests: noGuests(),
  }
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
    context.guests.invitations.push(secret)
  }
  await busy(700, invite, invite)
  const backup = { name: BACKUP, from: mark(), to: 0, sure: FAR }
  await busy(500, async () => {
    await expectDone(program.run(['backup', join(disk.at, BACKUP)], here))
    backup.to = backup.sure = mark()
  })
  await end(server, 'SIGTERM')
  await start()
  const dora = { context, program, here, user: '', printed: '' }
  await busy(
    500,
    () => addAccount(dora),
    () => setPassword(dora, 'by-the-first-token'),
    invite,
  )
  await crash(server, context, { root, people, afterMs: random(400 * pace), start })
  await busy(
    400,
    () => resetPassword(dora),
    () => disable(dora),
    invite,
  )

  const before = await upgrade(server, stage, { recorded, start })
  await resume(context, people, await rowsOf(root, recorded))
  await busy(500, invite)
  await end(server, 'SIGTERM')
  await rollBack(stage, { recorded, before, here })
  await start()
  expectAgreement(recorded, mark(), await resume(context, people, await rowsOf(root, recorded)))
  context.guests.now = null
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
  // A value that takes several syncs; the second is cut off, or takes its place.
  const vast = (): Promise<void> => putVast(context, people[0] as Person)
  await busy(300, vast)
  await crash(server, context, { root, people, afterMs: random(400 * pace), start, beside: [vast] })
  await busy(300)
  await end(server, 'SIGTERM')
  const acknowledged = Object.values(recorded.versions)
    .flat()
    .filter(({ sure }) => sure !== FAR).length
  const quiet = countQuiet(recorded)
  return { recorded, backup, restored, upgraded: { from: before.from }, acknowledged, quiet }
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

/** What stands in the rows beside a running server. */
export const rowsOf = async (root: string, recorded: Recorded): Promise<Observed> =>
  (await observe(root, recorded, { when: 0, recover: false, cursors: false, hasFiles: false }))
    .observed

interface Crash {
  root: string
  people: Person[]
  afterMs: number
  start: () => Promise<void>
  beside?: (() => Promise<void>)[]
}

/** Killed while people write; what nobody was told of is settled by what is there then. */
async function crash(
  server: Server,
  context: Context,
  { root, people, afterMs, start, beside = [] }: Crash,
): Promise<void> {
  let isKilled = false
  const writing = work(context, people, () => isKilled, beside)
  writing.catch(() => undefined)
  await pause(LEAST_MS + afterMs)
  isKilled = true
  await end(server, 'SIGKILL')
  await writing
  await start()
  const { recorded } = context
  expectAgreement(
    recorded,
    context.mark(),
    await resume(context, people, await rowsOf(root, recorded)),
  )
}

/** What a running server shows can be no other than what a crash may leave. */
function expectAgreement(recorded: Recorded, at: Mark, observed: Observed): void {
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

/** Whose account is the operator's work. */
interface Dora {
  context: Context
  program: Stage['program']
  here: Record<string, string>
  user: string
  /** The token that a command printed last. */
  printed: string
}

async function addAccount(dora: Dora): Promise<void> {
  const { context, program, here } = dora
  const { recorded, mark } = context
  const { stdout: printed } = await expectDone(program.run(['account', 'add', 'dora'], here))
  const at = mark()
  const { stdout } = await expectDone(program.run(['account', 'show', 'dora', '--json'], here))
  dora.user = /~[\w-]{43}/.exec(stdout)?.[0] ?? ''
  dora.printed = printed.trim()
  begin(recorded, 0, {
    [`account ${dora.user}`]: 'enabled',
    [`reset ${digestOf(dora.printed)}`]: 'good',
  }).confirm(at)
}

/** Spends the token, and logs in. */
async function setPassword({ context, user, printed }: Dora, password: string): Promise<void> {
  const { recorded, mark } = context
  const sessions = recorded.people.filter((one) => one.user === user)
  const pending = begin(recorded, mark(), {
    [`password ${user}`]: password,
    [`reset ${digestOf(printed)}`]: null,
    ...Object.fromEntries(sessions.map(({ token }) => [`session ${digestOf(token)}`, null])),
  })
  const body = JSON.stringify({ password, token: printed })
  await call(context, '/password', { method: 'POST', body })
  pending.confirm(mark())
  await openSession(context, { id: 'dora', password })
}

async function resetPassword(dora: Dora): Promise<void> {
  const { context, program, here } = dora
  const { stdout } = await expectDone(program.run(['reset', 'dora'], here))
  dora.printed = stdout.trim()
  begin(context.recorded, 0, { [`reset ${digestOf(dora.printed)}`]: 'good' }).confirm(
    context.mark(),
  )
  await setPassword(dora, 'by-the-second-token')
}

async function disable({ context, program, here, user }: Dora): Promise<void> {
  const { recorded, mark } = context
  const sessions = recorded.people.filter((one) => one.user === user)
  const pending = begin(recorded, mark(), {
    [`account ${user}`]: 'disabled',
    ...Object.fromEntries(sessions.map(({ token }) => [`session ${digestOf(token)}`, null])),
  })
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
