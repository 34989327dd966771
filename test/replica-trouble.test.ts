// Owns what a replica makes of trouble on its way: a late feed, a store that cannot be read, a device that refuses.
import assert from 'node:assert/strict'
import { readdirSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { connect } from '../src/client/client.ts'
import { memoryStore, type LocalStore } from '../src/client/replica.ts'
import { eventually } from './helpers/eventually.ts'
import { network } from './helpers/network.ts'
import { PASSWORD, ofFile, startNode } from './helpers/node.ts'
import { openDevice, toText, until } from './helpers/replicas.ts'

/** In the server's place: too busy, nothing happened. */
const busy = (): Response => Response.json({ code: 'ERR05', status: 503 }, { status: 503 })

describe('A replica whose feed is late', () => {
  for (const edit of ['deletion', 'edit'] as const) {
    // On a database server each node asks now and then: of two puts in a row only the second is told.
    it(`sends its ${edit} as it is, and merges it with nothing`, ofFile, async (t) => {
      const node = await startNode(t)
      const merges: unknown[] = []
      const { replica, net, client } = await openDevice(t, node, {
        merge: (conflict) => {
          merges.push(conflict)
          return conflict.local ?? conflict.remote
        },
      })
      await replica.synced()
      let catchUp = (): void => undefined
      net.late = new Promise((resolve) => (catchUp = resolve))
      for (const value of ['1', '2']) {
        await replica.put('a', value)
        await replica.synced()
      }
      net.answer = (method) => (method === 'PUT' || method === 'DELETE' ? busy() : undefined)
      if (edit === 'edit') await replica.put('a', '3')
      else await replica.delete('a')
      net.asked.length = 0
      catchUp()
      // Of the first put, when the second is known already.
      await eventually(() => net.asked.some((one) => one.startsWith('GET /store/')), true)
      net.answer = null
      await replica.synced()
      const there = await client.store('a').get()
      assert.equal(toText(there?.value ?? null), edit === 'edit' ? '3' : null)
      assert.deepEqual(merges, [])
    })
  }
})

describe('A replica with a store that cannot be read', { timeout: 60_000 }, () => {
  it('goes on with all others', async (t) => {
    const node = await startNode(t)
    const laptop = connect({ url: node.url })
    await laptop.register({ id: 'ana', password: PASSWORD })
    await laptop.store('big').put(new Uint8Array(50_000))
    await laptop.store('ok').put('fine')
    const [blob] = readdirSync(join(node.root, 'blobs'))
    truncateSync(join(node.root, 'blobs', blob as string), 100)
    const { replica, all } = await openDevice(t, node)
    await replica.put('new', 'note')
    await replica.synced()
    assert.deepEqual(
      replica.status().parked.map(({ id, code }) => `${id} ${code}`),
      ['big ERR02'],
    )
    assert.deepEqual(await all(), { ok: 'fine', new: 'note' })
    assert.equal(toText((await laptop.store('new').get())?.value ?? null), 'note')
    // Nor is an edit that runs into it in the way of others.
    await replica.put('big', 'edited')
    await replica.put('ok', 'still fine')
    await replica.synced()
    assert.equal(replica.status().parked[0]?.code, 'ERR02')
    assert.equal(toText((await laptop.store('ok').get())?.value ?? null), 'still fine')
  })

  for (const [code, answer] of [
    ['ERR02', () => Response.json({ code: 'ERR02', status: 500 }, { status: 500 })],
    ['DIGEST', () => new Response('x', { headers: { 'X-Sync-Token': '1', 'Repr-Digest': 'no' } })],
  ] as const) {
    it(`reads it as soon as it can be read after ${code}, and loses no edit`, async (t) => {
      const node = await startNode(t)
      const { client: laptop } = await openDevice(t, node)
      for (const name of ['read', 'edited']) await laptop.store(name).put('x'.repeat(20_000))
      const net = network()
      net.answer = (method, path) =>
        method === 'GET' && path.startsWith('/store/') ? answer() : undefined
      const phone = await openDevice(t, node, { net })
      await phone.replica.synced()
      assert.deepEqual(
        new Set(phone.replica.status().parked.map((one) => one.code)),
        new Set([code]),
      )
      await phone.replica.put('edited', 'here')
      await phone.replica.synced()
      assert.equal(phone.replica.status().parked.length, 2)
      net.answer = null
      net.cut()
      net.mend()
      await until(phone, () => phone.replica.status().parked.length === 0)
      await phone.replica.synced()
      assert.equal((await phone.read('read'))?.length, 20_000)
      assert.equal(await phone.read('edited'), `${'x'.repeat(20_000)}\nhere`)
      assert.equal((await laptop.store('edited').get())?.value.length, 20_005)
    })
  }
})

describe('A replica on a device in trouble', { timeout: 60_000 }, () => {
  it('goes on after the local store refused several writes in a row', async (t) => {
    const node = await startNode(t)
    const memory = memoryStore()
    let refusals = 0
    const refused = async (): Promise<never> => {
      refusals--
      throw new Error('no space left')
    }
    const local: LocalStore = {
      ...memory,
      all: () => (refusals > 0 ? refused() : memory.all()),
      readState: () => (refusals > 0 ? refused() : memory.readState()),
      update: (...args) => (refusals > 0 ? refused() : memory.update(...args)),
    }
    const { replica, net, client } = await openDevice(t, node, { local })
    await replica.synced()
    // While sending.
    for (const [name, times, refusal] of [
      ['a', 1, undefined],
      ['b', 2, undefined],
      ['refused', 1, 'SIZE01'],
    ] as const) {
      net.answer = (method) => {
        if (method !== 'PUT') return undefined
        refusals = times
        net.answer = null
        return refusal && Response.json({ code: refusal }, { status: 413 })
      }
      await replica.put(name, '1')
      await eventually(() => refusals, 0)
      await replica.synced()
      assert.deepEqual(replica.status().parked, [])
      assert.equal(toText((await client.store(name).get())?.value ?? null), '1')
    }
    // While taking in, and at the start.
    refusals = 3
    await client.store('c').put('1')
    await until({ replica }, async () => (await replica.get('c')) !== null)
    await replica.stop()
    refusals = 3
    replica.start()
    await replica.put('d', '1').catch(() => undefined)
    await eventually(() => refusals, 0)
    await replica.put('d', '1')
    await replica.synced()
    assert.equal(toText((await client.store('d').get())?.value ?? null), '1')
  })

  it('keeps and sends an edit although a listener throws', async (t) => {
    const node = await startNode(t)
    const { replica, client } = await openDevice(t, node)
    await replica.synced()
    const errors = t.mock.method(console, 'error', () => undefined).mock
    const told: string[] = []
    replica.subscribe(() => {
      throw new Error('a bug of the app')
    })
    replica.subscribe(({ type }) => told.push(type))
    await replica.put('a', '1')
    assert.ok(told.includes('change'))
    await replica.synced()
    assert.equal(toText((await client.store('a').get())?.value ?? null), '1')
    assert.match(String(errors.calls[0]?.arguments[0]), /a bug of the app/)
  })
})
