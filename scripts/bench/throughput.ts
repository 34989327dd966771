// Owns the figures of reads and durable writes: beside a bare node:http server that answers the same
// headers and bytes from memory, in turns; a loaded machine spoils both alike.
import { randomBytes } from 'node:crypto'
import type { createServer } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { median, mib, row, startCode, startSyncNode, type Server } from './server.ts'

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

/** The floor: takes a body, looks at nothing, answers what Sync Node answers. */
const startFloor = (headers: Record<string, string>): Promise<Server> =>
  startCode(
    `(${floor.toString()})(require('node:http').createServer, ${JSON.stringify(headers)}, ${VALUE.length})`,
  )

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
    console.log(`http://127.0.0.1:${(server.address() as { port: number }).port}`)
  })
}

const GIB = 1024 ** 3

/** A value of 1 GiB up and down; answers by how many MiB private memory grew at the most. */
async function moveLarge(server: Server, headers: Record<string, string>): Promise<string> {
  const before = server.rssAnonKib()
  let peak = before
  const watch = setInterval(() => (peak = Math.max(peak, server.rssAnonKib())), 20)
  const chunk = randomBytes(1024 * 1024)
  async function* body() {
    for (let sent = 0; sent < GIB; sent += chunk.length) yield chunk
  }
  const init = { method: 'PUT', headers, body: body(), duplex: 'half' as const }
  const put = await fetch(`${server.url}/store/large`, init)
  if (put.status !== 201) throw new Error(`the server answered ${put.status}`)
  let received = 0
  for await (const part of (await fetch(`${server.url}/store/large`, { headers })).body ?? []) {
    received += (part as Uint8Array).length
  }
  clearInterval(watch)
  if (received !== GIB) throw new Error('the value did not come whole')
  return mib(peak - before)
}

async function measureStart(folder: string): Promise<string> {
  const starts: number[] = []
  for (let i = 0; i < ROUNDS; i++) {
    const server = await startSyncNode(join(folder, `start-${i}`))
    starts.push(server.startMs)
    await server.stop()
  }
  return row('start to first answer', `${median(starts).toFixed(0)} ms`)
}

export async function measureThroughput(folder: string): Promise<string> {
  const start = await measureStart(folder)
  const server = await startSyncNode(join(folder, 'data'))
  await pause(1000)
  const idle = server.rssAnonKib()
  const signUp = await fetch(`${server.url}/account`, {
    method: 'POST',
    body: JSON.stringify({ id: 'bench', password: 'correct horse battery' }),
  })
  const { token: bearer } = (await signUp.json()) as { token: string }
  const headers = { Authorization: `Bearer ${bearer}` }
  for (let i = 0; i < KEYS; i++) {
    await fetch(`${server.url}/store/key-${i}`, { method: 'PUT', body: VALUE, headers })
  }
  const answer = await fetch(`${server.url}/store/key-0`, { headers })
  const floor = await startFloor(
    Object.fromEntries(
      [...answer.headers].filter(
        ([name]) => !/^(date|connection|keep-alive|content-length)$/.test(name),
      ),
    ),
  )
  const get = comparison(`GET 4 KiB, ${KEYS} keys, authenticated`)
  const put = comparison('PUT 4 KiB, token checked, synced')
  const tokens: string[] = []
  for (let round = 0; round < ROUNDS; round++) {
    get.add(
      await load(server.port, ROUND_MS, getter(bearer)),
      await load(floor.port, ROUND_MS, getter(bearer)),
    )
    put.add(
      await load(server.port, ROUND_MS, putter(bearer, tokens)),
      await load(floor.port, ROUND_MS, putter(bearer, [])),
    )
  }
  const loaded = server.rssAnonKib()
  const lines = [
    `${CONNECTIONS} connections, median of ${ROUNDS} rounds of ${ROUND_MS / 1000} s`,
    get.row(),
    put.row(),
    start,
    row('private memory (RssAnon)', `idle ${mib(idle)}, after the load ${mib(loaded)}`),
    row('1 GiB up and down', `at most ${await moveLarge(server, headers)} more`),
  ]
  await server.stop()
  await floor.stop()
  return lines.join('\n')
}

/** Requests a second, beside those of the floor. */
function comparison(name: string) {
  const ours: number[] = []
  const floors: number[] = []
  return {
    add(our: number, floor: number) {
      ours.push(our)
      floors.push(floor)
    },
    row() {
      const [our, floor] = [median(ours), median(floors)]
      const ratio = (our / floor).toFixed(2)
      return row(name, `${our.toFixed(0)}/s, the floor ${floor.toFixed(0)}/s: ${ratio}`)
    },
  }
}
