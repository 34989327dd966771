// Owns the soak: months of use of a real server, by many people at once, day by day. At the end of each
// day it is quiet, its clock goes on to the next, and housekeeping does what is due by then.
import { eventually } from '../helpers/eventually.ts'
import { install, type Installation, type Server } from '../helpers/executable.ts'
import { numbers } from '../helpers/random.ts'
import { PROGRAM } from '../proof/recording.ts'
import { Wrong, openLine, type Line } from './ask.ts'
import { openClock, type MovedClock } from './clock.ts'
import { descriptors, newest, sample, type Sample } from './measure.ts'
import { judge, progress } from './table.ts'
import { MAX_VALUE_BYTES, operate, readAll, settle } from './operations.ts'
import type { Lane } from './people.ts'

export interface Soak {
  operations: number
  seed: number
  lanes: number
  /** How far the clock goes on at the end of a day: less than 24, which would be a leap. */
  hours: number
  mostProblems: number
  tell?: (line: string) => void
}

export interface Figures {
  operations: number
  kinds: Map<string, number>
  days: number
  began: number
  seconds: number
  /** Without the ends of days. */
  workingSeconds: number
  samples: Sample[]
  read: number
  lost: number
  problems: string[]
}

const PEOPLE_EACH = 3
const OPERATIONS_A_DAY = 5000
// So many that sessions and tombstones of the first days have gone.
const MOST_DAYS = 365
// So that a round of housekeeping is due, and hardly anything else.
const ROUND_MS = 70_000
const HOUR_MS = 60 * 60 * 1000
const BREAK_MS = 10 * 60 * 1000
const SESSION_DAYS = 95
const MOST_IDLE_DAYS = 80
const SAMPLES = 50

interface Running {
  server: Server
  here: Installation
  line: Line
  lanes: Lane[]
  clock: MovedClock
  aheadMs: number
  rounds: number
  /** Sockets before anybody came. */
  idleSockets: number
}

export async function run(options: Soak): Promise<Figures> {
  const afters: (() => unknown)[] = []
  const here = install({ after: (undo) => void afters.push(undo as () => unknown) }, PROGRAM)
  const days = Math.max(4, Math.min(MOST_DAYS, Math.ceil(options.operations / OPERATIONS_A_DAY)))
  const figures: Figures = {
    operations: 0,
    kinds: new Map(),
    days,
    began: performance.now(),
    seconds: 0,
    workingSeconds: 0,
    samples: [],
    read: 0,
    lost: 0,
    problems: [],
  }
  try {
    const running = await start(here, options)
    await useForDays(running, options, figures)
    await expectCleanEnd(running, figures)
    figures.problems.push(...judge(figures.samples))
  } catch (error) {
    figures.problems.push((error as Error).message)
  } finally {
    for (const after of afters) await after()
  }
  figures.seconds = (performance.now() - figures.began) / 1000
  return figures
}

const environment = ({ clock }: Pick<Running, 'clock'>): Record<string, string> => ({
  ...clock.environment,
  METRICS_PORT: '0',
  MAX_VALUE_SIZE: String(MAX_VALUE_BYTES),
})

async function start(here: Installation, { lanes: count, seed }: Soak): Promise<Running> {
  const clock = openClock(here.folder)
  const server = await here.serve(environment({ clock }))
  const idleSockets = sockets(server)
  const line = openLine(server.url, count * 2)
  const lanes = Array.from({ length: count }, (_, i): Lane => ({
    line,
    below: numbers(seed * 1000 + i),
    people: [],
    address: `192.0.2.${i + 1}`,
    made: 0,
    name: `lane ${i}`,
    day: 0,
    forgotten: [],
  }))
  await Promise.all(lanes.map((lane) => settle(lane, PEOPLE_EACH)))
  const running = { server, here, line, lanes, clock, aheadMs: 0, rounds: 0, idleSockets }
  return running
}

async function useForDays(running: Running, options: Soak, figures: Figures): Promise<void> {
  const { days, problems } = figures
  const every = Math.max(1, Math.floor(days / SAMPLES))
  for (let day = 1; day <= days; day++) {
    const until = Math.round((options.operations * day) / days)
    const startMs = performance.now()
    await useFor(running, day, { until, figures, mostProblems: options.mostProblems })
    figures.workingSeconds += (performance.now() - startMs) / 1000
    if (problems.length >= options.mostProblems) return
    running.line.hangUp()
    await letPass(running, options.hours * HOUR_MS)
    if (day % every !== 0) continue
    await letPass(running, BREAK_MS)
    await expectIdle(running)
    figures.samples.push(await look(running))
    figures.seconds = (performance.now() - figures.began) / 1000
    options.tell?.(progress(figures))
  }
}

const sockets = ({ pid }: Server): number =>
  descriptors(pid).filter((link) => link.startsWith('socket:')).length

/** All lanes at once, until so many operations are done. */
async function useFor(
  { lanes }: Running,
  day: number,
  { until, figures, mostProblems }: { until: number; figures: Figures; mostProblems: number },
): Promise<void> {
  const { kinds, problems } = figures
  async function work(lane: Lane): Promise<void> {
    lane.day = day
    for (const { others } of lane.people) {
      while ((others[0]?.day ?? day) < day - MOST_IDLE_DAYS) {
        lane.forgotten.push((others.shift() as (typeof others)[number]).day)
      }
    }
    lane.forgotten = lane.forgotten.filter((opened) => opened >= day - SESSION_DAYS)
    while (figures.operations < until && problems.length < mostProblems) {
      figures.operations++
      try {
        const kind = await operate(lane)
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
      } catch (error) {
        problems.push(`day ${day}, ${lane.name}: ${(error as Error).message}`)
      }
    }
  }
  await Promise.all(lanes.map(work))
}

/** The clock goes on by so much, and a round of housekeeping comes to its end. */
async function letPass(running: Running, ms: number): Promise<void> {
  const { here, line, clock } = running
  const target = newest(here.root) + ms / 2
  running.aheadMs += ms
  running.rounds++
  clock.set({ wallMs: running.aheadMs, uptimeMs: running.rounds * ROUND_MS })
  await eventually(async () => {
    // Whatever wakes the server, so that it looks at the clock; it may end idle connections then.
    await line.send({ method: 'GET', path: '/health' }).catch(() => undefined)
    return newest(here.root) >= target
  }, true)
  line.hangUp()
}

/** Nobody is connected any more. */
async function expectIdle({ server, idleSockets }: Running): Promise<void> {
  await eventually(() => Math.max(0, sockets(server) - idleSockets), 0).catch((error: Error) => {
    throw new Wrong(`LEAKED: sockets: ${error.message}`)
  })
}

function look({ server, here, lanes }: Running): Promise<Sample> {
  const people = lanes.flatMap((lane) => lane.people)
  const stores = people.flatMap((person) => person.stores)
  const sum = (counts: number[]): number => counts.reduce((total, count) => total + count, 0)
  const metrics = /metrics: (http:\/\/[^\s",]+)/.exec(server.output().stdout)?.[1] as string
  return sample(
    { pid: server.pid, root: here.root, metrics },
    {
      accounts: people.length,
      stores: stores.length,
      permissions: sum(stores.map(({ members }) => members.size + 1)),
      sessions: sum(people.map(({ others }) => others.length + 1)),
      forgotten: sum(lanes.map(({ forgotten }) => forgotten.length)),
    },
  )
}

/** All is there, the server stops, and the next start has nothing to set aside. */
async function expectCleanEnd(running: Running, figures: Figures): Promise<void> {
  const { server, here, lanes, line } = running
  const found = await Promise.all(lanes.map(readAll))
  line.hangUp()
  for (const { read, lost } of found) {
    figures.read += read
    figures.lost += lost
  }
  if (figures.lost > 0) figures.problems.push(`LOST: ${figures.lost} stores`)
  const { code, signal } = await server.stop()
  if (code !== 0) throw new Wrong(`the server ended with ${code ?? signal}`)
  running.clock.close()
  const next = await here.serve(environment(running))
  await next.stop()
  const said = [server.output(), next.output()].flatMap((output) =>
    (output.stdout + output.stderr).split('\n').filter((line) => /"level":[4-6]0/.test(line)),
  )
  for (const line of new Set(said)) figures.problems.push(`the server said ${line.slice(0, 300)}`)
}
