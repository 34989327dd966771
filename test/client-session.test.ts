// Owns that a client's calls are of the account that they began with, whoever logs in meanwhile.
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import {
  connect,
  type Client,
  type ConnectOptions,
  type Credentials,
} from '../src/client/client.ts'
import { network } from './helpers/network.ts'
import { PASSWORD, startNode } from './helpers/node.ts'

const as = (id: string): Credentials => ({ id, password: PASSWORD })

/** A client on which ana is logged in, bob's account, and a network. */
async function start(t: TestContext, o: Partial<ConnectOptions> = {}) {
  const node = await startNode(t)
  const net = network()
  const bob = connect({ url: node.url })
  await bob.register(as('bob'))
  const client = connect({ url: node.url, fetch: net.fetch, retry: { baseMs: 1 }, ...o })
  await client.register(as('ana'))
  return { node, net, client, bob }
}

/** The same, and answers to DELETE come when it is said. */
async function startLate(t: TestContext) {
  let answer = (): void => undefined
  const answered = new Promise<void>((resolve) => (answer = resolve))
  const started = await start(t, {
    async fetch(input, init) {
      const response = await fetch(input, init)
      if (init?.method === 'DELETE') await answered
      return response
    },
  })
  return { ...started, answer }
}

const namesOf = async (client: Client) => (await client.list()).stores.map(({ name }) => name)

describe('The client: another login', () => {
  it('outlives the logout before it, however late the answer comes', async (t) => {
    const { client, answer } = await startLate(t)
    const logout = client.logout()
    assert.equal(client.token, null)
    const opened = await client.login(as('bob'))
    answer()
    await logout
    assert.deepEqual([client.token, client.user], [opened.token, opened.user])
    assert.deepEqual(await namesOf(client), [])
  })

  it('outlives the deletion of the account before it', async (t) => {
    const { client, answer } = await startLate(t)
    const deletion = client.deleteAccount()
    const opened = await client.login(as('bob'))
    answer()
    await deletion
    assert.deepEqual([client.token, client.user], [opened.token, opened.user])
    await assert.rejects(client.login(as('ana')), { code: 'AUTH02' })
  })

  it('gets nothing of what the account before it was about to write', async (t) => {
    let encoding = (): void => undefined
    let encoded = (): void => undefined
    const isEncoding = new Promise<void>((resolve) => (encoding = resolve))
    const goOn = new Promise<void>((resolve) => (encoded = resolve))
    const codec = {
      decode: (bytes: Uint8Array) => bytes,
      async encode(bytes: Uint8Array) {
        encoding()
        await goOn
        return bytes
      },
    }
    const { net, client, bob } = await start(t, { codec })
    net.isDown = true
    const writes = [
      client.store('put').put('of ana'),
      client.batch([{ put: 'batch', value: 'of ana' }]),
      client.store('update').update(() => 'of ana'),
    ]
    for (const write of writes) write.catch(() => undefined)
    await isEncoding
    net.isDown = false
    await client.login(as('bob'))
    encoded()
    for (const write of writes) await assert.rejects(write, { code: 'AUTH01' })
    assert.deepEqual(await namesOf(bob), [])
  })

  const refuse = (): Response => Response.json({ code: 'AUTH01', status: 401 }, { status: 401 })
  for (const [first, answer] of [
    ['lost its connection', () => Promise.reject(new TypeError('lost'))],
    ['found its session ended', async () => refuse()],
  ] as const) {
    it(`gets nothing of a write that ${first}`, async (t) => {
      let goOn = (): void => undefined
      const isIn = new Promise<void>((resolve) => (goOn = resolve))
      let puts = 0
      const { client, bob } = await start(t, {
        async fetch(input, init) {
          if (init?.method !== 'PUT' || puts++ > 0) return fetch(input, init)
          await isIn
          return answer()
        },
        onUnauthorized: () => assert.fail('the session of bob has not ended'),
      })
      const write = client.store('todo').put('of ana')
      await client.login(as('bob'))
      goOn()
      await assert.rejects(write, { code: 'AUTH01' })
      assert.equal(puts, 1)
      assert.deepEqual(await namesOf(bob), [])
    })
  }

  it('is not followed by a feed that began before it', async (t) => {
    const { client } = await start(t, { stream: false })
    const feed = client.changes({ live: true })
    const words: string[] = []
    await assert.rejects(
      (async () => {
        for await (const { type } of feed) {
          words.push(type)
          if (words.length === 1) await client.login(as('bob'))
          if (type === 'reset') return
        }
      })(),
      { code: 'AUTH01' },
    )
    assert.deepEqual(words, ['live'])
  })

  it('that renews the session goes on with its calls', async (t) => {
    const { node, client } = await start(t)
    const told: (string | null)[] = []
    const own: Client = connect({
      url: node.url,
      token: 'x'.repeat(43),
      onUnauthorized: async () => (await own.login(as('ana'))).token,
    })
    t.mock.method(console, 'error', () => undefined)
    own.onSession(() => {
      throw new Error('a bug of the app')
    })
    const stop = own.onSession(() => told.push(own.user))
    await Promise.all([own.store('a').put('1'), own.store('b').put('2'), own.list()])
    assert.deepEqual(told, [client.user])
    await own.logout()
    stop()
    await own.login(as('bob'))
    assert.deepEqual(told, [client.user, null])
    assert.deepEqual(new Set(await namesOf(client)), new Set(['a', 'b']))
  })

  it('is known by its handle, also one that was opened elsewhere', async (t) => {
    const { node, client } = await start(t)
    const again = connect({ url: node.url, token: client.token })
    assert.equal(again.user, null)
    assert.deepEqual(
      (await again.sessions()).map(({ user }) => user),
      [client.user],
    )
    assert.equal(again.user, client.user)
  })
})
