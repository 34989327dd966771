// Owns the arithmetic: from what one row and one piece of work cost to what so many accounts need. What is assumed
// of people and of prices stands here, to be replaced.
import type { Place } from './bytes.ts'
import type { Costs } from './costs.ts'
import { simulate, type Crowd, type FanOut } from './fan-out.ts'

export const ASSUMED = {
  stores: 1000, // an account
  devices: 3, // an account
  connected: 0.25, // of the devices, at the peak
  members: 4, // of a shared store
  shared: 0.1, // of the stores, and of the writes
  small: 1024, // bytes of a value in the database
  large: 0.02, // of the values are above 16 KiB
  largeBytes: 256 * 1024, // each
  reads: 40, // a device and day, a poll or a value
  writes: 10, // a device and day
  peak: 4, // times the mean
  // A reserve for what is uneven.
  busy: 0.5, // of the one writer, and of each processor, at the peak
  databaseCores: 8,
}

export const PRICES = { database: 0.1, bucket: 0.02, core: 20 } // GB and month, GB and month, vCPU and month

const MOST_NODES = 16
const DAY_S = 86_400
const GB = 1e9

export interface Load extends FanOut {
  /** A second: calls to the database server, and the statements in them. */
  calls: number
  statements: number
  /** Processors kept busy: of the database, by its writes alone, and of all nodes. */
  database: number
  writer: number
  node: number
}

/** What a fan-out, and the requests beside it, cost; `rows`: ms of the database for an account in a look. */
export function load(
  { writes }: Pick<Crowd, 'writes'>,
  fanOut: FanOut,
  { costs, rows, reads }: { costs: Costs; rows: number; reads: number },
): Load {
  const { write, read, poll, told } = costs
  // A look is as small a question as a read; a beat asks what a poll does.
  const work = [
    [write, writes],
    [read, reads + fanOut.looks],
    [poll, fanOut.beats],
    [told, fanOut.wakes],
  ] as const
  const sum = (of: 'node' | 'database' | 'statements'): number =>
    work.reduce((all, [cost, count]) => all + cost[of] * count, 0)
  return {
    ...fanOut,
    calls: 2 * writes + reads + fanOut.looks + fanOut.beats + fanOut.wakes,
    statements: sum('statements'),
    database: (sum('database') + rows * fanOut.rows) / 1000,
    writer: (write.database * writes) / 1000,
    node: sum('node') / 1000,
  }
}

interface Needs {
  accounts: number
  stores: number
  permissions: number
  writes: number
  reads: number
  load: Load
  nodes: number
  /** Databases, so that each one's writes and processors stay below what is assumed. */
  shards: number
  databaseGb: number
  bucketGb: number
  /** Of the nodes and the databases. */
  cores: number
  money: number
}

interface Measured {
  costs: Costs
  places: Place[]
  rows: number
}

const rowsPerStore = (): number => 1 + ASSUMED.shared * (ASSUMED.members - 1)

/** Bytes in the database of an account with its sessions, its stores and their permissions. */
export function bytesOfAccount(places: Place[]): number {
  const { stores, large, devices } = ASSUMED
  const rows = (name: string): number => {
    if (name.includes('permission')) return stores * rowsPerStore()
    if (name === 'store_data') return stores * (1 - large)
    if (name.includes('store')) return stores
    return name.includes('session') ? devices : 1
  }
  return places.reduce((sum, { name, bytes }) => sum + bytes * rows(name), 0)
}

/** At the peak of the day, where this many nodes follow one database. */
export function loadOf(
  { accounts, nodes }: { accounts: number; nodes: number },
  { costs, rows }: Pick<Measured, 'costs' | 'rows'>,
  seed: number,
): Load {
  const { devices, connected, members, shared, stores } = ASSUMED
  const writes = perSecond(accounts, ASSUMED.writes)
  const reads = perSecond(accounts, ASSUMED.reads)
  const crowd = { accounts, devices, connected, members, shared, stores, writes, nodes }
  return load(crowd, simulate(crowd, { seed, seconds: 10 }), { costs, rows, reads })
}

const perSecond = (accounts: number, perDevice: number): number =>
  (accounts * ASSUMED.devices * perDevice * ASSUMED.peak) / DAY_S

export function needs(accounts: number, measured: Measured, seed: number): Needs {
  const most = Math.ceil(loadOf({ accounts, nodes: 2 }, measured, seed).node / ASSUMED.busy)
  const nodes = Math.max(2, most)
  // With shards a node follows its own database alone: this many are behind one.
  const found = loadOf({ accounts, nodes: Math.min(nodes, MOST_NODES) }, measured, seed)
  const perDatabase = ASSUMED.databaseCores * ASSUMED.busy
  const shards = Math.ceil(Math.max(found.writer / ASSUMED.busy, found.database / perDatabase))
  const databaseGb = (accounts * bytesOfAccount(measured.places)) / GB
  const bucketGb = (accounts * ASSUMED.stores * ASSUMED.large * ASSUMED.largeBytes) / GB
  const cores = nodes + Math.ceil(found.database / ASSUMED.busy)
  return {
    accounts,
    stores: accounts * ASSUMED.stores,
    permissions: accounts * ASSUMED.stores * rowsPerStore(),
    writes: perSecond(accounts, ASSUMED.writes),
    reads: perSecond(accounts, ASSUMED.reads),
    load: found,
    nodes,
    shards,
    databaseGb,
    bucketGb,
    cores,
    money: databaseGb * PRICES.database + bucketGb * PRICES.bucket + cores * PRICES.core,
  }
}
