import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it, type TestContext } from 'node:test'
import { buildClient } from '../scripts/client.ts'
import { connect, ConflictError, SyncError } from '../src/client/client.ts'
import type { Client, ConnectOptions, passphraseCodec } from '../src/client/client.ts'
import { network, once } from './helpers/network.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

const text = (bytes: Uint8Array | null | undefined): string =>
  new TextDecoder().decode(bytes ?? undefined)

/** A client with an account, on a network that can be broken. Its pauses are short. */
async function signUp(node: TestNode, id: string, o: Partial<ConnectOptions> = {}) {
  const net = network()
  const client = connect({ url: node.url, fetch: net.fetch, retry: { baseMs: 1 }, ...o })
  await client.register({ id, password: PASSWORD, device: `${id}'s` })
  return { client, net }
}

const another = (node: TestNode, { token }: Client, o: Partial<ConnectOptions> = {}): Client =>
  connect({ url: node.url, token, retry: { baseMs: 1 }, ...o })

async function start(t: TestContext, o: Partial<ConnectOptions> = {}) {
  const node = await startNode(t)
  return { node, ...(await signUp(node, 'ana', o)) }
}

describe('The client: accounts', () => {
  it('registers, logs in, lists and ends sessions, logs out', async (t) => {
    const { node, client } = await start(t)
    const phone = connect({ url: `${node.url}/` })
    const { user, token, expiration } = await phone.login({ id: 'ANA ', password: PASSWORD })
    assert.equal(user, client.user)
    assert.equal(token, phone.token)
    assert.ok(expiration > Date.now())
    const sessions = await client.sessions()
    assert.equal(sessions.length, 2)
    assert.equal(sessions.find(({ current }) => current)?.device, "ana's")
    await client.endSession(sessions.find(({ current }) => !current)?.token as string)
    await assert.rejects(phone.list(), { code: 'AUTH01', status: 401 })
    await phone.logout()
    assert.equal(phone.token, null)
    await client.logout()
    await client.logout()
    assert.equal(client.user, null)
    await assert.rejects(client.list(), { code: 'AUTH01' })
  })

  it('changes and resets the password, and deletes the account', async (t) => {
    const { node, client } = await start(t)
    await assert.rejects(client.changePassword({ password: 'another password', current: 'no' }), {
      code: 'AUTH02',
    })
    await client.changePassword({ password: 'another password', current: PASSWORD })
    await client.requestReset('ana')
    await assert.rejects(client.resetPassword({ password: 'third password', token: 'wrong' }), {
      code: 'AUTH02',
    })
    await client.login({ id: 'ana', password: 'another password' })
    node.advance(11 * 60_000)
    await assert.rejects(client.deleteAccount(), { code: 'AUTH03', status: 403 })
    await client.login({ id: 'ana', password: 'another password' })
    await client.deleteAccount()
    assert.equal(client.token, null)
    await assert.rejects(client.login({ id: 'ana', password: 'another password' }), {
      code: 'AUTH02',
    })
    assert.equal((await client.info()).registration, 'open')
  })

  it('asks once for a new session when several calls find that it has ended', async (t) => {
    const { node, client } = await start(t)
    const asked: string[] = []
    const other = another(node, client, {
      token: 'x'.repeat(43),
      onUnauthorized: async () => {
        asked.push('asked')
        const { token } = await connect({ url: node.url }).login({ id: 'ana', password: PASSWORD })
        return token
      },
    })
    await Promise.all([other.list(), other.store('a').put('1'), other.sessions()])
    assert.deepEqual(asked, ['asked'])
    const without = another(node, client, { token: 'x'.repeat(43), onUnauthorized: () => null })
    await assert.rejects(without.list(), { code: 'AUTH01' })
  })

  it('takes a registration whose answer was lost for what it is', async (t) => {
    const node = await startNode(t)
    const net = network()
    const client = connect({ url: node.url, fetch: net.fetch, retry: { baseMs: 1 } })
    net.loseAnswer = once((_, path) => path === '/account')
    const { user } = await client.register({ id: 'ana', password: PASSWORD })
    assert.equal(client.user, user)
    assert.deepEqual(net.asked, ['POST /account', 'POST /account', 'POST /auth'])
    const late = connect({ url: node.url, fetch: net.fetch, retry: { baseMs: 1 } })
    net.loseAnswer = once((_, path) => path === '/account')
    await assert.rejects(late.register({ id: 'ana', password: 'another one' }), { code: 'ACCT03' })
  })
})

describe('The client: stores', () => {
  it('keeps a value with its name, and tells of a conflict what is there', async (t) => {
    const { client } = await start(t)
    const name = 'notes/ä %2F/..todo?#&'
    const store = client.store(name)
    assert.equal(await store.get(), null)
    const first = await store.put('buy milk', { meta: { color: 'red' } })
    const current = await store.get()
    assert.equal(text(current?.value), 'buy milk')
    assert.deepEqual(current?.meta, { name, color: 'red' })
    assert.equal(current?.token, first.token)
    assert.equal(current?.key, first.key)
    const second = await store.put('and bread', { token: first.token })
    for (const token of [first.token, null, undefined]) {
      await assert.rejects(store.put('late', { token }), (error) => {
        assert.ok(error instanceof ConflictError && error instanceof SyncError)
        assert.equal(error.code, 'KEY01')
        assert.equal(error.status, token === undefined ? 428 : 412)
        assert.equal(text(error.current?.value), 'and bread')
        assert.equal(error.current?.token, second.token)
        return true
      })
    }
    await assert.rejects(store.delete({ token: first.token }), ConflictError)
    const { stores, used, limit } = await client.list()
    assert.deepEqual(
      stores.map((one) => [one.name, one.extra, one.size]),
      [[name, {}, 9]],
    )
    assert.equal(used, 9)
    assert.equal(limit, 1024 ** 3)
    await store.put('whatever', { token: '*' })
    await store.delete({ token: (await store.get())?.token as string })
    assert.equal(await store.get(), null)
    await assert.rejects(store.put('gone', { token: second.token }), { current: null })
    await assert.rejects(store.delete({ token: second.token }), { code: 'ERR01' })
  })

  it('refuses names that a URL would fold into other paths', async (t) => {
    const { client, net } = await start(t)
    net.asked.length = 0
    for (const name of ['', '.', '..', 'a/../b', 'a//b', '/a', 'a/', '\ud800']) {
      assert.throws(() => client.store(name), { code: 'REQ01' }, JSON.stringify(name))
    }
    assert.deepEqual(net.asked, [])
    await assert.rejects(client.store('a\nb').get(), { code: 'REQ01', status: 400 })
  })

  it('refuses a name and meta that together are longer than a server takes', async (t) => {
    const { client, net } = await start(t)
    const name = 'n'.repeat(5966)
    await client.store(name).put('fits')
    assert.deepEqual((await client.store(name).get())?.meta, { name })
    const tooLong = { code: 'REQ01', status: 400, message: /longer/ }
    net.asked.length = 0
    await assert.rejects(client.store(`${name}x`).put('1'), tooLong)
    await assert.rejects(client.batch([{ put: `${name}x`, value: '1' }]), tooLong)
    await assert.rejects(client.store('a').put('1', { meta: { a: 'x'.repeat(6000) } }), tooLong)
    assert.deepEqual(net.asked, [])
  })

  it('merges with update() until nothing is lost', async (t) => {
    const { node, client } = await start(t)
    const clients = [client, ...Array.from({ length: 4 }, () => another(node, client))]
    await Promise.all(
      clients.flatMap((one) =>
        Array.from({ length: 3 }, () =>
          one.store('counter').update((now) => String(Number(text(now)) + 1), {
            meta: { kind: 'count' },
          }),
        ),
      ),
    )
    const current = await client.store('counter').get()
    assert.equal(text(current?.value), '15')
    assert.deepEqual(current?.meta, { name: 'counter', kind: 'count' })
  })

  it('shares, lets the other write without losing the name, and lets it leave', async (t) => {
    const { node, client: ana } = await start(t)
    const { client: bob } = await signUp(node, 'bob')
    const todo = ana.store('todo')
    const { key, token } = await todo.put('milk')
    await todo.share('bob', 'WRITE')
    const theirs = bob.store(key)
    await theirs.put('milk, bread', { token })
    assert.deepEqual((await todo.get())?.meta, { name: 'todo' })
    assert.equal((await bob.list()).stores[0]?.name, 'todo')
    assert.deepEqual((await todo.members()).map(({ permission }) => permission).sort(), [
      'OWN',
      'WRITE',
    ])
    await assert.rejects(theirs.share('bob', 'OWN'), { code: 'PERM01' })
    await theirs.leave()
    assert.equal(await theirs.get(), null)
    await todo.share(bob.user as string, 'READ')
    await assert.rejects(theirs.put('no', { token: '*' }), { code: 'PERM01' })
    await todo.revoke('bob')
    assert.equal(await theirs.get(), null)
    await assert.rejects(todo.leave(), { code: 'PERM02' })
    await assert.rejects(todo.share('nobody', 'READ'), { code: 'ERR01' })
  })

  it('gives up by signal, of a call or of the client', async (t) => {
    const { node, client } = await start(t)
    const signal = AbortSignal.abort(new Error('enough'))
    for (const call of [
      () => client.list({ signal }),
      () => client.store('a').put('1', { signal }),
      () => client.store('a').update(() => '1', { signal }),
      () => client.batch([{ check: 'a', token: null }], { signal }),
      () => client.changes({ signal })[Symbol.asyncIterator]().next(),
      () => another(node, client, { signal }).list(),
    ]) {
      await assert.rejects(call(), { message: 'enough' })
    }
    const net = network()
    net.isDown = true
    const controller = new AbortController()
    const stuck = another(node, client, { fetch: net.fetch, retry: { baseMs: 1e6, attempts: 9 } })
    const call = stuck.list({ signal: controller.signal })
    controller.abort(new Error('enough'))
    await assert.rejects(call, { message: 'enough' })
  })
})

describe('The client: lost answers', () => {
  const lose = (method: string) => once((one) => one === method)

  it('knows its own write again, and no other with the same value', async (t) => {
    const { node, client, net } = await start(t)
    const store = client.store('a')
    for (const token of [undefined, '*', undefined] as const) {
      net.loseAnswer = lose('PUT')
      const written = await store.put('same', { token })
      const { token: there, key } = (await store.get()) as { token: string; key: string }
      assert.deepEqual(written, { token: there, key })
      if (token === '*') await store.delete({ token: there })
    }
    const { token } = (await store.get()) as { token: string }
    await another(node, client).store('a').put('5 to 6', { token })
    net.loseAnswer = lose('PUT')
    await assert.rejects(store.put('5 to 6', { token }), ConflictError)
  })

  it('knows its own write again, and not as what others made of it since', async (t) => {
    const { node, client, net } = await start(t)
    const other = another(node, client).store('a')
    const slow: typeof fetch = async (input, init) => {
      const answer = await net.fetch(input, init)
      if (answer.status === 412) await other.update(() => 'theirs')
      return answer
    }
    const store = another(node, client, { fetch: slow, retry: { baseMs: 1 } }).store('a')
    net.loseAnswer = lose('PUT')
    const written = await store.put('mine', { token: null })
    assert.equal(written.key, (await store.get())?.key)
    await assert.rejects(store.put('mine again', { token: written.token }), ConflictError)
  })

  it('counts a deletion that landed as done', async (t) => {
    const { client, net } = await start(t)
    const { token } = await client.store('a').put('1')
    net.loseAnswer = lose('DELETE')
    await client.store('a').delete({ token })
    await assert.rejects(client.store('a').delete({ token }), { code: 'ERR01' })
  })

  it('settles a batch by what it finds', async (t) => {
    const { client, net } = await start(t)
    const { token } = await client.store('old').put('1')
    net.loseAnswer = lose('POST')
    const operations = [
      { put: 'a', value: 'one' },
      { put: 'b', value: 'two', token: '*' },
      { delete: 'old', token },
      { check: 'none', token: null },
    ]
    await assert.rejects(client.batch(operations), { code: 'KEY01' })
    net.loseAnswer = lose('POST')
    const results = await client.batch(operations.filter((one) => one.put !== 'b'))
    assert.equal(results.length, 3)
    assert.equal(results[0]?.token, (await client.store('a').get())?.token)
    const again = (await client.store('a').get())?.token as string
    net.loseAnswer = lose('POST')
    assert.deepEqual(await client.batch([{ delete: 'a', token: again }]), [{}])
    await assert.rejects(client.batch([{ delete: 'a', token: again }]), { code: 'ERR01' })
  })

  it('sends again what a busy server refused, and waits as it says', async (t) => {
    const { client, net } = await start(t)
    const busy = (retryAfter: string) =>
      new Response(JSON.stringify({ code: 'ERR05', detail: 'busy' }), {
        status: 503,
        headers: { 'Retry-After': retryAfter },
      })
    let count = 0
    net.answer = () => (count++ < 3 ? busy('0') : undefined)
    await client.store('a').put('1')
    assert.equal(count, 4)
    net.answer = () => busy('3600')
    net.asked.length = 0
    await assert.rejects(client.list(), { code: 'ERR05', status: 503, retryAfterMs: 3_600_000 })
    assert.deepEqual(net.asked, ['GET /store'])
    net.answer = null
    net.isDown = true
    await assert.rejects(client.list(), { code: 'NETWORK', status: 0 })
  })
})

describe('The client: what is not the server', () => {
  const html = (status: number) =>
    new Response('<html>', { status, headers: { 'Content-Type': 'text/html' } })

  it('makes typed errors of what proxies and captive portals say', async (t) => {
    const { client, net } = await start(t)
    const calls = [
      () => client.list(),
      () => client.store('a').get(),
      () => client.store('a').put('1'),
      () => client.store('a').delete({ token: '0' }),
      () => client.batch([]),
      () => client.endSession('x'),
    ]
    for (const [status, code] of [
      [200, 'PROXY'],
      [403, 'PROXY'],
      [413, 'SIZE01'],
      [502, 'PROXY'],
    ] as const) {
      net.answer = () => html(status)
      for (const call of calls) await assert.rejects(call(), { name: 'SyncError', code, status })
    }
  })

  it('notices a value that arrives damaged', async (t) => {
    const { client, net } = await start(t)
    await client.store('a').put('1')
    const headers = { 'X-Sync-Token': '0', 'Repr-Digest': 'sha-256=:AAAA:' }
    net.answer = () => new Response('2', { headers })
    await assert.rejects(client.store('a').get(), { code: 'DIGEST' })
  })
})

describe('GET /client.js', () => {
  it('serves the client as a module that a browser can keep', async (t) => {
    await buildClient({ isQuiet: true })
    const node = await startNode(t)
    const response = await node.request('/client.js')
    assert.equal(response.status, 200)
    assert.match(response.headers.get('content-type') ?? '', /^text\/javascript/)
    const etag = response.headers.get('etag') as string
    const source = await response.text()
    assert.equal(source, readFileSync(new URL('../dist/client.js', import.meta.url), 'utf8'))
    const again = await node.request('/client.js', { headers: { 'If-None-Match': etag } })
    assert.equal(again.status, 304)
    const served = (await import(
      `data:text/javascript;base64,${Buffer.from(source).toString('base64')}`
    )) as { connect: typeof connect; passphraseCodec: typeof passphraseCodec }
    const codec = served.passphraseCodec('secret', { salt: 'ana', iterations: 1 })
    const client = served.connect({ url: node.url, codec })
    await client.register({ id: 'ana', password: PASSWORD })
    await client.store('a').put('built')
    assert.equal(text((await client.store('a').get())?.value), 'built')
  })
})
