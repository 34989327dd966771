// Owns what a replica makes of trouble on its way: a late feed, a store that cannot be read, a device that refuses.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { eventually } from './helpers/eventually.ts'
import { startNode } from './helpers/node.ts'
import { openDevice, toText } from './helpers/replicas.ts'

/** In the server's place: too busy, nothing happened. */
const busy = (): Response => Response.json({ code: 'ERR05', status: 503 }, { status: 503 })

describe('A replica whose feed is late', () => {
  for (const edit of ['deletion', 'edit'] as const) {
    it(`sends its ${edit} as it is, and merges it with nothing`, async (t) => {
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
