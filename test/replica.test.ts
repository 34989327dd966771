import assert from 'node:assert/strict'
import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { connect, passphraseCodec } from '../src/client/client.ts'
import { fileStore } from '../src/client/file.ts'
import { memoryStore, openReplica } from '../src/client/replica.ts'
import { network, once } from './helpers/network.ts'
import { PASSWORD, ofFile, startNode, temporaryFolder } from './helpers/node.ts'
import { converge, mergeLines, openDevice, reads, toText, until } from './helpers/replicas.ts'

describe('A replica', () => {
  it('reads and writes at once, and syncs with another device', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = [await openDevice(t, node), await openDevice(t, node)]
    await phone.replica.put('todo', 'milk')
    assert.equal(await phone.read('todo'), 'milk')
    await until(laptop, reads(laptop, 'todo', 'milk'))
    await laptop.replica.put('todo', 'milk\nbread')
    await until(phone, reads(phone, 'todo', 'milk\nbread'))
    await laptop.replica.delete('todo')
    await until(phone, reads(phone, 'todo', null))
    await laptop.replica.put('todo', 'again')
    await until(phone, reads(phone, 'todo', 'again'))
    assert.deepEqual(await converge(phone, laptop), { todo: 'again' })
    assert.deepEqual(phone.told, ['local todo', 'remote todo', 'remote todo', 'remote todo'])
    assert.deepEqual((await laptop.replica.list())[0]?.meta, { name: 'todo' })
    const item = await phone.client.store('todo').get()
    assert.equal(toText(item?.value ?? null), 'again')
  })

  it('brings what was there before, large values too, and only what it accepts', async (t) => {
    const node = await startNode(t)
    const client = connect({ url: node.url })
    await client.register({ id: 'ana', password: PASSWORD })
    const names = Array.from({ length: 700 }, (_, i) => `notes/${i}`)
    await client.batch(names.map((put) => ({ put, value: put })))
    await client.store('notes/large').put('x'.repeat(50_000))
    await client.store('other').put('no')
    await client.store('notes/0').put('0', { token: '*', meta: { color: 'red' } })
    const device = await openDevice(t, node, {
      accepts: ({ name }) => name?.startsWith('notes/') === true,
    })
    await device.replica.synced()
    const all = await device.all()
    assert.equal(Object.keys(all).length, 701)
    assert.equal(all['notes/699'], 'notes/699')
    assert.equal(all['notes/large']?.length, 50_000)
    await device.replica.put('notes/0', '1')
    await device.replica.synced()
    const { meta } = (await client.store('notes/0').get()) ?? {}
    assert.deepEqual(meta, { name: 'notes/0', color: 'red' })
  })

  it('queues while offline, one entry a store, and merges with what happened elsewhere', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = [await openDevice(t, node), await openDevice(t, node)]
    await phone.replica.put('a', 'base')
    await phone.replica.put('gone', 'base')
    await phone.replica.put('kept', 'base')
    await converge(phone, laptop)
    for (const { net } of [phone, laptop]) net.cut()
    await until(phone, () => phone.replica.status().state === 'offline')
    await phone.replica.put('a', 'base\nphone 1')
    await phone.replica.put('a', 'base\nphone 2')
    await phone.replica.put('new', 'phone')
    await phone.replica.put('never', 'made')
    await phone.replica.delete('never')
    await phone.replica.delete('gone')
    await phone.replica.delete('kept')
    assert.equal(phone.replica.status().pending, 4)
    await laptop.replica.put('a', 'base\nlaptop')
    await laptop.replica.put('new', 'laptop')
    await laptop.replica.put('kept', 'base\nedited')
    phone.net.asked.length = 0
    for (const { net } of [phone, laptop]) net.mend()
    const all = await converge(phone, laptop)
    assert.deepEqual(
      Object.entries(all)
        .map(([id, text]) => [id, new Set(text.split('\n'))] as const)
        .toSorted(([a], [b]) => a.localeCompare(b)),
      [
        ['a', new Set(['base', 'phone 2', 'laptop'])],
        ['kept', new Set(['base', 'edited'])],
        ['new', new Set(['phone', 'laptop'])],
      ],
    )
    assert.equal(phone.net.asked.filter((one) => one.includes('never')).length, 0)
  })

  it('merges a deletion elsewhere with an edit here, and takes the answer null', async (t) => {
    const node = await startNode(t)
    const seen: string[] = []
    const merge: typeof mergeLines = ({ key, base, local, remote }) => {
      seen.push([key, ...[base, local, remote].map(toText)].join())
      return key === 'drop' ? null : local
    }
    const phone = await openDevice(t, node, { merge })
    const laptop = await openDevice(t, node)
    await phone.replica.put('drop', 'base')
    await phone.replica.put('keep', 'base')
    await converge(phone, laptop)
    phone.net.cut()
    await until(phone, () => phone.replica.status().state === 'offline')
    await phone.replica.put('drop', 'mine')
    await phone.replica.put('keep', 'mine')
    await laptop.replica.delete('drop')
    await laptop.replica.delete('keep')
    await laptop.replica.synced()
    phone.net.mend()
    assert.deepEqual(await converge(phone, laptop), { keep: 'mine' })
    assert.deepEqual(seen.toSorted(), ['drop,base,mine,', 'keep,base,mine,'])
  })

  // A device knows a write whose answer got lost by the feed, unless another comes right after it: on a
  // database server, where each node asks now and then, only the later one is told.
  it('loses nothing to lost answers, not even a count', ofFile, async (t) => {
    const node = await startNode(t)
    const merge: typeof mergeLines = ({ base, local, remote }) => {
      const [b, l, r] = [base, local, remote].map((side) => Number(toText(side) ?? 0)) as [
        number,
        number,
        number,
      ]
      return new TextEncoder().encode(String(l + r - b))
    }
    // No attempts by the client itself: what is left open is settled by the replica.
    const options = { retry: { baseMs: 1, attempts: 1 } }
    const phone = await openDevice(t, node, { merge, options })
    const laptop = await openDevice(t, node, { merge, options })
    const count = async ({ replica }: typeof phone, by: number): Promise<void> => {
      await replica.put('count', String(Number(toText(await replica.get('count')) ?? 0) + by))
    }
    for (let round = 0; round < 5; round++) {
      phone.net.loseAnswer = once((method) => method === 'PUT')
      await count(phone, 1)
      await count(laptop, 10)
      await count(phone, 1)
      await converge(phone, laptop)
    }
    assert.deepEqual(await converge(phone, laptop), { count: '60' })
    phone.net.loseAnswer = once((method) => method === 'DELETE')
    await phone.replica.delete('count')
    assert.deepEqual(await converge(phone, laptop), {})
  })

  it('goes on after the server restarted', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = [await openDevice(t, node), await openDevice(t, node)]
    await phone.replica.put('a', '1')
    await converge(phone, laptop)
    await node.stop()
    await until(phone, () => phone.replica.status().state === 'offline')
    assert.notEqual(phone.replica.status().error, null)
    await phone.replica.put('b', '2')
    await laptop.replica.put('c', '3')
    await node.restart()
    assert.deepEqual(await converge(phone, laptop), { a: '1', b: '2', c: '3' })
    assert.equal(phone.replica.status().error, null)
  })

  it('parks what is refused for good, reports it, and lets it be retried or discarded', async (t) => {
    const node = await startNode(t, { MAX_VALUE_SIZE: '64K' })
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    await ana.replica.put('todo', 'milk')
    await ana.replica.synced()
    const { key } = await ana.client.store('todo').put('milk', { token: '*' })
    await ana.client.store('todo').share('bob', 'READ')
    await until(bob, reads(bob, key, 'milk'))
    assert.equal((await bob.replica.list())[0]?.name, 'todo')
    await bob.replica.put(key, 'mine')
    await bob.replica.put('big', new Uint8Array(70_000))
    await bob.replica.put('small', 'fits')
    await until(bob, () => bob.replica.status().parked.length === 2)
    await bob.replica.synced()
    const codes = bob.replica.status().parked.map(({ id, code }) => `${id} ${code}`)
    assert.deepEqual(new Set(codes), new Set([`${key} PERM01`, 'big SIZE01']))
    assert.equal(await bob.read(key), 'mine')
    assert.equal((await bob.replica.get('big'))?.length, 70_000)
    await ana.replica.put('todo', 'bread')
    await ana.replica.synced()
    await bob.replica.discard(key)
    await until(bob, reads(bob, key, 'bread'))
    await bob.replica.put(key, 'bread\nmine')
    await until(bob, () => bob.replica.status().parked.length === 2)
    await ana.client.store('todo').share('bob', 'WRITE')
    await bob.replica.retry(key)
    await until(ana, reads(ana, 'todo', 'bread\nmine'))
    await bob.replica.put('big', 'small enough')
    await bob.replica.synced()
    assert.deepEqual(bob.replica.status().parked, [])
  })

  it('tells of another permission and of other meta, where the value stays the same', async (t) => {
    const node = await startNode(t)
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    const store = ana.client.store('todo')
    const { key, token } = await store.put('milk')
    const seen = async () => {
      const [item] = await bob.replica.list()
      return item && [item.permission, item.meta['color'], bob.told.length]
    }
    await store.share('bob', 'READ')
    await until(bob, async () => isDeepStrictEqual(await seen(), ['READ', undefined, 1]))
    await store.share('bob', 'WRITE')
    await until(bob, async () => isDeepStrictEqual(await seen(), ['WRITE', undefined, 2]))
    await store.put('milk', { token, meta: { color: 'red' } })
    await until(bob, async () => isDeepStrictEqual(await seen(), ['WRITE', 'red', 3]))
    assert.deepEqual(new Set(bob.told), new Set([`remote ${key}`]))
  })

  it('keeps what was edited while others took the store back, and shared it again', async (t) => {
    const node = await startNode(t)
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    const store = ana.client.store('todo')
    const { key } = await store.put('of ana')
    // What is shared later is here: so is what was done before.
    const heardAll = async (name: string): Promise<void> => {
      const last = await ana.client.store(name).put('x')
      await ana.client.store(name).share('bob', 'READ')
      await until(bob, reads(bob, last.key, 'x'))
    }
    await store.share('bob', 'WRITE')
    await until(bob, reads(bob, key, 'of ana'))
    bob.net.cut()
    await until(bob, () => bob.replica.status().state === 'offline')
    await bob.replica.put(key, 'of bob')
    await store.revoke('bob')
    bob.net.mend()
    await until(bob, () => bob.replica.status().parked[0]?.code === 'ERR01')
    await store.share('bob', 'READ')
    await heardAll('one')
    await store.revoke('bob')
    await heardAll('two')
    assert.equal(await bob.read(key), 'of bob')
    await store.share('bob', 'READ')
    await heardAll('three')
    await bob.replica.retry(key)
    await until(bob, () => bob.replica.status().parked[0]?.code === 'PERM01')
    assert.equal(await bob.read(key), 'of bob')
    await bob.replica.discard(key)
    await until(bob, reads(bob, key, 'of ana'))
  })

  it('never takes a shared store for an own one of the same name', async (t) => {
    const node = await startNode(t)
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    const keys: string[] = []
    for (const permission of ['READ', 'WRITE', 'OWN'] as const) {
      await ana.replica.put(permission, `of ana`)
      await ana.replica.synced()
      const { key } = await ana.client.store(permission).put('of ana', { token: '*' })
      keys.push(key)
      bob.net.cut()
      await until(bob, () => bob.replica.status().state === 'offline')
      await bob.replica.put(permission, 'secret of bob')
      await ana.client.store(permission).share('bob', permission)
      bob.net.mend()
      await until(bob, async () => (await bob.read(key)) === 'of ana')
      await bob.replica.synced()
      assert.equal(await bob.read(permission), 'secret of bob')
      assert.equal(toText((await ana.client.store(key).get())?.value ?? null), 'of ana')
    }
    await ana.client.store('READ').revoke('bob')
    await until(bob, async () => (await bob.read(keys[0] as string)) === null)
    assert.equal(await bob.read('READ'), 'secret of bob')
  })

  it('writes nothing to a store that others shared under the name of one that is yet to be', async (t) => {
    const node = await startNode(t)
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    const own = ['b', 'c', 'd']
    for (const name of own) await bob.client.store(name).put('of bob')
    const { key } = await ana.client.store('diary').put('of ana')
    await ana.client.store('diary').share('bob', 'OWN')
    await until(bob, async () => Object.keys(await bob.all()).length === 4)
    assert.equal(await bob.read(key), 'of ana')
    await bob.replica.put('diary', 'secret of bob')
    await bob.replica.synced()
    assert.equal(toText((await ana.client.store(key).get())?.value ?? null), 'of ana')
    const again = await openDevice(t, node, { id: 'bob' })
    assert.deepEqual(await converge(bob, again), {
      ...Object.fromEntries(own.map((name) => [name, 'of bob'])),
      [key]: 'of ana',
      diary: 'secret of bob',
    })
  })

  it('takes shared stores whatever name others gave them', async (t) => {
    const node = await startNode(t)
    const ana = await openDevice(t, node)
    const bob = await openDevice(t, node, { id: 'bob' })
    await bob.replica.put('own', 'of bob')
    await bob.replica.synced()
    for (const [i, name] of ['key *', '*', 'own', 'a//b', '\0'].entries()) {
      const store = ana.client.store(`store ${i}`)
      const { key, token } = await store.put('of ana')
      await store.put('of ana', { token, meta: { name: name.replace('*', key) } })
      await store.share('bob', i === 0 ? 'READ' : 'OWN')
      await until(bob, reads(bob, key, 'of ana'))
    }
    assert.equal(await bob.read('own'), 'of bob')
  })

  it('loses nothing to a server that was restored from an older copy', async (t) => {
    const node = await startNode(t)
    const phone = await openDevice(t, node)
    await phone.replica.put('edited', 'old')
    await phone.replica.put('same', 'same')
    await phone.replica.synced()
    await node.stop()
    const backup = join(temporaryFolder(t), 'backup')
    cpSync(node.root, backup, { recursive: true })
    await node.restart()
    await phone.replica.put('edited', 'old\nnew')
    await phone.replica.put('made', 'since')
    await phone.replica.synced()
    await node.stop()
    rmSync(node.root, { recursive: true })
    cpSync(backup, node.root, { recursive: true })
    await node.restart()
    await phone.replica.put('another', 'one')
    const laptop = await openDevice(t, node)
    assert.deepEqual(await converge(phone, laptop), {
      edited: 'old\nnew',
      same: 'same',
      made: 'since',
      another: 'one',
    })
  })

  it('keeps what it cannot decode, and tells of it', async (t) => {
    const node = await startNode(t)
    const salted = (passphrase: string) => passphraseCodec(passphrase, { salt: 's', iterations: 1 })
    const broken = salted('right')
    const phone = await openDevice(t, node, { options: { codec: salted('right') } })
    await phone.replica.put('a', '1')
    await phone.replica.synced()
    // Meta can be read, the value not.
    const mixed = {
      encode: broken.encode,
      decode: (bytes: Uint8Array, context: { kind: 'value' | 'meta' }) =>
        (context.kind === 'meta' ? broken : salted('wrong')).decode(bytes, context),
    }
    const laptop = await openDevice(t, node, { options: { codec: mixed } })
    await until(laptop, () => laptop.replica.status().parked[0]?.code === 'CODEC')
    assert.equal(await laptop.read('a'), null)
    await assert.rejects(laptop.replica.delete('a'), { code: 'CODEC' })
    await laptop.replica.put('a', 'over it')
    await until(laptop, () => laptop.replica.status().parked.length === 1)
    assert.equal(toText((await phone.client.store('a').get())?.value ?? null), '1')
  })

  it('asks for a login when the session ends, and goes on after it', async (t) => {
    const node = await startNode(t)
    const phone = await openDevice(t, node)
    await phone.replica.synced()
    await phone.client.logout()
    await phone.replica.put('a', '1')
    await until(phone, () => phone.replica.status().state === 'unauthorized')
    await assert.rejects(phone.replica.synced(), { code: 'AUTH01' })
    await phone.client.login({ id: 'ana', password: PASSWORD })
    phone.replica.start()
    await phone.replica.synced()
    assert.equal((await phone.client.list()).stores.length, 1)
  })
})

describe('A replica in a file', () => {
  it('survives a restart with its queue, its cursor and what is on its way', async (t) => {
    const node = await startNode(t)
    const path = join(temporaryFolder(t), 'replica.jsonl')
    const first = await openDevice(t, node, { local: await fileStore(path) })
    await first.replica.put('a', 'one')
    await first.replica.put('gone', 'x')
    await first.replica.synced()
    // The answer is lost, and so is the process.
    first.net.loseAnswer = (method) => {
      if (method === 'PUT') first.net.cut()
      return method === 'PUT'
    }
    await first.replica.put('a', 'two')
    await until(first, () => first.replica.status().state === 'offline')
    await first.replica.delete('gone')
    await first.replica.put('b', 'offline')
    await first.replica.put('a', 'three')
    await first.replica.close()
    const conflicts: string[] = []
    const net = network()
    const second = await openDevice(t, node, {
      local: await fileStore(path),
      net,
      merge: ({ key, remote }) => {
        conflicts.push(key)
        return remote
      },
    })
    assert.equal(await second.read('a'), 'three')
    assert.equal(second.replica.status().pending, 3)
    await second.replica.synced()
    assert.deepEqual(conflicts, [])
    assert.match(net.asked.find((one) => one.includes('/changes')) ?? '', /since=/)
    const third = await openDevice(t, node)
    assert.deepEqual(await converge(second, third), { a: 'three', b: 'offline' })
  })

  it('is another one for another account', async (t) => {
    const node = await startNode(t)
    const local = memoryStore()
    const ana = await openDevice(t, node, { local })
    await ana.replica.synced()
    await ana.replica.stop()
    assert.equal(ana.replica.status().state, 'stopped')
    await assert.rejects(openDevice(t, node, { local, id: 'bob' }), { code: 'ACCOUNT' })
    // As after a reload, when nobody logs in.
    const { token, user } = await node.logIn('bob')
    const bob = connect({ url: node.url, token, user })
    assert.equal(bob.user, user)
    await assert.rejects(openReplica({ client: bob, local, merge: mergeLines }), {
      code: 'ACCOUNT',
    })
    await assert.rejects(ana.replica.put('a//b', '1'), { code: 'REQ01' })
    const again = await openReplica({ client: ana.client, local, merge: mergeLines })
    await again.synced()
    await again.close()
  })
})
