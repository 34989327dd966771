// Owns that a replica keeps to one account: nothing of it reaches another, and no other is taken for it.
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { connect, type Client } from '../src/client/client.ts'
import { memoryStore } from '../src/client/replica.ts'
import { PASSWORD, startNode } from './helpers/node.ts'
import { openDevice, reads, toText, until } from './helpers/replicas.ts'

const as = (id: string) => ({ id, password: PASSWORD })

/** A device of ana's with a store that is synced and one that waits, and what bob has in the end. */
async function start(t: TestContext) {
  const node = await startNode(t)
  const bob = connect({ url: node.url })
  await bob.register(as('bob'))
  const local = memoryStore()
  const ana = await openDevice(t, node, { local })
  await ana.replica.put('diary', 'secret of ana')
  await ana.replica.synced()
  return {
    node,
    local,
    ana,
    bob,
    /** The replica does not sync with bob's session, and goes on with ana's. */
    async expectRefused({ replica, client }: { replica: typeof ana.replica; client: Client }) {
      const isRefused = () => replica.status().state === 'unauthorized'
      await until({ replica }, isRefused)
      // By the logout, it may be: nobody had logged in yet.
      replica.start()
      await until({ replica }, isRefused)
      await assert.rejects(replica.synced(), { code: 'ACCOUNT' })
      assert.deepEqual((await bob.list()).stores, [])
      await client.login(as('ana'))
      replica.start()
      await replica.synced()
      const names = (await client.list()).stores.map(({ name }) => name)
      assert.deepEqual(new Set(names), new Set(['diary', 'draft']))
      assert.deepEqual((await bob.list()).stores, [])
    },
  }
}

describe('A replica of one account', () => {
  it('sends nothing when another logs in before it is started again', async (t) => {
    const { ana, expectRefused } = await start(t)
    await ana.replica.stop()
    await ana.replica.put('draft', 'secret of ana')
    await ana.client.logout()
    await ana.client.login(as('bob'))
    ana.replica.start()
    await expectRefused(ana)
  })

  it('sends nothing when another logs in while it runs', async (t) => {
    const { ana, expectRefused } = await start(t)
    await ana.client.logout()
    await ana.client.login(as('bob'))
    await ana.replica.put('draft', 'secret of ana')
    await expectRefused(ana)
  })

  it('sends nothing when another logs in while a write is on its way', async (t) => {
    const { ana, bob, expectRefused } = await start(t)
    // The connection is lost, and back with somebody else.
    ana.net.answer = (method) => {
      if (method !== 'PUT') return undefined
      ana.net.answer = null
      throw new TypeError('lost')
    }
    const login = ana.client.login(as('bob'))
    await ana.replica.put('draft', 'secret of ana')
    await login
    assert.equal(ana.client.user, (await bob.login(as('bob'))).user)
    await expectRefused(ana)
  })

  it('sends nothing when another session is handed in by its token alone', async (t) => {
    const { node, local, ana, bob, expectRefused } = await start(t)
    await ana.replica.stop()
    await ana.replica.put('draft', 'secret of ana')
    const options = { token: bob.token }
    await expectRefused(await openDevice(t, node, { local, options }))
  })

  it('sends nothing when another session is handed in as its own', async (t) => {
    const { node, local, ana, bob, expectRefused } = await start(t)
    await ana.replica.stop()
    await ana.replica.put('draft', 'secret of ana')
    const options = { token: bob.token, user: ana.client.user }
    await expectRefused(await openDevice(t, node, { local, options }))
  })

  it('sends nothing when an ended session is renewed with that of another', async (t) => {
    const { node, local, ana, bob, expectRefused } = await start(t)
    await ana.replica.stop()
    await ana.replica.put('draft', 'secret of ana')
    const options = { token: 'x'.repeat(43), onUnauthorized: () => bob.token }
    await expectRefused(await openDevice(t, node, { local, options }))
  })

  it('asks once for another session, where what it is given is none', async (t) => {
    const { node, local, ana } = await start(t)
    await ana.replica.stop()
    let asked = 0
    const options = {
      token: 'x'.repeat(43),
      onUnauthorized: () => String(asked++).padEnd(43, 'y'),
    }
    const { replica } = await openDevice(t, node, { local, options })
    await assert.rejects(replica.synced(), { code: 'AUTH01' })
    assert.equal(asked, 1)
  })

  it('goes on by itself where somebody logs in again while it looks who it is', async (t) => {
    const { ana } = await start(t)
    const asked = Promise.withResolvers<void>()
    ana.net.answer = async (_, path) => {
      if (path !== '/account') return undefined
      ana.net.answer = null
      await ana.client.login(as('ana'))
      asked.resolve()
      return undefined
    }
    await ana.client.logout()
    await asked.promise
    await ana.replica.put('draft', 'of ana')
    await ana.replica.synced()
  })

  it('goes on with its own session by the token alone, first without a connection', async (t) => {
    const { node, local, ana } = await start(t)
    await ana.replica.stop()
    await ana.replica.put('draft', 'of ana')
    const again = await openDevice(t, node, {
      local,
      net: Object.assign(ana.net, { isDown: true }),
      options: { token: ana.client.token },
    })
    await until(again, () => again.replica.status().state === 'offline')
    assert.equal(again.client.user, null)
    again.net.mend()
    await again.replica.synced()
    assert.equal(again.client.user, ana.client.user)
    assert.equal(toText((await ana.client.store('draft').get())?.value ?? null), 'of ana')
  })

  it('goes on by itself with another session of its account', async (t) => {
    const { ana } = await start(t)
    await ana.client.login(as('ana'))
    await ana.replica.put('draft', 'of ana')
    await ana.replica.synced()
    await ana.client.store('draft').put('from elsewhere', { token: '*' })
    await until(ana, reads(ana, 'draft', 'from elsewhere'))
  })
})

describe('A replica of which others own stores, too', () => {
  it('never takes one for its own by the name that somebody else gave it', async (t) => {
    const node = await startNode(t)
    const mallory = connect({ url: node.url })
    await mallory.register(as('mallory'))
    const ana = connect({ url: node.url })
    await ana.register(as('ana'))
    const names = ['journal', 'kept', 'a//b', '', '.', 'a\nb', '\ud800', 'x'.repeat(4000)]
    const keys = new Map<string, string>()
    for (const [i, name] of names.entries()) {
      const bait = mallory.store(`bait ${i}`)
      keys.set(name, (await bait.put(`bait ${i}`, { meta: { name } })).key)
      await bait.share('ana', 'OWN')
    }
    await mallory.store('journal').put('bait')
    await mallory.store('journal').share('ana', 'OWN')
    const { key } = (await mallory.store('journal').get()) as { key: string }
    await ana.store('kept').put('of ana')
    const { replica, read } = await openDevice(t, node)
    await replica.synced()
    assert.equal(await read('kept'), 'of ana')
    assert.equal(await read('journal'), null)
    assert.equal(await read(key), 'bait')
    for (const [i, name] of names.entries())
      assert.equal(await read(keys.get(name) as string), `bait ${i}`)
    await replica.put('journal', 'secret of ana')
    await replica.put('kept', 'secret of ana')
    await replica.synced()
    const { stores } = await mallory.list()
    for (const store of stores) {
      const value = (await mallory.store(store.key).get())?.value ?? null
      assert.match(toText(value) as string, /^bait/)
    }
    assert.equal(toText((await ana.store('journal').get())?.value ?? null), 'secret of ana')
  })

  it('knows its own in a first sync, and asks for hundreds at once', async (t) => {
    const node = await startNode(t)
    const ana = connect({ url: node.url })
    await ana.register(as('ana'))
    const names = Array.from({ length: 700 }, (_, i) => `note ${i}`)
    await ana.batch(names.map((put) => ({ put, value: put })))
    const sizes: number[] = []
    const limited: typeof fetch = async (input, init) => {
      if (!String(input).endsWith('/batch')) return fetch(input, init)
      const { operations } = JSON.parse(String(init?.body)) as { operations: unknown[] }
      sizes.push(operations.length)
      // As for stores with very many members.
      return operations.length > 400
        ? Response.json({ code: 'SIZE01', status: 413 }, { status: 413 })
        : fetch(input, init)
    }
    const { replica, all } = await openDevice(t, node, { options: { fetch: limited } })
    await replica.synced()
    assert.deepEqual(await all(), Object.fromEntries(names.map((name) => [name, name])))
    assert.deepEqual(sizes, [500, 250, 250, 200])
    await replica.put('note 5', 'edited')
    await replica.synced()
    assert.equal(toText((await ana.store('note 5').get())?.value ?? null), 'edited')
  })
})
