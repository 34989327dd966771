import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { describe, it } from 'node:test'
import { openAccount, openAccounts } from './helpers/accounts.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { raw } from './helpers/raw.ts'
import { one, plant, stored, type Stored } from './helpers/rows.ts'

const LARGE = 300_000
const ANY = { 'X-Sync-Token': '*' }

describe('PUT and GET /store/{key}', () => {
  it('keeps a value, small or large, with its meta, and replaces both', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const [key, size] of [
      ['empty', 0],
      ['small', 5],
      ['edge', 16_384],
      ['over', 16_385],
      ['large', LARGE],
    ] as const) {
      const value = randomBytes(size)
      const created = await expectStatus(await ana.put(key, value, { 'X-Sync-Meta': 'm 1' }), 201)
      const token = created.headers.get('x-sync-token') as string
      assert.match(token, /^[0-9a-v]{1,64}$/)
      const read = await expectStatus(await ana.get(key), 200)
      assert.deepEqual(Buffer.from(await read.arrayBuffer()), value)
      assert.equal(read.headers.get('x-sync-meta'), 'm 1')
      assert.equal(read.headers.get('x-sync-token'), token)
      assert.equal(read.headers.get('etag'), `"${token}"`)
      assert.equal(
        read.headers.get('repr-digest'),
        `sha-256=:${createHash('sha256').update(value).digest('base64')}:`,
      )
      await expectStatus(await ana.put(key, 'next', { 'X-Sync-Token': token }), 204)
      const after = await ana.get(key)
      assert.equal(await after.text(), 'next')
      assert.equal(after.headers.get('x-sync-meta'), null)
    }
  })

  it('refuses a stale token and a missing one, and says what is there', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const first = await ana.save('a', 'one')
    const second = await ana.save('a', 'two', {
      'If-Match': `"${first.token}"`,
      'X-Sync-Meta': 'm',
    })
    for (const [headers, status] of [
      [{ 'X-Sync-Token': first.token }, 412],
      [{ 'If-Match': `"${first.token}"` }, 412],
      [{ 'If-None-Match': '*' }, 412],
      [{}, 428],
    ] as const) {
      const refused = await ana.put('a', 'three', headers)
      assert.equal(refused.headers.get('x-sync-token'), second.token)
      assert.equal(refused.headers.get('etag'), `"${second.token}"`)
      assert.equal(refused.headers.get('x-sync-meta'), 'm')
      assert.ok(refused.headers.has('repr-digest'))
      await expectProblem(refused, 'KEY01', status)
    }
    assert.equal(await (await ana.get('a')).text(), 'two')
    await expectStatus(await ana.put('a', 'four', { 'X-Sync-Token': '*' }), 204)
  })
})

describe('the headers of a value', () => {
  it('are the same for GET and HEAD, in the row and in a file', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const size of [0, 10, LARGE]) {
      const { key, token } = await ana.save(`v${size}`, randomBytes(size), { 'X-Sync-Meta': 'm' })
      const read = await expectStatus(await ana.get(key), 200)
      const head = await expectStatus(await ana.head(key), 200)
      assert.equal((await head.arrayBuffer()).byteLength, 0)
      const expected = {
        'accept-ranges': 'bytes',
        'cache-control': 'private, no-cache, no-transform',
        'content-disposition': 'attachment',
        'content-length': String(size),
        'content-security-policy': "sandbox; default-src 'none'",
        'content-type': 'application/octet-stream',
        etag: `"${token}"`,
        'x-content-type-options': 'nosniff',
        'x-sync-key': key,
        'x-sync-meta': 'm',
        'x-sync-token': token,
      }
      for (const answer of [read, head]) {
        for (const [name, value] of Object.entries(expected)) {
          assert.equal(answer.headers.get(name), value, name)
        }
        for (const name of ['last-modified', 'repr-digest']) {
          assert.equal(answer.headers.get(name), read.headers.get(name), name)
        }
      }
    }
  })

  it('say when it was written', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await ana.save('a', 'x')
    const modifiedOf = async (): Promise<number> =>
      Date.parse((await ana.get('a')).headers.get('last-modified') ?? '')
    const [listed] = await ana.list()
    const first = await modifiedOf()
    assert.equal(first, Math.floor((listed?.modified as number) / 1000) * 1000)
    node.advance(3_600_000)
    assert.equal(await modifiedOf(), first)
    await ana.save('a', 'y', ANY)
    assert.ok((await modifiedOf()) >= first + 3_600_000)
  })
})

describe('meta', () => {
  it('is up to 8000 printable ASCII characters, as they were sent', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const printable = Array.from({ length: 95 }, (_, i) => String.fromCharCode(0x20 + i)).join('')
    await ana.save('a', 'x')
    for (const meta of ['m', `x${printable}x`, 'm'.repeat(8000)]) {
      await ana.save('a', 'x', { ...ANY, 'X-Sync-Meta': meta })
      assert.equal((await ana.get('a')).headers.get('x-sync-meta'), meta)
      assert.equal((await ana.list())[0]?.meta, meta)
    }
    for (const meta of ['m'.repeat(8001), 'é', 'a\tb', 'a\u007fb', '\u0080', 'a\u0001b']) {
      const auth = `Authorization: ${ana.headers['Authorization']}`
      const lines = ['PUT /store/a HTTP/1.1', auth, 'X-Sync-Token: *', 'Content-Length: 0']
      const answer = await raw(t, node, [...lines, `X-Sync-Meta: ${meta}`])
      await expectProblem(answer, 'REQ01', 400)
    }
    assert.equal(await (await ana.get('a')).text(), 'x')
  })
})

describe('DELETE /store/{key}', () => {
  it('deletes for everyone, whatever the value was', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await openAccounts(node, ['ana', 'ben'])
    for (const size of [0, 10, LARGE]) {
      const { key, token } = await ana.save('a', randomBytes(size))
      await expectStatus(await ana.grant('a', 'ben', 'WRITE'), 200)
      const deleted = await expectStatus(await ana.delete('a', token), 204)
      assert.equal(deleted.headers.get('x-sync-key'), key)
      for (const read of [await ana.get('a'), await ana.get(key), await ben.get(key)]) {
        await expectProblem(read, 'ERR01', 404)
      }
      assert.deepEqual([await ana.list(), await ben.list()], [[], []])
    }
    for (const table of ['sync_store', 'store_data', 'account_permission']) {
      assert.equal(await one(node, `SELECT count(*) FROM ${table}`), 0, table)
    }
  })

  it('leaves others as they were', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const kept = await ana.save('b', 'kept')
    const { token } = await ana.save('a', 'x')
    await expectProblem(await ana.delete('a', kept.token), 'KEY01', 412)
    await expectStatus(await ana.delete('a', token), 204)
    const read = await expectStatus(await ana.get('b'), 200)
    assert.equal(read.headers.get('x-sync-token'), kept.token)
  })
})

describe('a token', () => {
  it('is never used twice: for no store, no value, after no deletion and no restart', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await openAccounts(node, ['ana', 'ben'])
    const tokens: string[] = []
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 10; i++) {
        for (const self of [ana, ben]) {
          tokens.push((await self.save('a', 'same')).token)
          tokens.push((await self.save('a', 'same', ANY)).token)
          await expectStatus(await self.delete('a', '*'), 204)
        }
      }
      await node.restart()
    }
    assert.equal(new Set(tokens).size, 80)
    for (const token of tokens) assert.match(token, /^[0-9a-v]{1,64}$/)
  })
})

describe('what was written', () => {
  it('is there after a restart', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const values = [0, 10, 16_384, 16_385, LARGE].map((size) => randomBytes(size))
    const saved: string[] = []
    for (const value of values) {
      saved.push((await ana.save(`v${value.length}`, value, { 'X-Sync-Meta': 'm' })).token)
    }
    await node.restart()
    await node.running.housekeep()
    for (const [i, value] of values.entries()) {
      const read = await expectStatus(await ana.get(`v${value.length}`), 200)
      assert.equal(read.headers.get('x-sync-token'), saved[i])
      assert.equal(read.headers.get('x-sync-meta'), 'm')
      assert.deepEqual(Buffer.from(await read.arrayBuffer()), value)
    }
  })
})

describe('a value that is missing or damaged', () => {
  const storedIn = async (node: TestNode): Promise<Stored> =>
    stored(node, String(await one(node, 'SELECT store_file FROM sync_store')))

  async function expectDamaged(self: Client): Promise<void> {
    await expectProblem(await self.get('a'), 'ERR02', 500)
    await expectProblem(await self.get('a', { Range: 'bytes=0-0' }), 'ERR02', 500)
    assert.equal((await self.head('a')).status, 500)
  }

  async function expectReplaceable(self: Client): Promise<void> {
    await self.save('a', 'whole again', ANY)
    assert.equal(await (await self.get('a')).text(), 'whole again')
  }

  it('is ERR02 in the row', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const change of [
      'value = zeroblob(length(value))',
      'value = zeroblob(length(value) + 1)',
      `value = x''`,
    ]) {
      await ana.save('a', 'as it was')
      await plant(node, `UPDATE store_data SET ${change}`)
      await expectDamaged(ana)
      await expectReplaceable(ana)
      await expectStatus(await ana.delete('a', '*'), 204)
    }
    await ana.save('a', 'as it was')
    await plant(node, 'DELETE FROM store_data')
    await expectDamaged(ana)
  })

  it('is ERR02 as a file that is missing or of another size', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const damage of [
      (value: Stored) => value.remove(),
      (value: Stored) => value.truncate(LARGE - 1),
      (value: Stored) => value.truncate(0),
      (value: Stored) => value.truncate(LARGE + 1),
    ]) {
      await ana.save('a', randomBytes(LARGE))
      damage(await storedIn(node))
      await expectDamaged(ana)
      await expectReplaceable(ana)
      await expectStatus(await ana.delete('a', '*'), 204)
    }
  })

  /** A value whose file has another first byte. */
  async function saveChanged(node: TestNode, self: Client, size: number): Promise<void> {
    const value = randomBytes(size)
    await self.save('a', value)
    value[0] = (value[0] as number) ^ 1
    ;(await storedIn(node)).write(value)
  }

  /** How much of it arrives before the connection is cut. */
  async function receivedOf(node: TestNode, self: Client, size: number): Promise<number> {
    let received = 0
    await assert.rejects(async () => {
      const request = get(`${node.url}/store/a`, { headers: self.headers, agent: false })
      const [answer] = (await once(request, 'response')) as [IncomingMessage]
      assert.equal(answer.headers['content-length'], String(size))
      for await (const chunk of answer) received += (chunk as Buffer).length
    }, /aborted|socket hang up/)
    return received
  }

  it('is cut short as a file with other bytes, and ERR02 from then on', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const size of [16_385, 65_536, 65_537, LARGE]) {
      await saveChanged(node, ana, size)
      const received = await receivedOf(node, ana, size)
      assert.ok(received < size, `${received} of ${size}`)
      await expectDamaged(ana)
      await expectReplaceable(ana)
      await expectStatus(await ana.delete('a', '*'), 204)
    }
  })

  it('has its last 64 KiB held back', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const size of [65_537, 131_072, LARGE]) {
      await saveChanged(node, ana, size)
      const received = await receivedOf(node, ana, size)
      assert.ok(received <= size - 65_536, `${received} of ${size}`)
      await expectStatus(await ana.delete('a', '*'), 204)
    }
  })
})
