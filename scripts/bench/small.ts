// Owns what is done most: values of 4 KiB read and written, and polls that bring nothing, everybody in turn.
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Bench } from './bench.ts'
import { cycle, withTokens, wrk } from './load.ts'
import {
  FLOOR,
  PEERS,
  SYNC_NODE,
  openSyncNode,
  startFloor,
  type Request,
  type Running,
  type SyncNode,
} from './peers.ts'
import { lastCursor } from './feed.ts'
import { settleDisk, startSyncNode } from './process.ts'
import { atLeast, atMost, figure, mib, type Result } from './report.ts'

const NAMES = Array.from({ length: 1000 }, (_, one) => `key-${one}`)
export const VALUE = randomBytes(4096)

type Everybody = Map<string, Running>

export async function measureSmall(bench: Bench): Promise<Result[]> {
  const all: Everybody = new Map()
  const idle = new Map([[SYNC_NODE, await idleKib(bench)]])
  const syncNode = await openSyncNode(folderOf(bench, SYNC_NODE))
  all.set(SYNC_NODE, syncNode)
  await send(syncNode, syncNode.write('key-0', VALUE))
  const poll = await emptyPoll(syncNode)
  const replace = syncNode.write('key-0', VALUE)
  const overwrite = { ...replace, headers: { ...replace.headers, 'X-Sync-Token': '*' } }
  all.set(FLOOR, await startFloor(syncNode, [syncNode.read('key-0'), overwrite, poll]))
  for (const { name, start } of PEERS) {
    try {
      const peer = await start(folderOf(bench, name))
      all.set(name, peer)
      await pause(500)
      idle.set(name, peer.rssAnonKib())
      await check(peer)
    } catch (error) {
      bench.missing(name, (error as Error).message)
      await all.get(name)?.stop()
      all.delete(name)
    }
  }
  const results = [
    await reads(bench, all),
    await writes(bench, all, syncNode),
    await polls(bench, all, poll),
    ...memory(all, idle),
  ]
  for (const one of all.values()) await one.stop()
  return results
}

/** Before it has hashed a password. */
async function idleKib({ folder }: Bench): Promise<number> {
  const server = await startSyncNode(join(folder, 'idle'))
  await pause(1000)
  const kib = server.rssAnonKib()
  await server.stop()
  return kib
}

export function folderOf({ folder }: Bench, name: string): string {
  const own = join(folder, name.replaceAll(/\W+/g, '-'))
  mkdirSync(own, { mode: 0o755 })
  return own
}

export async function send({ url }: Running, { path, ...init }: Request): Promise<Response> {
  const answer = await fetch(url + path, init as RequestInit)
  if (!answer.ok) throw new Error(`${init.method} was answered ${answer.status}`)
  return answer
}

/** A value is written, and replaced, and read as it was written; then all that will be read. */
async function check(peer: Running): Promise<void> {
  for (const value of [randomBytes(100), randomBytes(4096)]) {
    await (await send(peer, peer.write('check', value))).arrayBuffer()
    const body = Buffer.from(await (await send(peer, peer.read('check'))).arrayBuffer())
    if (!value.equals(peer.valueIn?.(body) ?? body)) throw new Error('other bytes came back')
  }
}

async function emptyPoll({ url, authorization: headers }: SyncNode): Promise<Request> {
  return { method: 'GET', path: `/changes?since=${await lastCursor(url, headers)}`, headers }
}

/** Everybody in turn, and that `rounds` times; requests a second. */
async function inTurns(
  bench: Bench,
  { what, all }: { what: string; all: Everybody },
  argsOf: (name: string, peer: Running) => string[] | Promise<string[]>,
): Promise<Pick<Result, 'figures'>> {
  const rates = new Map([...all.keys()].map((name): [string, number[]] => [name, []]))
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, peer] of all) {
      const args = await argsOf(name, peer)
      settleDisk(bench.folder)
      try {
        const { rate } = await wrk({ port: peer.port, seconds: bench.seconds, args })
        rates.get(name)?.push(rate)
      } catch (error) {
        bench.missing(`${name}, ${what}`, (error as Error).message)
        rates.delete(name)
      }
    }
  }
  const complete = [...rates].filter(([, rounds]) => rounds.length === bench.rounds)
  return { figures: complete.map(([name, rounds]) => figure(name, rounds)) }
}

async function reads(bench: Bench, all: Everybody): Promise<Result> {
  for (const [name, peer] of all) {
    const fresh = name === SYNC_NODE ? NAMES.slice(1) : NAMES
    if (name !== FLOOR) for (const one of fresh) await send(peer, peer.write(one, VALUE))
  }
  const requests = (name: string, peer: Running): string[] =>
    cycle(join(bench.folder, `get-${name}`), NAMES.map(peer.read))
  const result = await inTurns(bench, { what: 'GET', all }, requests)
  return {
    work: 'GET 4 KiB, authenticated, 1,000 keys, 32 connections',
    unit: 'requests a second',
    ...result,
    targets: [
      atLeast(result, 0.35, [SYNC_NODE, FLOOR]),
      atLeast(result, 2, [SYNC_NODE, 'rclone serve webdav']),
      atLeast(result, 20, [SYNC_NODE, 'armadietto']),
    ],
  }
}

async function writes(bench: Bench, all: Everybody, syncNode: SyncNode): Promise<Result> {
  const result = await inTurns(bench, { what: 'PUT', all }, (name, peer) => {
    const file = join(bench.folder, `put-${name}`)
    return name === SYNC_NODE
      ? withTokens(file, syncNode, { names: NAMES, body: VALUE })
      : cycle(
          file,
          NAMES.map((one) => peer.write(one, VALUE)),
        )
  })
  return {
    work: 'PUT 4 KiB, token checked, synced before the answer, 32 connections',
    unit: 'requests a second',
    ...result,
    targets: [
      atLeast(result, 2, [SYNC_NODE, 'nginx DAV']),
      atLeast(result, 50, [SYNC_NODE, 'armadietto']),
    ],
  }
}

async function polls(bench: Bench, all: Everybody, poll: Request): Promise<Result> {
  const able: Everybody = new Map([...all].filter(([name]) => [SYNC_NODE, FLOOR].includes(name)))
  // What was written meanwhile is not asked for again.
  const request = { ...poll, path: (await emptyPoll(all.get(SYNC_NODE) as SyncNode)).path }
  const args = cycle(join(bench.folder, 'poll'), [request])
  const result = await inTurns(bench, { what: 'changes', all: able }, () => args)
  return {
    work: 'GET /changes with nothing new, 32 connections',
    unit: 'requests a second',
    ...result,
    targets: [atLeast(result, 0.35, [SYNC_NODE, FLOOR])],
  }
}

function memory(all: Everybody, idle: Map<string, number>): Result[] {
  const known = [...idle].filter(([who]) => all.has(who))
  const before = known.map(([who, kib]) => figure(who, [mib(kib)]))
  const after = known.map(([who]) => figure(who, [mib((all.get(who) as Running).rssAnonKib())]))
  const what = 'private (RssAnon), of all processes'
  return [
    {
      work: `memory when idle, ${what}`,
      unit: 'MiB',
      figures: before,
      targets: [atMost(mib(idle.get(SYNC_NODE) as number), 32, 'MiB')],
    },
    { work: `memory after these loads, ${what}`, unit: 'MiB', figures: after, targets: [] },
  ]
}
