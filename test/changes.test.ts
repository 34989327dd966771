import assert from 'node:assert/strict'
import { cpSync, rmSync } from 'node:fs'
import { describe, it, type TestContext } from 'node:test'
import type { Statement } from '../src/database/database.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { openAccounts, openSession } from './helpers/accounts.ts'
import { DAY, HOUR, sha256, settled } from './helpers/ask.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { apply, holdPoll, openStream, readAll, readPage } from './helpers/feed.ts'
import { PASSWORD, ofFile, startNode, type TestNode } from './helpers/node.ts'
import { openWire } from './helpers/wire.ts'

describe('GET /changes', () => {
  it('answers everything at first, then what changed, each key once and latest', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const saved = []
    for (let i = 0; i < 7; i++) saved.push(await ana.save(`key ${i}`, String(i)))
    const first = await readAll(ana)
    assert.deepEqual(
      first.changes.map(({ key }) => key),
      saved.map(({ key }) => key),
    )
    assert.deepEqual((await readAll(ana, first.cursor)).changes, [])
    await ana.save('key 2', 'next', { 'X-Sync-Token': saved[2]?.token as string })
    const last = await ana.save('key 2', 'last', { 'X-Sync-Token': '*', 'X-Sync-Meta': 'm' })
    await expectStatus(await ana.delete('key 5', saved[5]?.token), 204)
    const { changes } = await readAll(ana, first.cursor)
    assert.deepEqual(
      changes.map(({ key, deleted }) => [key, deleted]),
      [
        [last.key, undefined],
        [saved[5]?.key, true],
      ],
    )
    assert.equal(changes[0]?.token, last.token)
    assert.equal(changes[0]?.meta, 'm')
  })

  it('leads to the same state through whatever pages, while others write', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (let i = 0; i < 9; i++) await ana.save(`key ${i}`, 'x')
    let page = await readPage(ana, '?limit=2')
    let state = apply(page.changes)
    for (let i = 0; page.more; i++) {
      await ana.save(`key ${i}`, `again ${i}`, { 'X-Sync-Token': '*' })
      if (i === 1) await ana.delete('key 8', '*')
      if (i === 2) await ana.save('key 8', 'back')
      page = await readPage(ana, `?limit=2&since=${page.cursor}`)
      state = apply(page.changes, state)
      if (i > 50) assert.fail('never ends')
      if (i === 3) break
    }
    const rest = await readAll(ana, page.cursor)
    assert.deepEqual(apply(rest.changes, state), apply((await readAll(ana)).changes))
  })

  it('has each key once in a page, however long, while others write', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (let i = 0; i < 40; i++) await ana.save(`key ${i}`, 'x'.repeat(16_000))
    const { database } = node.running.deps
    const read = database.batch.bind(database)
    let reads = 0
    database.batch = (async (statements: Statement[], mode) => {
      const isPart = statements[0]?.sql.includes('FROM tombstone')
      // Between the parts of a page: what was in its first one is written anew.
      if (isPart && reads++ > 0) await ana.save(`key ${reads}`, 'new', { 'X-Sync-Token': '*' })
      return read(statements, mode)
    }) as typeof read
    const first = await readPage(ana, '?include=data')
    assert.ok(reads > 2)
    database.batch = read
    const keys = first.changes.map(({ key }) => key)
    assert.equal(new Set(keys).size, keys.length)
    const rest = await readAll(ana, first.cursor)
    const state = apply(rest.changes, apply(first.changes))
    assert.equal(state.size, 40)
    assert.deepEqual(state, apply((await readAll(ana)).changes))
  })

  it('ends a page at 4 MiB, wherever that is, and goes on behind it', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (let i = 0; i < 250; i++) await ana.save(`key ${i}`, 'x'.repeat(16_384))
    const first = await readPage(ana, '?include=data&limit=1000')
    const size = JSON.stringify(first.changes).length
    assert.ok(first.more && size > 4 * 1024 * 1024 && size < 4.1 * 1024 * 1024, `${size}`)
    const rest = await readPage(ana, `?include=data&limit=1000&since=${first.cursor}`)
    assert.equal(rest.more, false)
    const keys = [...first.changes, ...rest.changes].map(({ key }) => key)
    assert.deepEqual([keys.length, new Set(keys).size], [250, 250])
  })

  it('answers HEAD without a page, however long that would be', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    // One more than are read at once.
    for (let i = 0; i <= 100; i++) await ana.save(`key ${i}`, 'value')
    const wire = await openWire(t, node.port)
    const session = `Host: localhost\r\nAuthorization: Bearer ${ana.token}\r\n`
    wire.send(`HEAD /changes HTTP/1.1\r\n${session}\r\n`, `GET /info HTTP/1.1\r\n${session}\r\n`)
    const head = await wire.answer({ toHead: true })
    assert.equal(head?.status, 200)
    assert.equal(head.headers['content-type'], 'application/json')
    assert.equal((await wire.answer())?.status, 200)
  })

  it('tells grants, writes of others, changes of permission, and revocations', async (t) => {
    const node = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    let { cursor } = await readPage(bob)
    const { key, token } = await ana.save('shared', 'one')
    const steps: [() => Promise<unknown>, object][] = [
      [() => ana.grant('shared', 'bob', 'READ'), { key, permission: 'READ' }],
      [() => ana.save('shared', 'two', { 'X-Sync-Token': token }), { key, permission: 'READ' }],
      [() => ana.grant('shared', 'bob', 'OWN'), { key, permission: 'OWN' }],
      [() => ana.revoke('shared', 'bob'), { key, deleted: true }],
      [() => ana.grant('shared', 'bob', 'WRITE'), { key, permission: 'WRITE' }],
      [() => ana.delete('shared', '*'), { key, deleted: true }],
    ]
    for (const [step, expected] of steps) {
      await step()
      const page = await readPage(bob, `?since=${cursor}`)
      assert.equal(page.changes.length, 1)
      assert.partialDeepStrictEqual(page.changes[0], expected)
      ;({ cursor } = page)
    }
  })

  it('brings small values along when asked, and no large ones', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('small', 'hello')
    await ana.save('large', 'x'.repeat(20_000))
    const { changes } = await readPage(ana, '?include=data')
    assert.deepEqual(
      changes.map(({ data }) => data),
      [btoa('hello'), undefined],
    )
    assert.equal((await readPage(ana)).changes[0]?.data, undefined)
  })

  it('ends a page early at 4 MiB', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (let i = 0; i < 250; i++) await ana.save(`key ${i}`, 'x'.repeat(16_384))
    const page = await readPage(ana, '?include=data&limit=1000')
    assert.equal(page.more, true)
    const rest = await readPage(ana, `?include=data&limit=1000&since=${page.cursor}`)
    assert.equal(page.changes.length + rest.changes.length, 250)
    assert.equal(rest.more, false)
  })

  it('shows a store as deleted as soon as its only OWN has deleted the account', async (t) => {
    const node = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    const { key } = await ana.save('shared', 'one')
    await ana.grant('shared', 'bob', 'WRITE')
    const { cursor } = await readPage(bob)
    await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
    assert.deepEqual((await readPage(bob)).changes, [])
    await node.running.housekeep()
    assert.deepEqual((await readPage(bob, `?since=${cursor}`)).changes, [{ key, deleted: true }])
  })

  it('refuses parameters that it does not know', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const query of [
      '?limit=0',
      '?limit=1001',
      '?wait=51',
      '?include=all',
      '?x=1',
      '?limit=1&limit=2',
    ]) {
      await expectProblem(await ana.request(`/changes${query}`), 'REQ01', 400)
    }
  })
})

describe('A cursor', () => {
  it('is of no use to another account, or on another server, or when it is made up', async (t) => {
    const node = await startNode(t)
    const other = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    const abroad = await other.signUp('ana')
    for (const client of [ana, bob, abroad]) await client.save('a', 'x')
    const { cursor } = await readPage(ana)
    assert.match(cursor, /^[0-9a-v]{1,64}$/)
    for (const [client, since] of [
      [bob, cursor],
      [abroad, cursor],
      [ana, 'x'],
      [ana, ''],
      [ana, '0'.repeat(26)],
      [ana, 'v'.repeat(26)],
      [ana, cursor.slice(0, -1)],
    ] as const) {
      await expectProblem(await client.request(`/changes?since=${since}`), 'FEED01', 410)
    }
  })

  it('of whatever kind is no answer to a session that has ended', async (t) => {
    const node = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    await ana.save('a', 'x')
    const { cursor } = await readPage(ana)
    await expectStatus(await bob.request('/auth', { method: 'DELETE' }), 204)
    for (const since of [cursor, '0'.repeat(26), 'x']) {
      await expectProblem(await bob.request(`/changes?since=${since}`), 'AUTH01', 401)
    }
  })

  it(
    'from after the copy that was restored is refused, whatever is written then',
    ofFile,
    async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      await ana.save('before', 'x')
      const old = await readPage(ana)
      const half = await readPage(ana, '?limit=1')
      await node.stop()
      cpSync(node.root, `${node.root}.copy`, { recursive: true })
      await node.restart()
      await ana.save('lost', 'x')
      const late = await readPage(ana)
      const begun = await readPage(ana, '?limit=1')
      await node.stop()
      rmSync(node.root, { recursive: true })
      cpSync(`${node.root}.copy`, node.root, { recursive: true })
      await node.restart()
      for (let i = 0; i < 3; i++) {
        await expectProblem(await ana.request(`/changes?since=${late.cursor}`), 'FEED01', 410)
        await expectProblem(await ana.request(`/changes?since=${begun.cursor}`), 'FEED01', 410)
        for (const { cursor } of [old, half]) await readPage(ana, `?since=${cursor}`)
        await ana.save(`after ${i}`, 'x')
      }
    },
  )
})

describe('A cursor, 180 days after a deletion', () => {
  /** Deletes what `forget` does, waits until it is forgotten; answers a new session of each. */
  async function startForgetting(
    t: TestContext,
    forget: (ana: Client, bob: Client) => Promise<void>,
  ) {
    const node = await startNode(t)
    const [ana, bob, cara] = await openAccounts(node, ['ana', 'bob', 'cara'])
    for (const client of [ana, bob]) for (const key of ['a', 'b']) await client.save(key, 'x')
    await ana.grant('a', 'bob', 'READ')
    const before = {
      ana: (await readPage(ana)).cursor,
      bob: (await readPage(bob)).cursor,
      /** In the middle of a first sync. */
      half: (await readPage(ana, '?limit=1')).cursor,
    }
    await forget(ana, bob)
    const late = (await readPage(ana)).cursor
    await cara.save('later, and of no concern', 'x')
    node.advance(180 * DAY - HOUR)
    await node.running.housekeep()
    const almost = await openSession(node, ana)
    for (const since of [before.ana, before.half]) await readPage(almost, `?since=${since}`)
    node.advance(2 * HOUR)
    await node.running.housekeep()
    return {
      node,
      ana: await openSession(node, ana),
      bob: await openSession(node, bob),
      before,
      late,
    }
  }

  const deleteOne = async (ana: Client): Promise<void> => {
    await expectStatus(await ana.delete('b', '*'), 204)
  }

  it('is refused, by whatever way it reads, and everything is there to begin anew', async (t) => {
    const { ana, before, late } = await startForgetting(t, deleteOne)
    for (const since of [before.ana, before.half]) {
      for (const query of [`?since=${since}`, `?wait=50&since=${since}`]) {
        await expectProblem(await ana.request(`/changes${query}`), 'FEED01', 410)
      }
      for (const options of [
        { query: `?since=${since}` },
        { headers: { 'Last-Event-ID': since } },
      ]) {
        const stream = await openStream(ana, options)
        assert.equal((await stream.next())?.type, 'reset')
        assert.equal(await stream.next(), undefined)
        await stream.close()
      }
    }
    assert.deepEqual((await readPage(ana, `?since=${late}`)).changes, [])
    assert.deepEqual(
      apply((await readAll(ana)).changes),
      new Map((await ana.list()).map((one) => [one.key, `${one.permission} ${one.token}`])),
    )
  })

  it('lives on for an account of which nothing was forgotten', async (t) => {
    const { node, bob, before } = await startForgetting(t, deleteOne)
    assert.deepEqual((await readPage(bob, `?since=${before.bob}`)).changes, [])
    const stream = await openStream(bob, { query: `?since=${before.bob}` })
    await eventually(() => node.running.deps.listeners.count(), 1)
    const { key } = await bob.save('c', 'x')
    assert.equal((await stream.next())?.change.key, key)
    await stream.close()
  })

  it('lives on when it had seen the deletion, with those that came later', async (t) => {
    let between = ''
    const { ana, before } = await startForgetting(t, async (self) => {
      await deleteOne(self)
      between = (await readPage(self)).cursor
    })
    await expectStatus(await ana.delete('a', '*'), 204)
    const { changes } = await readPage(ana, `?since=${between}`)
    assert.deepEqual(
      changes.map(({ deleted }) => deleted),
      [true],
    )
    await expectProblem(await ana.request(`/changes?since=${before.ana}`), 'FEED01', 410)
  })

  it('lives on when the key is there again', async (t) => {
    let key = ''
    const { ana, before } = await startForgetting(t, async (self) => {
      await deleteOne(self)
      ;({ key } = await self.save('b', 'again'))
    })
    const { changes } = await readPage(ana, `?since=${before.ana}`)
    assert.deepEqual(
      changes.map((change) => [change.key, change.deleted]),
      [[key, undefined]],
    )
  })

  it('is refused after a revocation too, to whom it was revoked alone', async (t) => {
    const { ana, bob, before } = await startForgetting(t, async (self) => {
      await expectStatus(await self.revoke('a', 'bob'), 204)
    })
    await expectProblem(await bob.request(`/changes?since=${before.bob}`), 'FEED01', 410)
    await readPage(ana, `?since=${before.ana}`)
  })
})

describe('GET /changes?wait', () => {
  it('is answered when something changes', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const { cursor } = await readPage(ana)
    const held = readPage(ana, `?wait=50&since=${cursor}`)
    const { key } = await ana.save('a', 'x')
    assert.deepEqual(
      (await held).changes.map((change) => change.key),
      [key],
    )
  })

  it('is answered when the server stops', async (t) => {
    const node = await startNode(t)
    const held = readPage(await node.signUp('ana'), '?wait=50')
    await eventually(() => node.running.deps.listeners.count(), 1)
    await node.stop()
    assert.deepEqual((await held).changes, [])
  })
})

describe('GET /changes as events', () => {
  it('tells what is there, then what happens, and goes on where it was', async (t) => {
    const node = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    const one = await ana.save('one', 'x')
    const stream = await openStream(ana)
    const first = await stream.next()
    assert.equal(first?.change.key, one.key)
    const two = await bob.save('two', 'x')
    await bob.grant('two', 'ana', 'READ')
    assert.equal((await stream.next())?.change.key, two.key)
    await stream.close()
    await ana.save('three', 'x')
    const again = await openStream(ana, {
      query: `?since=${'0'.repeat(26)}`,
      headers: { 'Last-Event-ID': first?.id as string },
    })
    assert.equal((await again.next())?.change.key, two.key)
    assert.equal((await again.next())?.change.permission, 'OWN')
    await again.close()
  })

  it('says reset for a cursor that is not known', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const stream = await openStream(ana, { query: `?since=${'0'.repeat(26)}` })
    assert.equal((await stream.next())?.type, 'reset')
    assert.equal(await stream.next(), undefined)
    await stream.close()
  })

  it('ends when the server stops', async (t) => {
    const node = await startNode(t)
    const stream = await openStream(await node.signUp('ana'))
    await node.stop()
    assert.equal(await stream.next(), undefined)
    await stream.close()
  })

  it('takes 32 streams an account', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const streams = []
    for (let i = 0; i < 32; i++) streams.push(await openStream(ana))
    const refused = await ana.request('/changes', { headers: { Accept: 'text/event-stream' } })
    await expectProblem(refused, 'RATE01', 429)
    for (const stream of streams) await stream.close()
    await ana.save('a', 'x') // whoever still listens is woken, and found gone
    const stream = await openStream(ana)
    await stream.close()
  })

  it(
    'hears within two seconds what another process writes, as a held poll does',
    ofFile,
    async (t) => {
      // From here on no interval ends by itself: no heartbeat, which would find it too.
      t.mock.timers.enable({ apis: ['setInterval'] })
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const { key } = await ana.save('a', 'x')
      const stream = await openStream(ana)
      await stream.next()
      const { cursor } = await readPage(ana)
      const poll = readPage(ana, `?wait=50&since=${cursor}`)
      await eventually(() => node.running.deps.listeners.count(), 2)
      const { DatabaseSync } = await import('node:sqlite')
      const other = new DatabaseSync(`${node.root}/sync-node.db`)
      other.exec(`PRAGMA busy_timeout = 5000; UPDATE sync_store SET store_token = 'other'`)
      other.close()
      t.mock.timers.tick(2000)
      const event = await stream.next()
      assert.deepEqual([event?.change.key, event?.change.token], [key, 'other'])
      assert.equal((await poll).changes[0]?.token, 'other')
      await stream.close()
    },
  )
})

describe('What is held open ends with its session', () => {
  interface Scene {
    node: TestNode
    /** Another session of the account. */
    desk: Client
    phone: Client
  }

  const send = async (self: Client, method: string, path: string, body?: object): Promise<void> => {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) }
    await expectStatus(await self.request(path, init), 204)
  }

  const expire = async ({ node, desk }: Scene): Promise<void> => {
    node.advance(45 * DAY)
    await desk.list() // used, it lives on
    await settled(node)
    node.advance(46 * DAY)
  }

  const wanted = { password: 'another password' }
  // The last column: whether the other session lives on.
  const ends: [string, (scene: Scene) => Promise<void>, boolean][] = [
    ['by a logout', ({ phone }) => send(phone, 'DELETE', '/auth'), true],
    [
      'by its handle',
      async ({ desk, phone }) => send(desk, 'DELETE', `/auth/${sha256(phone.token)}`),
      true,
    ],
    [
      'by a change of the password',
      ({ desk }) => send(desk, 'POST', '/password', { ...wanted, current: PASSWORD }),
      true,
    ],
    [
      'by a reset of the password',
      async ({ node, desk }) => {
        await send(desk, 'POST', '/resetpassword', { id: 'ana' })
        await eventually(() => node.mails.length, 1)
        await send(desk, 'POST', '/password', { ...wanted, token: node.mails[0]?.token })
      },
      false,
    ],
    [
      'when it is the least used of 101',
      async ({ node, desk }) => {
        node.advance(DAY)
        await desk.list()
        await settled(node)
        for (let i = 0; i < 99; i++) await openSession(node, desk)
      },
      true,
    ],
    ['with its account', ({ desk }) => send(desk, 'DELETE', '/account'), false],
    [
      'by the clock, in the background',
      async (scene) => {
        await expire(scene)
        await scene.node.running.housekeep()
      },
      true,
    ],
  ]

  for (const [name, end, isOtherKept] of ends) {
    it(name, async (t) => {
      const node = await startNode(t)
      const desk = await node.signUp('ana')
      const phone = await openSession(node, desk)
      const { cursor } = await readPage(desk)
      t.mock.timers.enable({ apis: ['setInterval'] }) // a heartbeat would find it out too
      const kept = await openStream(desk)
      const stream = await openStream(phone)
      const poll = holdPoll(phone, cursor)
      await eventually(() => node.running.deps.listeners.count(), 3)
      await end({ node, desk, phone })
      await expectProblem(await poll, 'AUTH01', 401)
      assert.equal(await stream.next(), undefined)
      if (isOtherKept) {
        const { key } = await desk.save('a', 'x')
        assert.equal((await kept.next())?.change.key, key)
      } else assert.equal(await kept.next(), undefined)
      for (const one of [stream, kept]) await one.close()
      await eventually(() => node.running.deps.listeners.count(), 0)
    })
  }

  it('by the clock, at the next heartbeat', async (t) => {
    const node = await startNode(t)
    const desk = await node.signUp('ana')
    const phone = await openSession(node, desk)
    t.mock.timers.enable({ apis: ['setInterval'] })
    const stream = await openStream(phone)
    await expire({ node, desk, phone })
    t.mock.timers.tick(20_000)
    assert.equal(await stream.next(), undefined)
    await stream.close()
  })

  it('by the clock, when a poll has waited for nothing', async (t) => {
    const node = await startNode(t)
    const desk = await node.signUp('ana')
    const phone = await openSession(node, desk)
    const poll = phone.request('/changes?wait=2')
    await eventually(() => node.running.deps.listeners.count(), 1)
    await expire({ node, desk, phone })
    await expectProblem(await poll, 'AUTH01', 401)
  })
})
