// Owns the figures of several nodes on one database server, beside the single file: the same load, shared
// out among the nodes. All of it runs on this machine, the load and the database too.
import { join } from 'node:path'
import { startBucket } from '../../test/helpers/bucket.ts'
import type { Bench } from './bench.ts'
import { lastCursor } from './feed.ts'
import { CONNECTIONS, cycle, withTokens, wrk } from './load.ts'
import { openSyncNode, signUp, type SyncNode } from './peers.ts'
import { freePort, settleDisk, startSqld, startSyncNode } from './process.ts'
import { figure, type Result } from './report.ts'
import { VALUE, folderOf, send } from './small.ts'

const NAMES = Array.from({ length: 300 }, (_, one) => `key-${one}`)
const NODES = 3

type Requests = (node: SyncNode, nth: number, of: number) => Promise<string[]>

export async function measureNodes(bench: Bench): Promise<Result[]> {
  const afters: (() => unknown)[] = []
  const bucket = await startBucket({ after: (undo) => void afters.push(undo as () => unknown) })
  const file = await openSyncNode(folderOf(bench, 'the single file'))
  const database = await startSqld(join(folderOf(bench, 'database'), 'data'))
  const env = {
    ...bucket.environment,
    DATABASE_URL: database.url,
    SECRET_KEY: 'of a bench, which all nodes share',
  }
  const nodes: SyncNode[] = []
  for (let i = 0; i < NODES; i++) {
    // Their log names other ports, too.
    const root = join(folderOf(bench, `node ${i}`), 'data')
    const server = await startSyncNode(root, env, await freePort())
    nodes.push(i === 0 ? await signUp(server) : { ...(nodes[0] as SyncNode), ...server })
  }
  for (const one of [file, nodes[0] as SyncNode]) {
    for (const name of NAMES) await send(one, one.write(name, VALUE))
  }
  const all = new Map([['the single file', [file]]])
  for (let n = 1; n <= NODES; n++) all.set(`${n} on a database server`, nodes.slice(0, n))
  const measure = (work: string, requests: Requests): Promise<Result> =>
    inTurns(bench, all, { work, requests })
  const results = [
    await measure('GET 4 KiB', async ({ read }, nth) => cycle(pathOf(bench, nth), NAMES.map(read))),
    await measure('GET /changes with nothing new', async ({ url, authorization: headers }, nth) => {
      const path = `/changes?since=${await lastCursor(url, headers)}`
      return cycle(pathOf(bench, nth), [{ method: 'GET', path, headers }])
    }),
    await measure('PUT 4 KiB, token checked', (node, nth, of) => {
      const names = NAMES.filter((_, i) => i % of === nth)
      return withTokens(pathOf(bench, nth), node, { names, body: VALUE })
    }),
  ]
  for (const one of [file, ...nodes, database]) await one.stop()
  for (const after of afters) await after()
  return results
}

const pathOf = ({ folder }: Bench, nth: number): string => join(folder, `nodes-${nth}`)

/** All of them in turn, each with as many connections in all; requests a second. */
async function inTurns(
  bench: Bench,
  all: Map<string, SyncNode[]>,
  { work, requests }: { work: string; requests: Requests },
): Promise<Result> {
  const rates = new Map([...all.keys()].map((name): [string, number[]] => [name, []]))
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, nodes] of all) {
      const args = await Promise.all(nodes.map((node, nth) => requests(node, nth, nodes.length)))
      settleDisk(bench.folder)
      const connections = Math.floor(CONNECTIONS / nodes.length)
      const loads = nodes.map(({ port }, nth) =>
        wrk({ port, connections, seconds: bench.seconds, args: args[nth] as string[] }),
      )
      const loaded = await Promise.all(loads)
      rates.get(name)?.push(loaded.reduce((sum, { rate }) => sum + rate, 0))
    }
  }
  const figures = [...rates].map(([name, rounds]) => figure(name, rounds))
  const name = `${work}, ${CONNECTIONS} connections in all`
  return { work: name, unit: 'requests a second', figures, targets: [] }
}
