import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { connect, ConflictError } from '../src/client/client.ts'
import { PASSWORD, startNode } from './helpers/node.ts'

describe('connect', () => {
  it('registers, stores, lists, shares and ends the session', async (t) => {
    const node = await startNode(t)
    const ana = connect({ url: node.url })
    const { user } = await ana.register({ id: 'ana', password: PASSWORD, device: 'test' })
    assert.equal(ana.user, user)
    const store = ana.store('notes/ä todo')
    assert.equal(await store.get(), null)
    const first = await store.put('buy milk', { meta: { color: 'red' } })
    const got = await store.get()
    assert.equal(new TextDecoder().decode(got?.value), 'buy milk')
    assert.deepEqual(got?.meta, { name: 'notes/ä todo', color: 'red' })
    await store.update((now) => `${new TextDecoder().decode(now ?? undefined)} and bread`)
    await assert.rejects(store.put('late', { token: first.token }), (error) => {
      assert.ok(error instanceof ConflictError)
      assert.equal(new TextDecoder().decode(error.current?.value), 'buy milk and bread')
      return true
    })
    const { stores, used, limit } = await ana.list()
    assert.equal(stores[0]?.name, 'notes/ä todo')
    assert.deepEqual(stores[0]?.extra, { color: 'red' })
    assert.equal(used, stores[0]?.size)
    assert.equal(limit, 1024 ** 3)
    const events = await Array.fromAsync(ana.changes())
    assert.deepEqual(
      events.map(({ type }) => type),
      ['change', 'live'],
    )
    assert.equal((await ana.sessions())[0]?.device, 'test')
    await ana.logout()
    assert.equal(ana.token, null)
    await assert.rejects(ana.list(), { code: 'AUTH01', status: 401 })
  })
})
