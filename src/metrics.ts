// Owns the numbers for Prometheus: what is counted as it happens, and what is asked at a scrape. No
// label holds anything of an account.
import type * as Prometheus from '@prometheus-io/client'
import type { Deps } from './deps.ts'
import { load, version } from './packed.ts'

interface Answered {
  method: string
  /** The pattern of the route table: never a path, which has a key in it. */
  route: string
  /** `none` when the client went away before. */
  status: string
  /** Null for an event stream, which lasts as long as its client likes. */
  seconds: number | null
}

export interface Metrics {
  answered(answer: Answered): void
  /** The writer has committed, or tried to: one sync for so many writes. */
  committed(group: { writes: number; seconds: number }): void
  streams(change: 1 | -1): void
  /** Everything, in the text format 0.0.4. */
  text(now: Pick<Deps, 'database' | 'listeners' | 'space'>): Promise<string>
}

export const TEXT_FORMAT = 'text/plain; version=0.0.4; charset=utf-8'

const ANSWER_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
const COMMIT_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
const GROUP_SIZES = [1, 2, 4, 8, 16, 32, 64]

/** The library is loaded only where somebody scrapes. */
export async function openMetrics(): Promise<Metrics> {
  const library = await load('prometheus')
  const registry = new library.Registry()
  library.collectDefaultMetrics({ register: registry })
  const { requests, answers, commits, groups } = counted(library, registry)
  const asked = gauges(library, registry)
  let streams = 0

  return {
    answered({ method, route, status, seconds }) {
      requests.inc({ method, route, status })
      if (seconds !== null) answers.observe({ method, route }, seconds)
    },
    committed({ writes, seconds }) {
      commits.observe(seconds)
      groups.observe(writes)
    },
    streams(change) {
      streams += change
    },
    async text({ database, listeners, space }) {
      const { rows } = await database.execute('SELECT stores, bytes, garbage FROM node')
      const [row] = rows
      asked.streams.set(streams)
      asked.polls.set(listeners.count() - streams)
      asked.stores.set(Number(row?.['stores']))
      asked.bytes.set(Number(row?.['bytes']))
      asked.garbage.set(Number(row?.['garbage']))
      asked.free.set(space.free())
      asked.wal.set(space.wal())
      return registry.metrics()
    },
  }
}

type Library = typeof Prometheus
type Registry = InstanceType<Library['Registry']>

function counted({ Counter, Histogram }: Library, registry: Registry) {
  const registers = [registry]
  return {
    requests: new Counter({
      name: 'sync_node_http_requests_total',
      help: 'Requests by route pattern and status.',
      labelNames: ['method', 'route', 'status'],
      registers,
    }),
    answers: new Histogram({
      name: 'sync_node_http_request_duration_seconds',
      help: 'From the request to the end of its answer; event streams are not counted.',
      labelNames: ['method', 'route'],
      buckets: ANSWER_SECONDS,
      registers,
    }),
    commits: new Histogram({
      name: 'sync_node_commit_duration_seconds',
      help: 'A commit with its sync to the disk.',
      buckets: COMMIT_SECONDS,
      registers,
    }),
    groups: new Histogram({
      name: 'sync_node_commit_writes',
      help: 'Writes that one commit took.',
      buckets: GROUP_SIZES,
      registers,
    }),
  }
}

/** What is known at a scrape. */
function gauges({ Gauge }: Library, registry: Registry) {
  const registers = [registry]
  const gauge = (name: string, help: string) =>
    new Gauge({ name: `sync_node_${name}`, help, registers })
  const info = new Gauge({
    name: 'sync_node_info',
    help: 'Always 1: the version is its label.',
    labelNames: ['version'],
    registers,
  })
  info.set({ version }, 1)
  return {
    streams: gauge('event_streams', 'Event streams that are open.'),
    polls: gauge('held_polls', 'Calls of /changes that are held until something changes.'),
    stores: gauge('stores', 'Stores of all accounts.'),
    bytes: gauge('stored_bytes', 'Bytes of their values, each counted once.'),
    garbage: gauge('garbage_files', 'Superseded files that wait for their removal.'),
    free: gauge('free_disk_bytes', 'Free bytes on the disk of the data.'),
    wal: gauge('wal_bytes', 'Bytes of the write-ahead log.'),
  }
}
