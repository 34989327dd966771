// Owns the proof that an event stream is written only as fast as it is read: a slow reader gets all
// of it, one that is stuck holds neither memory nor its place for ever.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { openAccount } from './helpers/accounts.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { openStream, readAll, readPage, type EventStream } from './helpers/feed.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { plant } from './helpers/rows.ts'
import { openWire } from './helpers/wire.ts'

const MIB = 1024 * 1024
const BEAT_MS = 20_000
const EVENTS = { Accept: 'text/event-stream' }
// With the values, more than the buffers of both sockets hold.
const STORES = 2000
const VALUE = Buffer.alloc(16_384, 'v')

/** Stores of the largest values that events bring along. */
async function plantStores(node: TestNode, { user }: Client): Promise<void> {
  const digest = createHash('sha256').update(VALUE).digest('hex')
  const numbers = 'WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)'
  await plant(
    node,
    `INSERT INTO store_data (id, value) ${numbers} SELECT 1000000 + i, CAST(? AS BLOB) FROM n`,
    [STORES, VALUE.toString()],
  )
  await plant(
    node,
    `INSERT INTO sync_store (store_key, store_data, store_token, size, digest, modified)
     ${numbers} SELECT '~' || substr(hex(randomblob(32)), 1, 43), 1000000 + i, 't' || i, ?, unhex(?), i
     FROM n`,
    [STORES, VALUE.length, digest],
  )
  await plant(
    node,
    `INSERT INTO account_permission (sync_account_id, store_key, permission)
     SELECT number, store_key, 'OWN' FROM sync_store, sync_account WHERE id = ?`,
    [user],
  )
}

interface Reading {
  /** The client's end. */
  socket: Socket
  /** The server's end. */
  outgoing: ServerResponse
  /** What it had to say so far. */
  text(): string
  isFull(): boolean
  /** What the server has read for it, and could not yet give to the system. */
  heldBytes(): number
}

/** Opens a stream that nobody reads yet; resolves when the sockets hold no more. */
async function openUnread(t: TestContext, node: TestNode, client: Client): Promise<Reading> {
  const readBytes = countRead(node)
  const answering = Promise.withResolvers<ServerResponse>()
  const heard = (message: unknown): void => {
    const { request, response } = message as {
      request: { url: string }
      response: ServerResponse
    }
    if (request.url === '/changes?include=data') answering.resolve(response)
  }
  subscribe('http.server.request.start', heard)
  t.after(() => unsubscribe('http.server.request.start', heard))
  const { socket, send } = await openWire(t, node.port)
  let text = ''
  socket.removeAllListeners('data')
  socket.pause()
  socket.on('data', (bytes: Buffer) => (text += bytes.toString('latin1')))
  send(
    [
      'GET /changes?include=data HTTP/1.1',
      'Host: localhost',
      `Authorization: Bearer ${client.token}`,
      'Accept: text/event-stream',
      '\r\n',
    ].join('\r\n'),
  )
  const outgoing = await answering.promise
  const isFull = (): boolean => outgoing.writableLength > 0 && outgoing.writableNeedDrain
  await eventually(isFull, true)
  return {
    socket,
    outgoing,
    text: () => text,
    isFull,
    heldBytes: () => readBytes() - outgoing.req.socket.bytesWritten + outgoing.writableLength,
  }
}

/** Counts the bytes that the server reads for events, from here on. */
function countRead({ running }: TestNode): () => number {
  const { database } = running.deps
  const { batch } = database
  let bytes = 0
  // No mock, which would keep all that was read.
  database.batch = async (...given) => {
    const results = await batch(...given)
    const values = (results[0]?.rows ?? []).map(({ value }) => value as ArrayBuffer | undefined)
    for (const value of values) bytes += ((value?.byteLength ?? 0) * 4) / 3 // in base64
    return results
  }
  return () => bytes
}

function expectLittleHeld({ heldBytes }: Reading): void {
  const held = heldBytes()
  assert.ok(held < MIB / 2, `${held} bytes wait for the reader`)
}

/** Time for as many heartbeats, and what comes of each. */
async function pass(t: TestContext, node: TestNode, beats: number): Promise<void> {
  for (let beat = 0; beat < beats; beat++) {
    t.mock.timers.tick(BEAT_MS)
    await expectStatus(await node.request('/info'), 200)
  }
}

/** Time until a stream is cut; answers how many heartbeats that takes. */
async function passUntilCut(t: TestContext, node: TestNode, { outgoing }: Reading) {
  for (let beats = 1; beats < 10; beats++) {
    await pass(t, node, 1)
    if (outgoing.destroyed) return beats
  }
  return assert.fail('it is not cut')
}

const openMany = (count: number, client: Client, since: string): Promise<EventStream[]> =>
  Promise.all(Array.from({ length: count }, () => openStream(client, { query: `?since=${since}` })))

describe('An event stream', () => {
  it('is not cut while it is read, however slowly', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await plantStores(node, ana)
    t.mock.timers.enable({ apis: ['setInterval'] })
    const reading = await openUnread(t, node, ana)
    const { socket, outgoing, isFull, text } = reading
    for (let beat = 0; beat < 4; beat++) {
      const { bytesWritten } = outgoing.req.socket
      socket.resume()
      await eventually(() => outgoing.req.socket.bytesWritten > bytesWritten, true)
      socket.pause()
      await eventually(isFull, true)
      expectLittleHeld(reading)
      await pass(t, node, 1)
    }
    socket.resume()
    await eventually(() => text().split('event: change').length - 1, STORES)
  })

  it('that nobody reads is cut after a minute; until then it waits, and reads nothing on', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await plantStores(node, ana)
    t.mock.timers.enable({ apis: ['setInterval'] })
    const reading = await openUnread(t, node, ana)
    for (let i = 0; i < 20; i++) {
      expectLittleHeld(reading)
      await ana.save(`more ${i}`, VALUE)
    }
    const beats = await passUntilCut(t, node, reading)
    assert.ok(beats > 3, `it is cut after ${beats}`)
    await eventually(() => node.running.deps.listeners.count(), 0)
  })

  it('gives its place back when it is cut', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await plantStores(node, ana)
    t.mock.timers.enable({ apis: ['setInterval'] })
    const reading = await openUnread(t, node, ana)
    const { cursor } = await readAll(ana, undefined, 1000)
    const others = await openMany(31, ana, cursor)
    await expectProblem(await ana.request('/changes', { headers: EVENTS }), 'RATE01', 429)
    await passUntilCut(t, node, reading)
    await eventually(() => node.running.deps.listeners.count(), 31)
    others.push(...(await openMany(1, ana, cursor)))
    for (const stream of others) await stream.close()
  })

  it('whose reader is gone before it begins takes no place', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { cursor } = await readPage(ana)
    const { database } = node.running.deps
    const { execute } = database
    const answers = Promise.withResolvers<void>()
    database.execute = (async (...given: Parameters<typeof execute>) => {
      await answers.promise
      return execute(...given)
    }) as typeof execute
    const taken: ServerResponse[] = []
    const take = (message: unknown): void => {
      taken.push((message as { response: ServerResponse }).response)
    }
    subscribe('http.server.request.start', take)
    t.after(() => unsubscribe('http.server.request.start', take))
    const abort = new AbortController()
    const init = { headers: EVENTS, signal: abort.signal }
    const asked = Array.from({ length: 32 }, () => ana.request(`/changes?since=${cursor}`, init))
    const ended = Promise.allSettled(asked)
    await eventually(() => taken.length, 32)
    abort.abort()
    await ended
    await eventually(() => taken.every(({ destroyed }) => destroyed), true)
    answers.resolve()
    for (const stream of await openMany(32, ana, cursor)) await stream.close()
  })

  it('that could not begin takes no place', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { cursor } = await readPage(ana)
    const broken = t.mock.method(node.running.deps.database, 'execute', async () => {
      throw new Error('not now')
    })
    const headers = { ...EVENTS, 'Last-Event-ID': cursor }
    for (let i = 0; i < 32; i++) {
      await expectProblem(await ana.request('/changes', { headers }), 'ERR02', 500)
    }
    broken.mock.restore()
    for (const stream of await openMany(32, ana, cursor)) await stream.close()
  })
})
