// Owns the proof by hostile traffic: a server that is sent all that its grammar, and chance, can bring
// about, and what became of it and of a bystander's data.
import { readFileSync, readdirSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { openLine } from '../attack/ask.ts'
import { install, type Server } from '../helpers/executable.ts'
import { at } from '../helpers/figures.ts'
import { openapiOf } from '../helpers/openapi.ts'
import { PROGRAM } from '../proof/recording.ts'
import { faultsInLog, judgeBy } from './judge.ts'
import { gather, MARK, type People } from './people.ts'
import { nothingPlayed, play, type Played } from './play.ts'
import { pipeline } from './pipeline.ts'
import { crawl, readUntil, type Reading, type Slow, type Way } from './slow.ts'
import { cutUploads, look, type Cuts } from './uploads.ts'

export interface Fuzzing {
  seed: number
  requests: number
  /** Only the batch of this number. */
  at?: number
  uploads: number
  /** In a row on one connection, none of whose answers is read. */
  pipelined: number
  /** Null for none. */
  slow: { connections: number; seconds: number; ways: Way[] } | null
  /** For so long somebody reads before others come; 0 is nobody beside the requests. */
  quietSeconds: number
  /** For the memory to come back, after each part, at most. */
  restMs: number
  /** In all. */
  mostMs: number
  tell?: (line: string) => void
}

export interface Figures {
  seed: number
  played: Played
  cuts: Cuts[]
  slow: Slow[]
  /** How long a bystander's reads take before the requests, and beside them. */
  quietMs: number[]
  besideMs: number[]
  /** Private memory after each part, the first after a warm-up. */
  memory: { after: string; mib: number; seconds: number }[]
  problems: string[]
  seconds: number
}

const ROUND = 10_000
export const MOST_MIB_MORE = 10
const REST_MS = 50
const SETTINGS = {
  QUOTA: '4M',
  METRICS_PORT: '0',
  // For a server from source: the executable has it built in.
  NODE_OPTIONS: '--max-http-header-size=131072',
}
// Of the helpers that ask by fetch, which keeps connections.
const SPARE_DESCRIPTORS = 32

interface Running {
  server: Server
  root: string
  people: People
  figures: Figures
  fuzzing: Fuzzing
}

/** Plays it all against a server in a temporary folder. */
export async function run(fuzzing: Fuzzing): Promise<Figures> {
  const began = performance.now()
  const { seed } = fuzzing
  const figures: Figures = {
    seed,
    played: nothingPlayed(),
    cuts: [],
    slow: [],
    quietMs: [],
    besideMs: [],
    memory: [],
    problems: [],
    seconds: 0,
  }
  const afters: (() => unknown)[] = []
  const program = install({ after: (undo) => void afters.push(undo as () => unknown) }, PROGRAM)
  try {
    const server = await program.serve(SETTINGS)
    const secrets = new Set<string>()
    try {
      const people = await gather(server.url)
      const playing = playAll({ server, root: program.root, people, figures, fuzzing }, secrets)
      await Promise.race([playing, late(fuzzing.mostMs)])
    } catch (error) {
      figures.problems.push(`it did not come to its end: ${(error as Error).stack}`)
    }
    const ended = await server.stop()
    if (ended.code !== 0) figures.problems.push(`the server ended with ${JSON.stringify(ended)}`)
    figures.problems.push(...faultsInLog(server.output(), [...secrets]).slice(0, 10))
  } finally {
    for (const after of afters) await after()
  }
  figures.problems.unshift(
    ...figures.played.problems,
    ...figures.cuts.flatMap((one) => one.problems),
  )
  figures.problems.push(...figures.slow.flatMap(({ problems }) => problems.slice(0, 5)))
  figures.seconds = (performance.now() - began) / 1000
  return figures
}

const late = (ms: number): Promise<never> =>
  new Promise((_, reject) => {
    setTimeout(() => reject(new Error('it stands still, or takes too long')), ms).unref()
  })

async function playAll(running: Running, secrets: Set<string>): Promise<void> {
  const { server, people, figures, fuzzing } = running
  const { seed, requests } = fuzzing
  const port = Number(new URL(server.url).port)
  const openapi = await openapiOf(server.url)
  const { scene } = people
  const playing = { port, scene, openapi, judge: judgeBy(openapi), seed, played: figures.played }
  const descriptors = openDescriptors(server)
  let next = fuzzing.at ?? 0

  async function playRounds(total: number): Promise<void> {
    for (let left = total; left > 0 && figures.played.problems.length === 0; left -= ROUND) {
      await people.renew()
      for (const { token, user } of scene.people) secrets.add(token).add(user)
      next = await play(playing, next, Math.min(left, ROUND))
      await people.bystander.check()
      const { requests: done, problems } = figures.played
      fuzzing.tell?.(
        `${done} requests, ${problems.length} problems, ${mibOf(server).toFixed(1)} MiB`,
      )
    }
  }

  async function cut(uploads: number): Promise<void> {
    if (uploads === 0) return
    await people.renew()
    const bearer = scene.people[1]?.token as string
    const { url } = server
    figures.cuts.push(await cutUploads({ url, port, root: running.root, bearer, seed, uploads }))
  }

  if (fuzzing.at !== undefined) return playRounds(1)
  const warmUp = Math.min(50_000, Math.floor(requests / 4))
  await playRounds(warmUp)
  if (figures.played.problems.length > 0) return
  await cut(Math.floor(fuzzing.uploads / 10))
  await rest(running, 'a warm-up')
  await beside(running, () => playRounds(requests - warmUp))
  await rest(running, 'the requests')
  await cut(fuzzing.uploads)
  await rest(running, 'the uploads')
  if (fuzzing.pipelined > 0) {
    await people.renew()
    const bearer = scene.people[1]?.token as string
    const { url } = server
    figures.problems.push(...(await pipeline({ url, bearer }, fuzzing.pipelined)))
    await people.bystander.check()
    await rest(running, `${fuzzing.pipelined} requests in a row`)
  }
  for (const way of fuzzing.slow?.ways ?? []) {
    await slowly(running, way)
    await rest(running, `slow ${way}`)
  }
  const isMore = (): boolean => openDescriptors(server) > descriptors + SPARE_DESCRIPTORS
  await look('descriptors stay open', () => (isMore() ? [openDescriptors(server)] : []), figures)
  await look('held polls and streams stay', () => waiting(server), figures)
  await people.bystander.check()
  await people.bystander.logIn()
}

/** What the bystander reads, and has to be answered. */
async function readingOf({ server, people }: Running): Promise<Reading> {
  const { client } = people.bystander
  const value = await (await client.get(`${MARK} inline`)).text()
  return { url: server.url, bearer: client.token, path: `/store/${MARK}%20inline`, value }
}

/** While somebody reads. */
async function beside(running: Running, work: () => Promise<void>): Promise<void> {
  const { quietSeconds, requests } = running.fuzzing
  const { quietMs, besideMs, problems } = running.figures
  if (quietSeconds === 0 || requests === 0) return work()
  const reading = await readingOf(running)
  const line = openLine(reading.url)
  try {
    const quietUntil = performance.now() + quietSeconds * 1000
    const isQuietOver = (): boolean => performance.now() > quietUntil
    quietMs.push(...(await readUntil(line, reading, problems, isQuietOver)))
    let isOver = false
    const working = work().finally(() => (isOver = true))
    working.catch(() => undefined)
    besideMs.push(...(await readUntil(line, reading, problems, () => isOver)))
    await working
  } finally {
    line.close()
  }
}

async function slowly(running: Running, way: Way): Promise<void> {
  const { server, figures, fuzzing } = running
  const { slow, quietSeconds } = fuzzing
  if (slow === null) return
  const descriptors = (): number => openDescriptors(server)
  const reading = await readingOf(running)
  figures.slow.push(await crawl(way, { ...reading, descriptors, quietSeconds, ...slow }))
}

/**
 * Waits until the memory is what it was after the warm-up, or for as long as it may take. Meanwhile the
 * bystander reads: a server without any work collects no garbage.
 */
async function rest({ server, people, figures, fuzzing }: Running, after: string): Promise<void> {
  const began = performance.now()
  const [warm] = figures.memory
  const until = began + fuzzing.restMs / (warm === undefined ? 4 : 1)
  const isBack = (): boolean => warm !== undefined && mibOf(server) <= warm.mib + MOST_MIB_MORE
  const isOver = (): boolean => performance.now() > until || isBack()
  while (!isOver()) {
    await people.bystander.check()
    await pause(REST_MS)
  }
  const mib = mibOf(server)
  const seconds = (performance.now() - began) / 1000
  figures.memory.push({ after, mib, seconds })
  fuzzing.tell?.(`${mib.toFixed(1)} MiB after ${after}, and ${seconds.toFixed(0)} s`)
}

function mibOf({ pid }: Server): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]) / 1024
}

const openDescriptors = ({ pid }: Server): number => readdirSync(`/proc/${pid}/fd`).length

/** What the server says that it holds open for clients, of whom none is there any more. */
async function waiting({ output }: Server): Promise<string[]> {
  const [, url = ''] = /metrics: (\S+\/metrics)/.exec(output().stdout) ?? []
  const text = await (await fetch(url)).text()
  return text.match(/^sync_node_(?:held_polls|event_streams) [^0].*$/gm) ?? []
}

const p99 = (ms: number[]): string => (at(ms, 0.99) || 0).toFixed(1)

/** Below, nobody notices, and a busy machine does as much by itself. */
const UNNOTICED_MS = 5

/** Whose reads took more than twice as long beside slow clients. To be judged on a quiet machine. */
export const slowedBy = ({ slow }: Figures): string[] =>
  slow
    .filter(({ quietMs, besideMs }) => {
      const beside = at(besideMs, 0.99)
      return beside > UNNOTICED_MS && beside > 2 * at(quietMs, 0.99)
    })
    .map(
      ({ way, quietMs, besideMs }) =>
        `beside slow ${way} reads have a p99 of ${p99(besideMs)} ms, before ${p99(quietMs)} ms`,
    )

/** All that was done and found, in lines. */
export function toTable(figures: Figures): string {
  const { played, cuts, slow, memory, problems, seconds, seed, quietMs, besideMs } = figures
  const sum = (of: 'cuts' | 'files' | 'resets'): number =>
    cuts.reduce((all, one) => all + one[of], 0)
  const leaked = problems.filter((problem) => problem.includes('LEAKED')).length
  const rows: [string, string | number][] = [
    ['seed', seed],
    ['requests', played.requests],
    ['  over so many connections', played.connections],
    ['  answered one by one, as the document says', played.answered],
    ['  broken, mutated, or hung up on', played.loose],
    ['  sent behind one that ended its connection', played.cutOff],
    ...[...played.answers]
      .toSorted(([, a], [, b]) => b - a)
      .map(([name, times]): [string, number] => [`  answers ${name}`, times]),
    [
      'reads beside them',
      besideMs.length > 0
        ? `${besideMs.length}, p99 ${p99(besideMs)} ms; before, ${p99(quietMs)} ms`
        : 0,
    ],
    ['uploads cut', sum('cuts')],
    ['  of which were files', sum('files')],
    ['  by a reset', sum('resets')],
    ...slow.map(
      ({ way, connections, most, quietMs, besideMs, isEnded, seconds: took }): [string, string] => [
        `${connections} slow ${way}, ${most} at once`,
        `${isEnded ? 'ended by the server' : 'stopped'} after ${took.toFixed(0)} s; ${besideMs.length} reads meanwhile, p99 ${p99(besideMs)} ms; before, ${p99(quietMs)} ms`,
      ],
    ),
    ...memory.map(({ after, mib, seconds: took }): [string, string] => [
      `memory after ${after}`,
      `${mib.toFixed(1)} MiB, ${took.toFixed(0)} s later`,
    ]),
    ['left over', leaked],
    ['wrong, or not as documented', problems.length - leaked],
    ['seconds', Math.round(seconds)],
  ]
  return rows
    .filter(([name, value]) => value !== 0 || name.startsWith('left') || name.startsWith('wrong'))
    .map(([name, value]) => `${name.padEnd(48)} ${value}`)
    .join('\n')
}
