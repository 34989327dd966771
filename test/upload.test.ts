import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { blobFiles } from './helpers/rows.ts'
import { openWire, type Wire, type WireAnswer } from './helpers/wire.ts'

const MIB = 1024 * 1024
const LARGE = 8 * MIB

const files = blobFiles

/** The files of values that this process holds open. */
function openFiles(node: TestNode): number {
  if (node.bucket !== null) return node.bucket.reading
  const folder = join(node.root, 'blobs')
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return links.filter((link) => link.startsWith(`${folder}/`)).length
}

const countDescriptors = (): number => readdirSync('/proc/self/fd').length

const head = (method: string, key: string, { token }: Client, ...lines: string[]): string =>
  [
    `${method} /store/${key} HTTP/1.1`,
    'Host: localhost',
    `Authorization: Bearer ${token}`,
    ...lines,
    '\r\n',
  ].join('\r\n')

const chunk = (bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])

/** Begins to upload a value that becomes a file, and resolves when the server has that file. */
async function beginUpload(t: TestContext, node: TestNode, client: Client, key: string) {
  const before = files(node).length
  const wire = await openWire(t, node.port)
  wire.send(head('PUT', key, client, `Content-Length: ${LARGE}`), randomBytes(100_000))
  await eventually(() => files(node).length > before, true)
  return wire
}

describe('an upload that is cut', () => {
  const cuts: [string, string, Buffer][] = [
    ['small', 'Content-Length: 15000', Buffer.alloc(10_000)],
    ['nothing sent', 'Content-Length: 15000', Buffer.alloc(0)],
    ['large', `Content-Length: ${LARGE}`, randomBytes(2 * MIB)],
    ['small chunked', 'Transfer-Encoding: chunked', chunk(Buffer.alloc(10_000))],
    ['large chunked', 'Transfer-Encoding: chunked', chunk(randomBytes(2 * MIB))],
    ['mid-chunk', 'Transfer-Encoding: chunked', chunk(randomBytes(2 * MIB)).subarray(0, MIB)],
  ]
  for (const [name, framing, sent] of cuts) {
    it(`changes and leaves nothing: ${name}`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const { token } = await ana.save('old', 'old value')
      for (const [key, ...lines] of [['new'], ['old', `X-Sync-Token: ${token}`]] as const) {
        const wire = await openWire(t, node.port)
        wire.send(head('PUT', key, ana, framing, ...lines), sent)
        if (sent.length > 16_384) await eventually(() => files(node).length, 1)
        wire.socket.destroy()
        await eventually(() => files(node), [])
      }
      await expectStatus(await ana.get('new'), 404)
      assert.equal(await (await ana.get('old')).text(), 'old value')
      assert.equal(openFiles(node), 0)
      assert.deepEqual(node.fatal, [])
    })
  }

  it('gives its place back: eight at once, cut, and eight again', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (let round = 0; round < 2; round++) {
      const uploads: Wire[] = []
      for (let i = 0; i < 8; i++) uploads.push(await beginUpload(t, node, ana, `k${i}`))
      const ninth = await ana.put('ninth', randomBytes(20_000))
      assert.equal(ninth.status, 429)
      assert.ok(ninth.headers.has('retry-after'))
      for (const { socket } of uploads) socket.destroy()
      await eventually(() => files(node), [])
    }
    await expectStatus(await ana.put('ninth', randomBytes(20_000)), 201)
  })

  it('goes when its connection breaks the chunked coding half-way', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const wire = await openWire(t, node.port)
    wire.send(head('PUT', 'a', ana, 'Transfer-Encoding: chunked'), chunk(randomBytes(100_000)))
    await eventually(() => files(node).length, 1)
    wire.send('not a size\r\n')
    assert.equal((await wire.answer())?.status, 400)
    await eventually(() => files(node), [])
    await expectStatus(await ana.get('a'), 404)
  })
})

describe('a Content-Length that lies', () => {
  for (const size of [100, 50_000]) {
    it(`is longer than ${size} bytes: refused, and nothing is stored`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const wire = await openWire(t, node.port)
      wire.send(head('PUT', 'a', ana, `Content-Length: ${size + 1}`), randomBytes(size))
      wire.socket.end()
      assert.equal((await wire.answer())?.status, 400)
      await eventually(() => files(node), [])
      await expectStatus(await ana.get('a'), 404)
    })

    it(`is shorter than ${size} bytes: what the answer says is what happened`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const value = Buffer.alloc(size, 'v')
      const wire = await openWire(t, node.port)
      wire.send(
        Buffer.concat([Buffer.from(head('PUT', 'a', ana, `Content-Length: ${size - 10}`)), value]),
      )
      const status = (await wire.answer())?.status
      await node.restart() // whatever was still under way has ended
      const read = await ana.get('a')
      // The first answer is about this request: a refusal of it means that it was not carried out.
      assert.equal(read.status, status === 201 ? 200 : 404, `the PUT was answered ${status}`)
      if (status !== 201) return
      assert.deepEqual(Buffer.from(await read.arrayBuffer()), value.subarray(10))
    })
  }
})

describe('a slow upload', () => {
  const WINDOW_MS = 30_000

  for (const size of [10_000, LARGE]) {
    it(`is refused with 408 when next to nothing comes, of ${size} bytes`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      t.mock.timers.enable({ apis: ['setInterval'] })
      const wire = await openWire(t, node.port)
      const expect = 'Expect: 100-continue'
      wire.send(head('PUT', 'a', ana, `Content-Length: ${size}`, expect))
      // The server that says this has begun to read, and to count.
      assert.equal((await wire.answer())?.status, 100)
      wire.send(Buffer.alloc(4000))
      t.mock.timers.tick(WINDOW_MS)
      const answer = await wire.answer()
      assert.equal(answer?.status, 408, 'the client is told why')
      assert.equal(answer.headers['content-type'], 'application/problem+json')
      await expectStatus(await ana.get('a'), 404)
      await eventually(() => files(node), [])
    })
  }

  it('ends by itself, and leaves nothing', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    t.mock.timers.enable({ apis: ['setInterval'] })
    const wire = await beginUpload(t, node, ana, 'a')
    t.mock.timers.tick(WINDOW_MS) // in this one 100,000 bytes came
    t.mock.timers.tick(WINDOW_MS)
    await wire.closed()
    await eventually(() => files(node), [])
    assert.equal(openFiles(node), 0)
  })

  it('is taken as long as it goes on, however long that is', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    t.mock.timers.enable({ apis: ['setInterval'] })
    const wire = await openWire(t, node.port)
    const value = randomBytes(10 * 20_000)
    wire.send(head('PUT', 'a', ana, `Content-Length: ${value.length}`))
    for (let at = 0; at < value.length; at += 20_000) {
      wire.send(value.subarray(at, at + 20_000))
      // What was sent has come: it makes the file as long as it is.
      await eventually(() => receivedBytes(node) >= at + 20_000, true)
      if (at + 20_000 < value.length) t.mock.timers.tick(WINDOW_MS)
    }
    assert.equal((await wire.answer())?.status, 201)
    const stored = Buffer.from(await (await ana.get('a')).arrayBuffer())
    assert.ok(stored.equals(value))
  })

  it('that was refused is cut when next to nothing comes', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    t.mock.timers.enable({ apis: ['setInterval'] })
    const wire = await openWire(t, node.port)
    wire.send(head('PUT', 'a', ana, `Content-Length: ${LARGE}`, 'X-Sync-Token: 0'))
    const answer = wire.answer()
    let isAnswered = false
    void answer.then(() => (isAnswered = true))
    await eventually(() => {
      t.mock.timers.tick(500)
      return isAnswered
    }, true)
    assertRefused(await answer, { status: 412, code: 'KEY01' })
    t.mock.timers.tick(2 * WINDOW_MS)
    await assert.doesNotReject(wire.closed())
  })

  it('that was refused may go on, and the next request comes after it', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', 'v')
    const wire = await openWire(t, node.port)
    const part = randomBytes(MIB)
    wire.send(head('PUT', 'a', ana, `Content-Length: ${2 * MIB}`, 'X-Sync-Token: 0'), part)
    assertRefused(await wire.answer(), { status: 412, code: 'KEY01' })
    await pause(1000) // slow to others than us
    wire.send(part, head('GET', 'a', ana))
    assert.equal((await wire.answer())?.body.toString(), 'v')
  })
})

function receivedBytes(node: TestNode): number {
  const sizes =
    node.bucket === null
      ? files(node).map((name) => statSync(join(node.root, 'blobs', name)).size)
      : [
          ...node.bucket.unfinished.values(),
          ...[...node.bucket.objects.values()].map(({ bytes }) => bytes.length),
        ]
  return Math.max(0, ...sizes)
}

describe('a large upload that is refused', { concurrency: 6 }, () => {
  interface Refusal {
    name: string
    status: number
    code: string
    environment?: Record<string, string>
    floorBytes?: number
    key?: string
    line?: string
    hasNoSession?: boolean
  }
  const UNKNOWN_STORE = `~${'a'.repeat(43)}`
  const refusals: Refusal[] = [
    { name: 'no session', status: 401, code: 'AUTH01', hasNoSession: true },
    { name: 'not there', status: 404, code: 'ERR01', key: UNKNOWN_STORE },
    { name: 'a wrong token', status: 412, code: 'KEY01', line: 'X-Sync-Token: 0' },
    { name: 'no token', status: 428, code: 'KEY01', key: 'there' },
    { name: 'too large', status: 413, code: 'SIZE01', environment: { MAX_VALUE_SIZE: '1M' } },
    { name: 'over quota', status: 507, code: 'SIZE02', environment: { QUOTA: '1M' } },
    { name: 'a full disk', status: 507, code: 'SIZE03', floorBytes: 2 ** 60 },
    { name: 'a part', status: 400, code: 'REQ01', line: 'Content-Range: bytes 0-9/10' },
    { name: 'compressed', status: 400, code: 'REQ01', line: 'Content-Encoding: gzip' },
    { name: 'two tokens', status: 400, code: 'REQ01', line: 'X-Sync-Token: 0\r\nX-Sync-Token: 1' },
  ]

  async function refuse(t: TestContext, refusal: Refusal, framing: string, part: Buffer) {
    const { environment = {}, floorBytes, key = 'a', line = 'X: y', hasNoSession } = refusal
    let node = await startNode(t, environment)
    const ana = await node.signUp('ana')
    if (key === 'there') await ana.save('there', 'v')
    if (floorBytes !== undefined) {
      await node.stop()
      node = await startNode(t, environment, { root: node.root, floorBytes })
    }
    const client = hasNoSession === true ? { ...ana, token: 'x'.repeat(43) } : ana
    const wire = await openWire(t, node.port)
    wire.send(head('PUT', key, client, framing, line), part)
    return { node, wire, answer: await wire.answer() }
  }

  for (const refusal of refusals) {
    const parts = [
      { framing: 'Content-Length: 900000000', part: randomBytes(MIB) },
      { framing: 'Transfer-Encoding: chunked', part: chunk(randomBytes(2 * MIB)) },
    ]
    for (const { framing, part } of parts) {
      it(`gets its answer before its end: ${refusal.name}, ${framing}`, async (t) => {
        const { node, wire, answer } = await refuse(t, refusal, framing, part)
        assertRefused(answer, refusal)
        wire.socket.on('error', () => undefined)
        wire.send(part, part) // one that does not listen and sends on harms nobody
        await eventually(() => files(node), [])
        assert.equal((await fetch(`${node.url}/info`)).status, 200)
        assert.deepEqual(node.fatal, [])
      })
    }
  }

  it('gets its answer even if it listens only at its end', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', 'v')
    const wire = await openWire(t, node.port)
    wire.socket.pause()
    const length = `Content-Length: ${70 * MIB}`
    wire.send(head('PUT', 'a', ana, length, 'Connection: close', 'X-Sync-Token: 0'))
    const part = randomBytes(MIB)
    for (let i = 0; i < 70; i++) wire.send(part)
    await eventually(() => wire.socket.writableLength === 0 || wire.socket.destroyed, true)
    wire.socket.resume()
    assertRefused(await wire.answer(), { status: 412, code: 'KEY01' })
    await wire.closed()
  })
})

function assertRefused(
  answer: WireAnswer | null,
  { status, code }: { status: number; code: string },
) {
  assert.ok(answer, 'an answer came')
  const problem = JSON.parse(answer.body.toString()) as { code: string }
  assert.deepEqual([answer.status, problem.code], [status, code])
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.equal(answer.headers['access-control-allow-origin'], '*')
}

describe('a large value on its way out', () => {
  async function withLarge(t: TestContext) {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const value = randomBytes(3 * LARGE) // more than the buffers of both sockets
    await ana.save('large', value)
    return { node, ana, value }
  }

  it('waits for a slow reader, harms nobody, and comes whole', async (t) => {
    const { node, ana, value } = await withLarge(t)
    const wire = await openWire(t, node.port)
    wire.socket.pause()
    wire.send(head('GET', 'large', ana))
    await eventually(() => openFiles(node), 1)
    for (let i = 0; i < 20; i++) await expectStatus(await ana.put(`k${i}`, 'v'), 201)
    assert.equal(openFiles(node), 1, 'it still waits')
    wire.socket.resume()
    const answer = await wire.answer()
    assert.equal(answer?.status, 200)
    assert.ok(answer.body.equals(value))
    await eventually(() => openFiles(node), 0)
  })

  const ways: [string, (wire: Wire) => void][] = [
    ['destroyed', (wire) => wire.socket.destroy()],
    ['reset', (wire) => wire.socket.resetAndDestroy()],
  ]
  for (const [name, leave] of ways) {
    for (const requests of [1, 5]) {
      it(`is let go when its reader goes: ${name}, ${requests} requests on a connection`, async (t) => {
        const { node, ana } = await withLarge(t)
        const descriptors = countDescriptors()
        for (let i = 0; i < 4; i++) {
          const wire = await openWire(t, node.port)
          wire.socket.pause()
          wire.send(head('GET', 'large', ana).repeat(requests))
          await eventually(() => openFiles(node) > 0, true)
          leave(wire)
        }
        await eventually(() => openFiles(node), 0)
        await eventually(() => countDescriptors() <= descriptors, true)
      })
    }
  }
})
