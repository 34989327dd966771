// Owns the simulation of who is told of a write, where several nodes follow one database: what src/database/follow.ts
// and src/http/event-stream.ts do, counted, and the same for the same seed.
import { numbers } from '../../test/helpers/random.ts'

// As in follow.ts and event-stream.ts.
const LOOK_MS = 400
const MOST_TOUCHED = 5000
const HEARTBEAT_MS = 20_000

export interface Crowd {
  accounts: number
  /** Of each account, and the share of them that listens. */
  devices: number
  connected: number
  /** Accounts that share stores with each other. */
  members: number
  /** The share of writes that go to a shared store; the rest concerns the writer alone. */
  shared: number
  /** Stores of an account, and as many of a group, that are written to. */
  stores: number
  nodes: number
  /** A second. */
  writes: number
}

/** All but `streams` and `busiest` a second. */
export interface FanOut {
  streams: number
  /** Questions of the nodes what is new, and the accounts that they are told. */
  looks: number
  rows: number
  /** Streams that ask the database because something was written: mostly, and always, for their account. */
  wakes: number
  events: number
  /** Streams that ask it because 20 s are over. */
  beats: number
  /** Of the wakes, the share of the node that has most. */
  busiest: number
  /** Looks that found too many accounts to name, and woke everybody. */
  alarms: number
}

export function simulate(
  crowd: Crowd,
  { seed, seconds }: { seed: number; seconds: number },
): FanOut {
  const below = numbers(seed)
  const { accounts, nodes } = crowd
  const streams = Math.round(accounts * crowd.devices * crowd.connected)
  const listening = connect(crowd, streams, below)
  const wakes = new Float64Array(nodes)
  const sum = { rows: 0, events: 0, alarms: 0 }
  const looks = Math.round((seconds * 1000) / LOOK_MS)
  let due = 0
  for (let look = 0; look < looks; look++) {
    due += (crowd.writes * LOOK_MS) / 1000
    const touched = write(crowd, Math.floor(due), below)
    due %= 1
    const isAlarm = touched.size > MOST_TOUCHED
    sum.rows += Math.min(touched.size, MOST_TOUCHED + 1) * nodes
    if (isAlarm) sum.alarms++
    for (let node = 0; node < nodes; node++) {
      for (const [account, { size }] of touched) {
        const count = listening[node * accounts + account] as number
        sum.events += count * size
        if (!isAlarm) wakes[node] = (wakes[node] as number) + count
      }
      if (isAlarm) wakes[node] = (wakes[node] as number) + streams / nodes
    }
  }
  const woken = wakes.reduce((all, one) => all + one, 0)
  return {
    streams,
    looks: (looks * nodes) / seconds,
    rows: sum.rows / seconds,
    wakes: woken / seconds,
    events: sum.events / seconds,
    beats: streams / (HEARTBEAT_MS / 1000),
    busiest: woken === 0 ? 1 / nodes : Math.max(...wakes) / woken,
    alarms: sum.alarms / seconds,
  }
}

/** How many streams each account has on each node: as a balancer that knows nothing spreads them. */
function connect(
  { accounts, devices, nodes }: Crowd,
  streams: number,
  below: (most: number) => number,
): Uint8Array {
  const listening = new Uint8Array(accounts * nodes)
  // Each device once, the ones that listen spread over all.
  for (let stream = 0; stream < streams; stream++) {
    const device = Math.floor((stream * accounts * devices) / streams)
    const place = below(nodes) * accounts + (device % accounts)
    listening[place] = (listening[place] as number) + 1
  }
  return listening
}

/** So many writes: the accounts that they concern, and each one's stores that were written, once each. */
function write(
  { accounts, members, shared, stores }: Crowd,
  count: number,
  below: (most: number) => number,
): Map<number, Set<number>> {
  const touched = new Map<number, Set<number>>()
  for (let one = 0; one < count; one++) {
    const writer = below(accounts)
    const store = below(stores)
    const isShared = below(1_000_000) < shared * 1_000_000
    const first = isShared ? writer - (writer % members) : writer
    const last = isShared ? Math.min(first + members, accounts) : writer + 1
    for (let account = first; account < last; account++) {
      const written = touched.get(account) ?? new Set()
      touched.set(account, written.add(isShared ? store : stores + store))
    }
  }
  return touched
}
