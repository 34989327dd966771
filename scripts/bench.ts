// Owns `make bench`: the executable beside a bare node:http server that answers the same headers and
// bytes from memory, in one run, in turns. Prints medians and ratios; a loaded machine spoils both alike.
import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { createServer } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const executable = join(import.meta.dirname, '../dist/sync-node')
const CONNECTIONS = 32
const KEYS = 1000
const ROUNDS = 5
const ROUND_MS = 3000
const VALUE = randomBytes(4096)

interface Answer {
  status: number
  token: string | undefined
}

/** A request's bytes for a connection, made from its number and its last answer. */
type NextRequest = (connection: number, last: Answer | undefined) => Buffer

/** Keeps one request a connection under way for `ms`; answers requests a second. */
async function load(port: number, ms: number, next: NextRequest): Promise<number> {
  const until = performance.now() + ms
  const counts = await Promise.all(
    Array.from({ length: CONNECTIONS }, (_, i) => drive(port, until, (last) => next(i, last))),
  )
  return (counts.reduce((sum, count) => sum + count, 0) / ms) * 1000
}

function drive(
  port: number,
  until: number,
  next: (last: Answer | undefined) => Buffer,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    let received: Buffer = Buffer.alloc(0)
    let count = 0
    socket.on('error', reject)
    socket.on('connect', () => socket.write(next(undefined)))
    socket.on('data', (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const end = received.indexOf('\r\n\r\n')
      if (end === -1) return
      const head = received.toString('latin1', 0, end)
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (received.length < end + 4 + length) return
      received = received.subarray(end + 4 + length)
      const answer = {
        status: Number(head.slice(9, 12)),
        token: /\r\nx-sync-token: (\w+)/i.exec(head)?.[1],
      }
      if (answer.status >= 300) reject(new Error(`the server answered ${answer.status}`))
      count++
      // Made even when it is not sent: it remembers the token of this answer.
      const following = next(answer)
      if (performance.now() < until) socket.write(following)
      else {
        socket.destroy()
        resolve(count)
      }
    })
  })
}

const request = (line: string, headers: string[], body: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([
    Buffer.from(
      `${line} HTTP/1.1\r\nHost: localhost\r\n${headers.map((h) => `${h}\r\n`).join('')}\r\n`,
    ),
    body,
  ])

const getter = (bearer: string): NextRequest => {
  let turn = 0
  return () => request(`GET /store/key-${turn++ % KEYS}`, [`Authorization: Bearer ${bearer}`])
}

/** Each connection writes a key of its own, with the token that the last answer gave it. */
const putter = (bearer: string, tokens: (string | undefined)[]): NextRequest =>
  function put(connection, last) {
    tokens[connection] = last?.token ?? tokens[connection]
    const token = tokens[connection]
    return request(
      `PUT /store/put-${connection}`,
      [
        `Authorization: Bearer ${bearer}`,
        `Content-Length: ${VALUE.length}`,
        ...(token === undefined ? [] : [`X-Sync-Token: ${token}`]),
      ],
      VALUE,
    )
  }

interface Server {
  process: ChildProcess
  port: number
  startMs: number
}

async function startExecutable(root: string): Promise<Server> {
  const started = performance.now()
  const child = spawn(executable, [], {
    env: { STATIC_ROOT: root, HOST: '127.0.0.1', PORT: '0', QUOTA: 'none' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  running.push(child)
  const port = await new Promise<number>((resolve, reject) => {
    let text = ''
    child.once('exit', () => reject(new Error('the executable did not start')))
    child.stdout.on('data', (chunk) => {
      text += String(chunk)
      const found = /http:\/\/[^:]+:(\d+)/.exec(text)?.[1]
      if (found !== undefined) resolve(Number(found))
    })
  })
  await fetch(`http://127.0.0.1:${port}/health`)
  return { process: child, port, startMs: performance.now() - started }
}

/** The floor: takes a body, looks at nothing, answers what Sync Node answers. */
async function startFloor(headers: Record<string, string>): Promise<{ port: number }> {
  const code = `(${floor.toString()})(require('node:http').createServer, ${JSON.stringify(headers)}, ${VALUE.length})`
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  running.push(child)
  const port = await new Promise<number>((resolve) => {
    child.stdout.once('data', (chunk) => resolve(Number(String(chunk))))
  })
  return { port }
}

function floor(make: typeof createServer, headers: Record<string, string>, size: number): void {
  const value = Buffer.alloc(size, 1)
  const server = make((incoming, outgoing) => {
    if (incoming.method === 'GET') {
      outgoing.writeHead(200, { ...headers, 'Content-Length': size })
      outgoing.end(value)
      return
    }
    incoming.resume()
    incoming.on('end', () => {
      outgoing.writeHead(204, headers)
      outgoing.end()
    })
  })
  server.listen(0, '127.0.0.1', () => {
    process.stdout.write(String((server.address() as { port: number }).port))
  })
}

const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number

const rssAnonKib = (pid: number): number =>
  Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])

const rssAnon = (pid: number): string => `${(rssAnonKib(pid) / 1024).toFixed(1)} MiB`

const GIB = 1024 ** 3

/** A value of 1 GiB up and down; answers by how many MiB private memory grew at the most. */
async function moveLarge(
  url: string,
  headers: Record<string, string>,
  pid: number,
): Promise<string> {
  const before = rssAnonKib(pid)
  let peak = before
  const watch = setInterval(() => (peak = Math.max(peak, rssAnonKib(pid))), 20)
  const chunk = randomBytes(1024 * 1024)
  async function* body() {
    for (let sent = 0; sent < GIB; sent += chunk.length) yield chunk
  }
  const init = { method: 'PUT', headers, body: body(), duplex: 'half' as const }
  const put = await fetch(`${url}/store/large`, init)
  if (put.status !== 201) throw new Error(`the server answered ${put.status}`)
  let received = 0
  for await (const part of (await fetch(`${url}/store/large`, { headers })).body ?? []) {
    received += (part as Uint8Array).length
  }
  clearInterval(watch)
  if (received !== GIB) throw new Error('the value did not come whole')
  return `${((peak - before) / 1024).toFixed(1)} MiB`
}

const running: ChildProcess[] = []

async function main(folder: string): Promise<void> {
  const starts: number[] = []
  for (let i = 0; i < ROUNDS; i++) {
    const { process: child, startMs } = await startExecutable(join(folder, `start-${i}`))
    starts.push(startMs)
    child.kill()
  }
  const node = await startExecutable(join(folder, 'data'))
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const idle = rssAnon(node.process.pid as number)
  const url = `http://127.0.0.1:${node.port}`
  const signUp = await fetch(`${url}/account`, {
    method: 'POST',
    body: JSON.stringify({ id: 'bench', password: 'correct horse battery' }),
  })
  const { token: bearer } = (await signUp.json()) as { token: string }
  const headers = { Authorization: `Bearer ${bearer}` }
  for (let i = 0; i < KEYS; i++) {
    await fetch(`${url}/store/key-${i}`, { method: 'PUT', body: VALUE, headers })
  }
  const answer = await fetch(`${url}/store/key-0`, { headers })
  const bare = await startFloor(
    Object.fromEntries(
      [...answer.headers].filter(
        ([name]) => !/^(date|connection|keep-alive|content-length)$/.test(name),
      ),
    ),
  )
  const rates: Record<string, number[]> = { get: [], 'get floor': [], put: [], 'put floor': [] }
  const tokens: string[] = []
  for (let round = 0; round < ROUNDS; round++) {
    rates['get']?.push(await load(node.port, ROUND_MS, getter(bearer)))
    rates['get floor']?.push(await load(bare.port, ROUND_MS, getter(bearer)))
    rates['put']?.push(await load(node.port, ROUND_MS, putter(bearer, tokens)))
    rates['put floor']?.push(await load(bare.port, ROUND_MS, putter(bearer, [])))
  }
  const of = (name: string): number => median(rates[name] as number[])
  const row = (name: string): string =>
    `${of(name).toFixed(0)}/s, the floor ${of(`${name} floor`).toFixed(0)}/s: ${(of(name) / of(`${name} floor`)).toFixed(2)}`
  const pid = node.process.pid as number
  const afterLoad = rssAnon(pid)
  const grown = await moveLarge(url, headers, pid)
  console.log(`4 KiB, ${CONNECTIONS} connections, median of ${ROUNDS} rounds of ${ROUND_MS / 1000} s
GET, ${KEYS} keys, authenticated   ${row('get')}
PUT, token checked, synced        ${row('put')}
start to first answer             ${median(starts).toFixed(0)} ms
private memory (RssAnon)          idle ${idle}, after the load ${afterLoad}
1 GiB up and down                 at most ${grown} more`)
}

const folder = mkdtempSync(join(tmpdir(), 'sync-node-bench-'))
try {
  await main(folder)
} finally {
  for (const child of running) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
}
