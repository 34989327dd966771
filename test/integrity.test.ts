import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { blobFiles, graceOf, stored, type Stored } from './helpers/rows.ts'
import { openWire, type WireAnswer } from './helpers/wire.ts'

const LARGE = 300_000
const HELD_BACK = 64 * 1024

/** What a test of a file cannot do where values are in a bucket. */
const inBucket = process.env['TEST_BLOBS'] === 's3'

function onlyValue(node: TestNode): Stored {
  const names = blobFiles(node)
  assert.equal(names.length, 1)
  return stored(node, names[0] as string)
}

function overwrite(value: Stored, at: number): void {
  const bytes = Buffer.from(value.read())
  bytes[at] = (bytes[at] as number) ^ 1
  value.write(bytes)
}

async function withValue(t: TestContext, size = LARGE) {
  const node = await startNode(t)
  const ana = await node.signUp('ana')
  const value = randomBytes(size)
  const { token } = await ana.save('a', value, { 'X-Sync-Meta': 'm' })
  return { node, ana, value, token }
}

/** Removes what was superseded, as housekeeping does when its time has come. */
async function collect(node: TestNode): Promise<void> {
  node.advance(graceOf(node))
  await node.running.housekeep()
  await node.running.housekeep()
}

async function getOnWire(
  t: TestContext,
  node: TestNode,
  { token }: Client,
  ...lines: string[]
): Promise<WireAnswer | null> {
  const wire = await openWire(t, node.port)
  const head = ['GET /store/a HTTP/1.1', 'Host: a', `Authorization: Bearer ${token}`, ...lines]
  wire.send(`${head.join('\r\n')}\r\n\r\n`)
  return wire.answer()
}

async function expectDamaged(client: Client): Promise<void> {
  await expectProblem(await client.get('a'), 'ERR02', 500)
  await expectProblem(await client.get('a', { Range: 'bytes=0-9' }), 'ERR02', 500)
  assert.equal((await client.head('a')).status, 500)
}

async function expectMended(client: Client, token: string): Promise<void> {
  const listed = await client.list()
  assert.deepEqual(
    listed.map((store) => [store.token, store.meta]),
    [[token, 'm']],
    'it is listed all the same',
  )
  const again = randomBytes(LARGE)
  await expectStatus(await client.put('a', again, { 'X-Sync-Token': token }), 204)
  const read = await expectStatus(await client.get('a'), 200)
  assert.ok(Buffer.from(await read.arrayBuffer()).equals(again))
}

describe('a large value whose file is damaged', () => {
  const flips: [string, number, number][] = [
    ['the first byte', LARGE, 0],
    ['the middle', LARGE, LARGE / 2],
    ['the last byte', LARGE, LARGE - 1],
    ['the only chunk', 20_000, 10_000],
    ['a size of whole chunks', 3 * HELD_BACK, 5],
    ['one byte over a chunk', HELD_BACK + 1, HELD_BACK],
  ]
  for (const [name, size, at] of flips) {
    it(`is cut short, then refused: a bit of it flipped, ${name}`, async (t) => {
      const { node, ana, value, token } = await withValue(t, size)
      overwrite(onlyValue(node), at)
      const answer = await getOnWire(t, node, ana)
      if (answer !== null) {
        assert.equal(answer.status, 200)
        assert.equal(answer.headers['content-length'], String(size))
        assert.equal(answer.isWhole, false)
        assert.ok(value.length > answer.body.length)
      }
      await expectDamaged(ana)
      await expectMended(ana, token)
      assert.deepEqual(node.fatal, [])
    })
  }

  for (const size of [20_000, HELD_BACK + 1, 3 * HELD_BACK, LARGE]) {
    it(`keeps its last 64 KiB to itself: of ${size} bytes`, async (t) => {
      const { node, ana } = await withValue(t, size)
      overwrite(onlyValue(node), 0)
      const answer = await getOnWire(t, node, ana)
      const sent = answer?.body.length ?? 0
      assert.ok(sent <= size - Math.min(size, HELD_BACK), `${sent} of ${size} bytes were sent`)
    })
  }

  const ways: [string, (value: Stored) => void][] = [
    ['deleted', (value) => value.remove()],
    ['emptied', (value) => value.truncate(0)],
    ['truncated', (value) => value.truncate(LARGE - 1)],
    ['extended', (value) => value.truncate(LARGE + 1)],
  ]
  for (const [name, damage] of ways) {
    it(`is refused at once: ${name}`, async (t) => {
      const { node, ana, token } = await withValue(t)
      damage(onlyValue(node))
      await expectDamaged(ana)
      await expectDamaged(ana)
      await expectMended(ana, token)
      assert.deepEqual(node.fatal, [])
    })
  }

  it('is refused although its file became whole again, until a restart', async (t) => {
    const { node, ana, value } = await withValue(t)
    overwrite(onlyValue(node), 7)
    await getOnWire(t, node, ana)
    overwrite(onlyValue(node), 7)
    await expectDamaged(ana)
    await node.restart()
    const read = await expectStatus(await ana.get('a'), 200)
    assert.ok(Buffer.from(await read.arrayBuffer()).equals(value))
  })

  it('answers ranges as they are, with the digest of the whole, while nobody has seen it', async (t) => {
    const { node, ana, value } = await withValue(t)
    const before = await expectStatus(await ana.get('a'), 200)
    await before.arrayBuffer()
    overwrite(onlyValue(node), 100)
    const part = await expectStatus(await ana.get('a', { Range: 'bytes=0-199' }), 206)
    assert.equal(part.headers.get('repr-digest'), before.headers.get('repr-digest'))
    const sent = Buffer.from(await part.arrayBuffer())
    assert.ok(!sent.equals(value.subarray(0, 200)), 'the client finds it, by that digest')
    await expectStatus(await ana.head('a'), 200)
    assert.equal((await getOnWire(t, node, ana))?.isWhole, false)
    await expectDamaged(ana)
  })

  it('is cut short when its file is truncated while it is read', { skip: inBucket }, async (t) => {
    const { node, ana } = await withValue(t, 32 * 1024 * 1024)
    const wire = await openWire(t, node.port)
    wire.socket.pause()
    wire.send(`GET /store/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${ana.token}\r\n\r\n`)
    const isUnderWay = new Promise((resolve) => wire.socket.once('readable', resolve))
    await isUnderWay
    onlyValue(node).truncate(31 * 1024 * 1024)
    wire.socket.resume()
    assert.equal((await wire.answer())?.isWhole, false)
    await expectDamaged(ana)
  })

  it('harms no other value', async (t) => {
    const { node, ana } = await withValue(t)
    onlyValue(node).remove()
    await ana.save('b', randomBytes(LARGE))
    await expectDamaged(ana)
    await expectStatus(await ana.get('b'), 200)
    await expectStatus(await fetch(`${node.url}/health`), 200)
  })

  it('can be deleted', async (t) => {
    const { node, ana, token } = await withValue(t)
    onlyValue(node).remove()
    await expectStatus(await ana.delete('a', token), 204)
    await expectProblem(await ana.get('a'), 'ERR01', 404)
    await collect(node)
    assert.deepEqual(await ana.list(), [])
  })
})

describe('a small value whose row is damaged', () => {
  const ways: [string, string][] = [
    ['a byte changed', `UPDATE store_data SET value = CAST('V' || substr(value, 2) AS BLOB)`],
    ['shorter', 'UPDATE store_data SET value = substr(value, 2)'],
    ['longer', `UPDATE store_data SET value = CAST(value || '.' AS BLOB)`],
    ['empty', `UPDATE store_data SET value = x''`],
    ['gone', 'DELETE FROM store_data'],
    ['another digest', 'UPDATE sync_store SET digest = zeroblob(32)'],
    ['half a digest', 'UPDATE sync_store SET digest = substr(digest, 1, 16)'],
    ['another size', 'UPDATE sync_store SET size = size + 1'],
  ]
  for (const [name, statement] of ways) {
    it(`is refused, and can be replaced: ${name}`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const { token } = await ana.save('a', 'value', { 'X-Sync-Meta': 'm' })
      const { rowsAffected } = await node.running.deps.database.execute(statement)
      assert.equal(rowsAffected, 1)
      await expectDamaged(ana)
      await expectMended(ana, token)
    })
  }

  it('is refused by an empty value too', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const { token } = await ana.save('a', '', { 'X-Sync-Meta': 'm' })
    await node.running.deps.database.execute(`UPDATE store_data SET value = x'00'`)
    await expectProblem(await ana.get('a'), 'ERR02', 500)
    await expectMended(ana, token)
  })
})

describe('a GET beside an overwrite', () => {
  it('reads the row again when its file was collected before it was opened', async (t) => {
    const { node, ana, token } = await withValue(t)
    const next = randomBytes(LARGE)
    const { blobs } = node.running.deps
    const original = blobs.read
    const opened: string[] = []
    blobs.read = async (name, part) => {
      if (opened.push(name) === 1) {
        await ana.save('a', next, { 'X-Sync-Token': token })
        await collect(node)
        assert.ok(!blobFiles(node).includes(name), 'it was collected')
      }
      return original(name, part)
    }
    const read = await expectStatus(await ana.get('a'), 200)
    assert.equal(opened.length, 2)
    assert.ok(Buffer.from(await read.arrayBuffer()).equals(next))
    assert.notEqual(read.headers.get('x-sync-token'), token)
  })

  it('answers 404 when the store was deleted and collected meanwhile', async (t) => {
    const { node, ana, token } = await withValue(t)
    const { blobs } = node.running.deps
    const original = blobs.read
    blobs.read = async (name, part) => {
      await expectStatus(await ana.delete('a', token), 204)
      await collect(node)
      return original(name, part)
    }
    await expectProblem(await ana.get('a'), 'ERR01', 404)
  })

  it('goes on with the version that it began with', async (t) => {
    const { node, ana, value, token } = await withValue(t, 24 * 1024 * 1024)
    const wire = await openWire(t, node.port)
    wire.socket.pause()
    wire.send(`GET /store/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${ana.token}\r\n\r\n`)
    await new Promise((resolve) => wire.socket.once('readable', resolve))
    await ana.save('a', 'next', { 'X-Sync-Token': token })
    await collect(node)
    assert.deepEqual(blobFiles(node), [], 'its file was collected')
    wire.socket.resume()
    const answer = await wire.answer()
    assert.equal(answer?.headers['x-sync-token'], token)
    assert.ok(answer.body.equals(value))
  })
})
