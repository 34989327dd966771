// Owns slow clients by the thousand, made by Debian's slowhttptest, and what others notice of them.
import { spawn, spawnSync } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { openLine, type Line } from '../attack/ask.ts'

const PROGRAM = 'slowhttptest'

/** False, or why there is nothing to test with. In CI that is a failure. */
export const skip: string | false =
  process.env['CI'] === undefined && spawnSync(PROGRAM, ['-h']).error !== undefined
    ? `NOT TESTED: slow clients. Install ${PROGRAM}.`
    : false

export const WAYS = {
  headers: (url: string): string[] => ['-H', '-u', `${url}/store`],
  bodies: (url: string): string[] => ['-B', '-t', 'POST', '-s', '65000', '-u', `${url}/auth`],
  reads: (url: string): string[] =>
    ['-X', '-w', '16', '-y', '64', '-n', '5', '-z', '32', '-k', '3'].concat(
      '-u',
      `${url}/client.js`,
    ),
}

export type Way = keyof typeof WAYS

export interface Slow {
  way: Way
  connections: number
  /** Open at once. */
  most: number
  /** The server ended them all before the time was over. */
  isEnded: boolean
  quietMs: number[]
  besideMs: number[]
  seconds: number
  problems: string[]
}

/** What a bystander reads, again and again. */
export interface Reading {
  url: string
  bearer: string
  path: string
  value: string
}

export interface SlowOptions extends Reading {
  connections: number
  quietSeconds: number
  /** At most. */
  seconds: number
  /** How many the server has open. */
  descriptors(): number
}

const READS_A_SECOND = 50
const WATCH_MS = 200
// Those of the reader, and of what slowhttptest itself looks at.
const SPARE = 10

/** Lets slow clients come, while somebody reads, until the server has ended them or their time is over. */
export async function crawl(way: Way, options: SlowOptions): Promise<Slow> {
  const { connections, quietSeconds, seconds, descriptors } = options
  const found: Slow = {
    way,
    connections,
    most: 0,
    isEnded: false,
    quietMs: [],
    besideMs: [],
    seconds: 0,
    problems: [],
  }
  const line = openLine(options.url)
  const quietUntil = performance.now() + quietSeconds * 1000
  const attack = { began: 0, isOver: false }
  try {
    const read = (isOver: () => boolean) => readUntil(line, options, found.problems, isOver)
    found.quietMs = await read(() => performance.now() > quietUntil)
    const before = descriptors()
    attack.began = performance.now()
    const child = spawn(
      PROGRAM,
      [...argumentsFor(connections, seconds), ...WAYS[way](options.url)],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
    const said = Promise.all([text(child.stdout), text(child.stderr)])
    const ended = said.then(() => (attack.isOver = true))
    // What it has read too little of may keep a client long after the server has hung up.
    const watch = setInterval(() => {
      const held = descriptors() - before
      found.most = Math.max(found.most, held)
      if (found.most > connections / 2 && held <= SPARE) child.kill()
    }, WATCH_MS)
    found.besideMs = await read(() => attack.isOver)
    clearInterval(watch)
    await ended
    found.seconds = (performance.now() - attack.began) / 1000
    // With its time over it hangs up itself; before, only when it has no connection left.
    found.isEnded = found.most > connections / 2 && found.seconds < seconds
    if (found.most <= SPARE) {
      found.problems.push(`${PROGRAM} did not get through: ${(await said).join('').slice(-500)}`)
    }
  } finally {
    line.close()
  }
  return found
}

const argumentsFor = (connections: number, seconds: number): string[] => {
  const rate = Math.max(200, connections / 4)
  return [
    '-c',
    String(connections),
    '-r',
    String(rate),
    '-i',
    '5',
    '-l',
    String(seconds),
    '-p',
    '10',
  ]
}

export async function readUntil(
  line: Line,
  { path, bearer, value }: Reading,
  problems: string[],
  isOver: () => boolean,
): Promise<number[]> {
  const ms: number[] = []
  for (let next = performance.now(); !isOver(); next += 1000 / READS_A_SECOND) {
    await pause(Math.max(0, next - performance.now()))
    const answer = await line.ask({ method: 'GET', path, bearer })
    const isRight = answer.status === 200 && answer.body === value
    if (!isRight) problems.push(`a bystander's read: ${answer.status} ${answer.body.slice(0, 80)}`)
    ms.push(answer.ms)
  }
  return ms
}
