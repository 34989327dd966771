// Owns that what a replica's app puts into meta is kept like its values, through conflicts and lost answers.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { Meta } from '../src/client/client.ts'
import { fileStore } from '../src/client/file.ts'
import type { ReplicaOptions } from '../src/client/replica.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'
import { converge, openDevice, reads, until, type Device } from './helpers/replicas.ts'

const metaOf = async ({ replica }: Device, id = 'n'): Promise<Meta | undefined> =>
  (await replica.list()).find((item) => item.id === id)?.meta

/** Two devices that agree on `n`; the first is stopped. */
async function start(t: TestContext, meta: Meta) {
  const node = await startNode(t)
  const phone = await openDevice(t, node)
  await phone.replica.put('n', 'base', { meta })
  const laptop = await openDevice(t, node)
  await converge(phone, laptop)
  await phone.replica.stop()
  return { node, phone, laptop }
}

describe('The meta of a replica', () => {
  it('is merged member by member, as what was changed on each side', async (t) => {
    const { phone, laptop } = await start(t, {
      same: 1,
      here: 1,
      there: 1,
      both: 1,
      gone: 1,
      left: 1,
    })
    await phone.replica.put('n', 'base\nhere', { meta: { here: 2, both: 'here', gone: undefined } })
    const theirs = { there: 2, both: 'there', left: undefined, new: [1] }
    await laptop.replica.put('n', 'base\nthere', { meta: theirs })
    await laptop.replica.synced()
    phone.replica.start()
    await converge(phone, laptop)
    const expected = { name: 'n', same: 1, here: 2, there: 2, both: 'here', new: [1] }
    assert.deepEqual(await metaOf(phone), expected)
    await until(laptop, async () => (await metaOf(laptop))?.['both'] === 'here')
    assert.deepEqual(await metaOf(laptop), expected)
    assert.deepEqual((await phone.client.store('n').get())?.meta, expected)
  })

  it('is sent where both sides wrote the same value', async (t) => {
    const { phone, laptop } = await start(t, {})
    await phone.replica.put('n', 'same', { meta: { color: 'red' } })
    await laptop.replica.put('n', 'same', { meta: { size: 1 } })
    await laptop.replica.synced()
    phone.replica.start()
    await phone.replica.synced()
    const expected = { name: 'n', size: 1, color: 'red' }
    assert.deepEqual((await phone.client.store('n').get())?.meta, expected)
    assert.deepEqual(await metaOf(phone), expected)
  })

  it('is sent where it alone was changed while a write lost its answer', async (t) => {
    const node = await startNode(t)
    const merge: ReplicaOptions['merge'] = () => assert.fail('its own write is no conflict')
    const phone = await openDevice(t, node, {
      merge,
      options: { retry: { baseMs: 1, attempts: 1 } },
    })
    await phone.replica.put('n', '0')
    await phone.replica.synced()
    phone.net.loseAnswer = (method) => {
      if (method !== 'PUT') return false
      phone.net.loseAnswer = null
      void phone.replica.put('n', '1', { meta: { color: 'blue' } })
      return true
    }
    await phone.replica.put('n', '1', { meta: { color: 'red' } })
    await until(phone, async () => (await metaOf(phone))?.['color'] === 'blue')
    await phone.replica.synced()
    const expected = { name: 'n', color: 'blue' }
    assert.deepEqual((await phone.client.store('n').get())?.meta, expected)
    assert.deepEqual(await metaOf(phone), expected)
  })

  it('is taken back with the value', async (t) => {
    const node = await startNode(t)
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    const { key } = await ana.client.store('todo').put('milk', { meta: { color: 'red' } })
    await ana.client.store('todo').share('bob', 'READ')
    await until(bob, reads(bob, key, 'milk'))
    await bob.replica.put(key, 'mine', { meta: { color: 'blue' } })
    await until(bob, () => bob.replica.status().parked.length === 1)
    await bob.replica.discard(key)
    assert.deepEqual(await metaOf(bob, key), { name: 'todo', color: 'red' })
  })

  it('is what it was when it was put, as JSON has it', async (t) => {
    const { phone } = await start(t, { gone: 1 })
    const meta: Meta = { tags: ['a'], at: new Date(0), gone: undefined }
    await phone.replica.put('n', 'base', { meta })
    ;(meta['tags'] as string[]).push('b')
    const expected = { name: 'n', tags: ['a'], at: '1970-01-01T00:00:00.000Z' }
    assert.deepEqual(await metaOf(phone), expected)
    await assert.rejects(phone.replica.put('n', 'base', { meta: { big: 1n } }), TypeError)
    assert.deepEqual(await metaOf(phone), expected)
  })

  it('is refused at once where it is longer than a server takes, with the name', async (t) => {
    const { phone } = await start(t, { color: 'red' })
    const name = 'n'.repeat(5966)
    const tooLong = { code: 'REQ01', message: /longer/ }
    await assert.rejects(phone.replica.put(`${name}x`, '1'), tooLong)
    const meta = { color: 'x'.repeat(6000) }
    await assert.rejects(phone.replica.put('n', '1', { meta }), tooLong)
    assert.deepEqual(await metaOf(phone), { name: 'n', color: 'red' })
    await phone.replica.put(name, 'fits')
    phone.replica.start()
    await phone.replica.synced()
    assert.deepEqual(phone.replica.status().parked, [])
    assert.deepEqual(await phone.all(), { n: 'base', [name]: 'fits' })
  })

  it('of a copy that knew no base of it yet loses nothing either', async (t) => {
    const node = await startNode(t)
    const path = join(temporaryFolder(t), 'replica.jsonl')
    const laptop = await openDevice(t, node)
    await laptop.replica.put('n', 'base', { meta: { color: 'red' } })
    const first = await openDevice(t, node, { local: await fileStore(path) })
    await converge(first, laptop)
    await first.replica.stop()
    await first.replica.put('n', 'base\nhere', { meta: { here: 1 } })
    await first.replica.close()
    const written = readFileSync(path, 'utf8')
    const old = written.replaceAll(/("base":\{[^}]*\}),"meta":\{[^}]*\}/g, '$1')
    assert.notEqual(old, written)
    writeFileSync(path, old)
    await laptop.replica.put('n', 'base\nthere', { meta: { there: 1 } })
    await laptop.replica.synced()
    const second = await openDevice(t, node, { local: await fileStore(path) })
    await converge(second, laptop)
    const expected = { name: 'n', color: 'red', here: 1, there: 1 }
    assert.deepEqual(await metaOf(second), expected)
  })
})
