import assert from 'node:assert/strict'
import { get, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { describe, it, type TestContext } from 'node:test'
import * as session from '../src/session.ts'
import * as store from '../src/store.ts'
import { openAccount, openAccounts, openSession } from './helpers/accounts.ts'
import type { Client, Listed } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { one, plant } from './helpers/rows.ts'

/** As many stores of the account as a busy year makes; each with a meta of this length. */
async function plantStores(node: TestNode, { user }: Client, count: number, metaLength = 0) {
  const number = Number(await one(node, 'SELECT number FROM sync_account WHERE id = ?', [user]))
  await plant(node, `INSERT INTO store_data (id, value) VALUES (1000000, x'')`)
  await plant(
    node,
    `INSERT INTO sync_store (store_key, store_data, store_token, store_meta, size, digest, modified)
     WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
     SELECT '~' || substr(hex(randomblob(32)), 1, 43), 1000000, 't' || i,
       CASE ?2 WHEN 0 THEN NULL ELSE substr(hex(zeroblob(4000)), 1, ?2) END, 0, zeroblob(32), i FROM n`,
    [count, metaLength],
  )
  await plant(
    node,
    `INSERT INTO account_permission (sync_account_id, store_key, permission)
     SELECT ?, store_key, 'READ' FROM sync_store WHERE store_data = 1000000`,
    [number],
  )
  // Somebody owns them: else nobody would see them.
  const owner = await openAccount(node, 'owner of many')
  await plant(
    node,
    `INSERT INTO account_permission (sync_account_id, store_key, permission)
     SELECT (SELECT number FROM sync_account WHERE id = ?), store_key, 'OWN'
     FROM sync_store WHERE store_data = 1000000`,
    [owner.user],
  )
}

async function startWithMany(t: TestContext, count: number, metaLength?: number) {
  const node = await startNode(t)
  const ana = await openAccount(node, 'ana')
  await plantStores(node, ana, count, metaLength)
  return { node, ana }
}

const isOrdered = (stores: Listed[]): boolean =>
  stores.every(({ key }, i) => i === 0 || (stores[i - 1] as Listed).key < key)

describe('GET /store', () => {
  it('shows what one has, own and shared, as it is now', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await openAccounts(node, ['ana', 'ben'])
    assert.deepEqual(await ana.list(), [])
    const own = await ana.save('own', 'four', { 'X-Sync-Meta': 'a meta, "quoted" \\' })
    const shared = await ben.save('shared', 'x'.repeat(20_000))
    await ben.save('private', 'x')
    await expectStatus(await ben.grant('shared', 'ana', 'WRITE'), 200)
    const listed = await ana.list()
    assert.ok(isOrdered(listed))
    const byKey = new Map(listed.map((each) => [each.key, each]))
    assert.equal(byKey.size, 2)
    const meta = 'a meta, "quoted" \\'
    const expectListed = (expected: Partial<Listed>): void =>
      assert.partialDeepStrictEqual(byKey.get(expected.key as string), expected)
    expectListed({ ...own, permission: 'OWN', meta, size: 4 })
    expectListed({ ...shared, permission: 'WRITE', size: 20_000 })
    assert.ok(!('meta' in (byKey.get(shared.key) as Listed)))
    await expectStatus(await ben.grant('shared', 'ana', 'READ'), 200)
    await ana.save('own', '', { 'X-Sync-Token': own.token })
    const [first, second] = (await ana.list()).sort((a, b) => a.size - b.size)
    assert.deepEqual([first?.size, first?.meta, second?.permission], [0, undefined, 'READ'])
  })

  it('says when a value was written, in its own time', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await ana.save('a', 'x')
    node.advance(5_000_000)
    await ana.save('b', 'x')
    const [one = 0, other = 0] = (await ana.list()).map(({ modified }) => modified)
    const apart = Math.abs(other - one)
    assert.ok(apart >= 5_000_000, String(apart))
  })

  it('leaves out what was deleted, revoked, or lost with its last OWN', async (t) => {
    const node = await startNode(t)
    const [ana, ben, cara] = await openAccounts(node, ['ana', 'ben', 'cara'])
    const shared = await ben.save('shared', 'x')
    for (const [key, permission] of [
      ['shared', 'WRITE'],
      ['both', 'READ'],
      ['gone', 'READ'],
      ['revoked', 'OWN'],
    ] as const) {
      if (key !== 'shared') await ben.save(key, 'x')
      await expectStatus(await ben.grant(key, 'ana', permission), 200)
    }
    await expectStatus(await ben.grant('both', 'cara', 'OWN'), 200)
    await expectStatus(await ben.delete('gone', '*'), 204)
    await expectStatus(await ben.revoke('revoked', 'ana'), 204)
    assert.equal((await ana.list()).length, 2)
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    for (let round = 0; round < 2; round++) {
      const keys = (await ana.list()).map(({ key }) => key)
      assert.equal(keys.length, 1)
      assert.ok(!keys.includes(shared.key))
      assert.equal((await cara.list()).length, 1)
      await expectProblem(await ana.get(shared.key), 'ERR01', 404)
      await node.running.housekeep()
    }
  })

  it('has all of many, in order, each once', async (t) => {
    for (const count of [499, 500, 501, 2500]) {
      const { ana } = await startWithMany(t, count)
      const { key } = await ana.save('own', 'x')
      const listed = await ana.list()
      assert.equal(listed.length, count + 1)
      assert.ok(isOrdered(listed))
      assert.ok(listed.some((one) => one.key === key))
    }
  })

  it('answers HEAD with its headers, and a session that ended with 401', async (t) => {
    const { node, ana } = await startWithMany(t, 600)
    const head = await fetch(`${node.url}/store`, { method: 'HEAD', headers: ana.headers })
    assert.equal(head.status, 200)
    assert.equal(head.headers.get('x-sync-quota-used'), '0')
    assert.equal(await head.text(), '')
    await expectStatus(await ana.request('/auth', { method: 'DELETE' }), 204)
    await expectProblem(await ana.request('/store'), 'AUTH01', 401)
  })
})

describe('a list whose session ends meanwhile', () => {
  it('ends with AUTH01, not as if it were whole', async (t) => {
    const { node, ana } = await startWithMany(t, 1200)
    const { deps } = node.running
    const self = await session.finder(deps)(ana.token)
    for (const taken of [0, 1, 2]) {
      const phone = await openSession(node, ana)
      const pages = store.list(deps, await session.finder(deps)(phone.token))
      for (let i = 0; i < taken; i++) assert.equal((await pages.next()).value?.length, 500)
      await expectStatus(await phone.request('/auth', { method: 'DELETE' }), 204)
      await assert.rejects(pages.next(), { code: 'AUTH01' })
    }
    let count = 0
    for await (const page of store.list(deps, self)) count += page.length
    assert.equal(count, 1200)
  })

  it('is cut, so that no client takes it for whole', async (t) => {
    // More than the buffers of both sockets hold: the server waits for its reader.
    const { node, ana } = await startWithMany(t, 3000, 8000)
    const request = get(`${node.url}/store`, { headers: ana.headers, agent: false })
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    assert.equal(answer.statusCode, 200)
    await expectStatus(await ana.request('/auth', { method: 'DELETE' }), 204)
    let size = 0
    await assert.rejects(async () => {
      for await (const chunk of answer) size += (chunk as Buffer).length
    })
    assert.ok(size > 0 && size < 3000 * 8000, String(size))
  })

  it('flows no faster than it is read, and comes whole to who reads slowly', async (t) => {
    const { node, ana } = await startWithMany(t, 3000, 8000)
    const request = get(`${node.url}/store`, { headers: ana.headers, agent: false })
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    // Deleted before their page was asked for: they would be there, had all been read at once.
    await plant(
      node,
      `DELETE FROM sync_store WHERE store_key IN (
         SELECT store_key FROM sync_store ORDER BY store_key DESC LIMIT 100)`,
    )
    const chunks: Buffer[] = []
    for await (const chunk of answer) chunks.push(chunk as Buffer)
    const listed = JSON.parse(Buffer.concat(chunks).toString()) as Listed[]
    assert.equal(listed.length, 2900)
    assert.ok(isOrdered(listed))
  })
})
