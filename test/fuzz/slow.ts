// Owns slow clients by the thousand, made by Debian's slowhttptest, and what others notice of them.
import { spawn, spawnSync } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { openLine } from '../attack/ask.ts'

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
  /** True when the server had ended them all before the time was over. */
  isEnded: boolean
  quietMs: number[]
  besideMs: number[]
  seconds: number
  problems: string[]
}

export interface SlowOptions {
  url: string
  bearer: string
  path: string
  value: string
  connections: number
  quietSeconds: number
  /** At most. */
  seconds: number
}

const READS_A_SECOND = 50

/** Lets slow clients come, while somebody reads. */
export async function crawl(way: Way, options: SlowOptions): Promise<Slow> {
  const { connections, quietSeconds, seconds, url } = options
  const began = performance.now()
  const problems: string[] = []
  const line = openLine(url)
  async function read(isOver: () => boolean): Promise<number[]> {
    const ms: number[] = []
    for (let next = performance.now(); !isOver(); next += 1000 / READS_A_SECOND) {
      await pause(Math.max(0, next - performance.now()))
      const answer = await line.ask({ method: 'GET', path: options.path, bearer: options.bearer })
      const isRight = answer.status === 200 && answer.body === options.value
      if (!isRight)
        problems.push(`a bystander's read: ${answer.status} ${answer.body.slice(0, 80)}`)
      ms.push(answer.ms)
    }
    return ms
  }
  try {
    const quietUntil = performance.now() + quietSeconds * 1000
    const quietMs = await read(() => performance.now() > quietUntil)
    const attack = start(way, { url, connections, seconds })
    const besideMs = await read(() => attack.isOver())
    const said = await attack.said
    if (!/Exit status/i.test(said)) problems.push(`${PROGRAM} did not run: ${said.slice(-500)}`)
    const isEnded = /No open connections left/i.test(said)
    const took = (performance.now() - began) / 1000 - quietSeconds
    return { way, connections, isEnded, quietMs, besideMs, seconds: took, problems }
  } finally {
    line.close()
  }
}

function start(
  way: Way,
  { url, connections, seconds }: Omit<SlowOptions, 'bearer' | 'path' | 'value' | 'quietSeconds'>,
) {
  const rate = String(Math.max(100, connections / 4))
  const args = ['-c', String(connections), '-r', rate, '-i', '5', '-l', String(seconds), '-p', '10']
  const child = spawn(PROGRAM, [...args, ...WAYS[way](url)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let isOver = false
  const said = Promise.all([text(child.stdout), text(child.stderr)]).then((all) => {
    isOver = true
    return all.join('')
  })
  return { said, isOver: () => isOver }
}
