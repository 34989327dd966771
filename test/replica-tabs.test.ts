// Owns what tabs that share one local store do to each other: one syncs, and all may edit at any moment.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { memoryStore } from '../src/client/replica.ts'
import { eventually } from './helpers/eventually.ts'
import { startNode } from './helpers/node.ts'
import { openDevice, toText, until, type Device } from './helpers/replicas.ts'

/** Two tabs, of which the first syncs. */
async function openTabs(t: TestContext) {
  const node = await startNode(t)
  const local = { ...memoryStore(), name: randomUUID() }
  const [first, second] = [
    await openDevice(t, node, { local }),
    await openDevice(t, node, { local }),
  ]
  await first.replica.synced()
  assert.equal(second.replica.status().state, 'waiting')
  return { node, local, first, second }
}

const onServer = async ({ client }: Device, name: string): Promise<string | null> =>
  toText((await client.store(name).get())?.value ?? null)

/** Does `work` when the server has done what such a request asks, before its answer comes; resolves then. */
const beforeAnswer = ({ net }: Device, method: string, work: () => Promise<void>): Promise<void> =>
  new Promise((resolve) => {
    const send = net.fetch
    net.fetch = async (input, init) => {
      const response = await send(input, init)
      if (init?.method === method) {
        net.fetch = send
        await work()
        resolve()
      }
      return response
    }
  })

describe('Tabs with one replica', { timeout: 60_000 }, () => {
  it('send an edit that one makes while the other sends what was discarded', async (t) => {
    const { first, second } = await openTabs(t)
    const done = beforeAnswer(first, 'PUT', async () => {
      await second.replica.discard('n')
      await second.replica.put('n', '2')
    })
    await first.replica.put('n', '1')
    await done
    await eventually(() => onServer(first, 'n'), '2')
    assert.equal(await first.read('n'), '2')
  })

  it('that wait for another to sync know when all is sent, and when it is not', async (t) => {
    const { node, local, first, second } = await openTabs(t)
    await second.replica.synced()
    await second.replica.put('n', '1')
    await second.replica.synced()
    assert.equal(await onServer(first, 'n'), '1')
    first.net.cut()
    await until(first, () => first.replica.status().state === 'offline')
    let isSynced = false
    const synced = second.replica.put('n', '2').then(() => second.replica.synced())
    void synced.then(() => (isSynced = true))
    const third = await openDevice(t, node, { local })
    await until(third, () => third.replica.status().state === 'waiting')
    assert.equal(isSynced, false)
    first.net.mend()
    await synced
    await third.replica.synced()
    assert.equal(await onServer(first, 'n'), '2')
    assert.equal(second.replica.status().state, 'waiting')
    await first.replica.close()
    await until([second, third], () => second.replica.status().state === 'live')
    await Promise.all([second.replica.synced(), third.replica.synced()])
  })

  it('send again what one takes back while the other deletes it', async (t) => {
    const { first, second } = await openTabs(t)
    await first.replica.put('n', '1')
    await first.replica.synced()
    const done = beforeAnswer(first, 'DELETE', () => second.replica.discard('n'))
    await first.replica.delete('n')
    await done
    await eventually(() => onServer(first, 'n'), '1')
    assert.equal(await first.read('n'), '1')
  })
})
