// Owns the load: wrk with the same requests for everybody, and raw clients whose requests depend on their
// answers.
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Request, SyncNode } from './peers.ts'

export const CONNECTIONS = 32
const SCRIPT = join(import.meta.dirname, 'load.lua')

interface Load {
  port: number
  seconds: number
  connections?: number
  /** For load.lua. */
  args: string[]
}

export interface Loaded {
  /** Requests a second. */
  rate: number
  /** Milliseconds. */
  p50: number
  p99: number
}

interface Figures extends Record<
  'requests' | 'us' | 'p50' | 'p99' | 'refused' | 'broken',
  number
> {}

/** Throws when anything was refused. */
export async function wrk({
  port,
  seconds,
  connections = CONNECTIONS,
  args,
}: Load): Promise<Loaded> {
  const { stdout } = await promisify(execFile)('wrk', [
    '--threads=1',
    `--connections=${connections}`,
    `--duration=${seconds}s`,
    '--timeout=30s',
    `--script=${SCRIPT}`,
    `http://127.0.0.1:${port}`,
    '--',
    ...args,
  ])
  const line = stdout.trim().split('\n').at(-1) as string
  const { requests, us, p50, p99, refused, broken } = JSON.parse(line) as Figures
  if (requests === 0) throw new Error('nothing was answered')
  if (refused + broken > 0) throw new Error(`${refused} refused, ${broken} broken of ${requests}`)
  return { rate: (requests / us) * 1e6, p50: p50 / 1000, p99: p99 / 1000 }
}

const headOf = (headers: Record<string, string>): string =>
  Object.entries({ Host: '127.0.0.1', ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')

export function toBytes({ method, path, headers, body = Buffer.alloc(0) }: Request): Buffer {
  const sized = method === 'GET' ? headers : { ...headers, 'Content-Length': String(body.length) }
  return Buffer.concat([Buffer.from(`${method} ${path} HTTP/1.1\r\n${headOf(sized)}\r\n`), body])
}

/** What makes wrk send these in turn, for ever. */
export function cycle(file: string, requests: Request[]): string[] {
  const all = requests.map(toBytes).flatMap((bytes) => [Buffer.from(`${bytes.length}\n`), bytes])
  writeFileSync(file, Buffer.concat(all))
  return ['cycle', file]
}

/** What makes wrk write to stores of Sync Node, each with the token that it has. */
export async function withTokens(
  file: string,
  { url, authorization }: SyncNode,
  { names, body }: { names: string[]; body: Buffer },
): Promise<string[]> {
  // What the last round left on its way still changes tokens.
  await pause(500)
  const [head, value, stores] = [`${file}-head`, `${file}-body`, `${file}-stores`]
  const lines: string[] = []
  for (const name of names) {
    const init = { method: 'HEAD', headers: authorization }
    const { headers } = await fetch(`${url}/store/${name}`, init)
    lines.push(`${name} ${headers.get('x-sync-key')} ${headers.get('x-sync-token')}\n`)
  }
  writeFileSync(stores, lines.join(''))
  const sized = { ...authorization, 'Content-Length': String(body.length) }
  writeFileSync(head, ` HTTP/1.1\r\n${headOf(sized)}`)
  writeFileSync(value, body)
  return ['tokens', head, value, stores]
}

export interface Answer {
  status: number
  head: string
  body: Buffer
}

export interface Next {
  bytes: Buffer
  /** Told the answer, and how many milliseconds it took. */
  done(answer: Answer, ms: number): void
}

/** A connection that sends what `next` makes as soon as the one before is answered. */
export function drive(port: number, until: () => boolean, next: () => Next): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    let received: Buffer = Buffer.alloc(0)
    let current: Next
    let sent = 0
    function send(): void {
      current = next()
      sent = performance.now()
      socket.write(current.bytes)
    }
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('the server closed a connection')))
    socket.on('connect', send)
    socket.on('data', (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const end = received.indexOf('\r\n\r\n')
      if (end === -1) return
      const head = received.toString('latin1', 0, end)
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (received.length < end + 4 + length) return
      const body = received.subarray(end + 4, end + 4 + length)
      received = Buffer.alloc(0)
      const status = Number(head.slice(9, 12))
      if (status >= 300) return reject(new Error(`answered ${status}: ${body.toString()}`))
      current.done({ status, head, body }, performance.now() - sent)
      if (!until()) return send()
      socket.destroy()
      resolve()
    })
  })
}
