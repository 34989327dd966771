// Owns what goes wrong in a cluster while clients use it: each fault begins, lasts for a while, and is over
// when it resolves.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from '../helpers/eventually.ts'
import { holdPoll, readAll } from '../helpers/feed.ts'
import { remoteClient, type Opened } from '../helpers/remote.ts'
import type { Cluster, Node } from './cluster.ts'

const MOST_MS = 700
const SLOW_MS = 40
const MOST_SILENT_MS = 15_000
const MOST_BREAKS = 12

type Fault = (cluster: Cluster, below: (n: number) => number) => Promise<unknown>

const oneOf = ({ nodes }: Cluster, below: (n: number) => number): Node =>
  nodes[below(nodes.length)] as Node

async function restartDatabase({ sqld }: Cluster, signal: NodeJS.Signals, ms: number) {
  await sqld.kill(signal)
  await pause(ms)
  await sqld.start()
}

export const FAULTS = {
  /** In turn, so that each has served a stream that broke off. */
  'nodes killed': async ({ nodes }, below) => {
    const node = nodes.shift() as Node
    nodes.push(node)
    await node.kill()
    await pause(below(MOST_MS))
    await node.start()
  },
  'database killed': (cluster, below) => restartDatabase(cluster, 'SIGKILL', below(MOST_MS)),
  'bucket cut off': async ({ bucketLink }, below) => {
    bucketLink.cut()
    await pause(below(MOST_MS))
    bucketLink.mend()
  },
  'answers of the database cut': async ({ nodes }, below) => {
    for (const { link } of nodes) link.breaks = MOST_BREAKS
    await pause(below(3 * MOST_MS))
    for (const { link } of nodes) link.breaks = 0
  },
  'bucket slow': async ({ bucketLink }, below) => {
    bucketLink.delayMs = SLOW_MS
    await pause(below(2 * MOST_MS))
    bucketLink.delayMs = 0
  },
  'database ended': (cluster, below) => restartDatabase(cluster, 'SIGTERM', below(MOST_MS)),
  'nodes cut off from the database': async (cluster, below) => {
    const { link } = oneOf(cluster, below)
    link.cut()
    await pause(below(MOST_MS))
    link.mend()
  },
  /** Mostly longer than a node waits: what it gave up arrives after all. */
  'nodes that hear nothing of the database': async (cluster, below) => {
    const { link } = oneOf(cluster, below)
    link.isSilent = true
    await pause(below(MOST_SILENT_MS))
    link.isSilent = false
  },
} satisfies Record<string, Fault>

export type FaultName = keyof typeof FAULTS

/** Over and over. */
export const SEQUENCE: FaultName[] = [
  'nodes killed',
  'database killed',
  'bucket cut off',
  'nodes killed',
  'answers of the database cut',
  'bucket slow',
  'nodes killed',
  'database ended',
  'nodes cut off from the database',
  'nodes that hear nothing of the database',
]

/** Fails unless who waits on any node soon hears what is written through another, and only once. */
export async function expectAllHear({ nodes }: Cluster, person: Opened): Promise<void> {
  for (const [i, writer] of nodes.entries()) {
    const others = nodes
      .filter((node) => node !== writer)
      .map(({ url }) => remoteClient(url, person))
    const polls: Promise<Response>[] = []
    for (const other of others) {
      await eventually(async () => (await other.request('/changes?limit=1')).status, 200)
      polls.push(holdPoll(other, (await readAll(other, undefined, 1000)).cursor))
    }
    // So that they are held. One that came too late would be answered all the same.
    await pause(100)
    const headers = { 'X-Sync-Token': '*' }
    const self = remoteClient(writer.url, person)
    const write = async (): Promise<boolean> => {
      const { status } = await self.put('heard', String(i), headers)
      return status < 300 || (status === 412 && (await self.put('heard', String(i))).status < 300)
    }
    await eventually(write, true)
    for (const poll of polls) {
      const page = (await (await poll).json()) as { changes: unknown[] }
      assert.equal(page.changes.length, 1)
    }
  }
}
