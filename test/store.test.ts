import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'

const LARGE = 300_000

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
