import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { toHandle } from '../src/handle.ts'
import {
  DAY,
  HOUR,
  MINUTE,
  count,
  outcome,
  post,
  refusalOf,
  rows,
  settled,
  sha256,
  tryLogin,
} from './helpers/ask.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

interface Listed {
  token: string
  expiration: number
  device?: string
  created: number
  used: number
  current: boolean
}

const sessionsOf = async (self: Client): Promise<Listed[]> =>
  (await (await expectStatus(await self.request('/account'), 200)).json()) as Listed[]

const end = (self: Client, handle?: string): Promise<Response> =>
  self.request(handle === undefined ? '/auth' : `/auth/${handle}`, { method: 'DELETE' })

/** Every call that needs a session, each with the status that it has for `ana` and her store `a`. */
const CALLS: [method: string, path: string, status: number, body?: string][] = [
  ['GET', '/account', 200],
  ['GET', '/store', 200],
  ['GET', '/store/a', 200],
  ['HEAD', '/store/a', 200],
  ['GET', '/store/none', 404],
  ['PUT', '/store/a', 428, 'x'],
  ['PUT', '/store/new', 201, 'x'],
  ['DELETE', '/store/a', 428],
  ['GET', '/permission/a', 200],
  ['PUT', '/permission/a', 200, '[{"user": "ana", "permission": "OWN"}]'],
  ['DELETE', '/permission/a?users=ben', 204],
  ['POST', '/password', 422, '{"password": "short", "current": "x"}'],
  ['DELETE', `/auth/${'x'.repeat(43)}`, 404],
  ['DELETE', '/account', 403],
]

describe('POST /auth', () => {
  it('opens a session beside the others', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const before = node.running.deps.clock.now()
    const response = await post(node, '/auth', { id: 'ana', password: PASSWORD, device: 'phone' })
    const opened = (await response.json()) as Record<string, string | number>
    assert.deepEqual(Object.keys(opened).sort(), ['expiration', 'token', 'user'])
    assert.equal(opened['user'], ana.user)
    assert.notEqual(opened['token'], ana.token)
    const expiration = Number(opened['expiration'])
    const after = node.running.deps.clock.now()
    assert.ok(expiration >= before + 90 * DAY && expiration <= after + 90 * DAY)
    assert.equal((await sessionsOf(ana)).length, 2)
  })

  it('refuses every wrong login with the same answer', async (t) => {
    const node = await startNode(t)
    await Promise.all(['ana', 'off', 'gone', 'new'].map((id) => node.signUp(id)))
    await rows(node, 'UPDATE sync_account SET disabled = 1 WHERE id = ?', [
      toHandle(node.running.deps, 'off'),
    ])
    // As `account add` leaves it until a password is set.
    await rows(node, `UPDATE sync_account SET password = '' WHERE id = ?`, [
      toHandle(node.running.deps, 'new'),
    ])
    const gone = await node.logIn('gone')
    await expectStatus(await gone.request('/account', { method: 'DELETE' }), 204)
    const wrong = await refusalOf(await tryLogin(node, 'ana', 'not her password'))
    assert.equal((wrong as { status: number }).status, 401)
    assert.match((wrong as { body: string }).body, /"AUTH02"/)
    for (const [id, password] of [
      ...['unknown', 'off', 'gone', 'new', '', '~ana', 'x'.repeat(400)].map((id) => [id, PASSWORD]),
      ...['', 'short', PASSWORD.toUpperCase(), 'x'.repeat(2000)].map((secret) => ['ana', secret]),
      ...[gone.user, 'new'].map((id) => [id, '']),
    ] as [string, string][]) {
      assert.deepEqual(await refusalOf(await tryLogin(node, id, password)), wrong, id)
    }
    assert.equal(await count(node, 'sync_session'), 3)
  })

  it('lets a disabled account in again when it is enabled', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await rows(node, 'UPDATE sync_account SET disabled = 1')
    await expectProblem(await tryLogin(node, 'ana'), 'AUTH02', 401)
    await rows(node, 'UPDATE sync_account SET disabled = 0')
    await expectStatus(await tryLogin(node, 'ana'), 200)
  })

  it('is refused at once when too many wait, rather than made to wait for ever', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const { passwords } = node.running.deps
    // As many as run and wait; where one ends, it begins again before anybody else comes in.
    let isOver = false
    const hashes = Array.from({ length: 18 }, async () => {
      while (!isOver) await passwords.hash(PASSWORD)
    })
    const refused = await tryLogin(node, 'ana')
    assert.match(refused.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
    await expectProblem(refused, 'ERR05', 503)
    isOver = true
    await Promise.all(hashes)
    await expectStatus(await tryLogin(node, 'ana'), 200)
  })
})

describe('a session', () => {
  it('is asked for as a Bearer token, and nothing else will do', async (t) => {
    const node = await startNode(t)
    const { token } = await node.signUp('ana')
    await expectStatus(
      await node.request('/account', { headers: { Authorization: `bearer ${token}` } }),
      200,
    )
    for (const headers of [
      {},
      { Cookie: `token=${token}; session=${token}; Authorization=Bearer ${token}` },
      ...[token, `Basic ${token}`, `Bearer ${sha256(token)}`, `Bearer ${'x'.repeat(43)}`].map(
        (Authorization) => ({ Authorization }),
      ),
      ...['Bearer', 'Bearer ', `Bearer ${token}x`, `Bearer ${token.slice(1)}`].map(
        (Authorization) => ({ Authorization }),
      ),
    ] as Record<string, string>[]) {
      const refused = await node.request('/account', { headers })
      assert.equal(refused.headers.get('www-authenticate'), 'Bearer')
      await expectProblem(refused, 'AUTH01', 401)
    }
  })

  it('is listed by a handle that is not the secret', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana', { device: 'Ana’s 💻' })
    await node.signUp('ben')
    node.advance(HOUR)
    const phone = await node.logIn('ana')
    const listed = await sessionsOf(phone)
    assert.deepEqual(
      listed.map(({ token, device, current }) => ({ token, device, current })),
      [
        { token: sha256(ana.token), device: 'Ana’s 💻', current: false },
        { token: sha256(phone.token), device: undefined, current: true },
      ],
    )
    for (const one of listed) {
      assert.equal(one.expiration, one.created + 90 * DAY)
      assert.equal(one.used, one.created)
      assert.equal('device' in one, one.device !== undefined)
    }
    assert.ok((listed[1] as Listed).created >= (listed[0] as Listed).created + HOUR)
    const bearer = { Authorization: `Bearer ${sha256(ana.token)}` }
    await expectProblem(await node.request('/account', { headers: bearer }), 'AUTH01', 401)
  })

  it('ends by DELETE /auth, and the others go on', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const phone = await node.logIn('ana')
    await expectStatus(await end(ana), 204)
    await expectProblem(await end(ana), 'AUTH01', 401)
    assert.deepEqual((await sessionsOf(phone)).length, 1)
    assert.deepEqual((await sessionsOf(ben)).length, 1)
  })

  it('ends by its handle, for its own account alone', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const phone = await node.logIn('ana')
    for (const handle of [sha256(ben.token), sha256('unknown'), ben.token, 'x', '%41']) {
      await expectProblem(await end(ana, handle), 'ERR01', 404)
    }
    assert.equal((await sessionsOf(ben)).length, 1)
    await expectStatus(await end(ana, sha256(phone.token)), 204)
    await expectProblem(await end(ana, sha256(phone.token)), 'ERR01', 404)
    await expectProblem(await phone.list().then(() => phone.request('/store')), 'AUTH01', 401)
    await expectStatus(await end(ana, sha256(ana.token)), 204)
    await expectProblem(await end(ana, sha256(ana.token)), 'AUTH01', 401)
  })

  it('has ended for every call at once, though it was used just before', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', 'x')
    const phone = await node.logIn('ana')
    assert.equal((await sessionsOf(phone)).length, 2)
    await expectStatus(await end(ana, sha256(phone.token)), 204)
    await expectEndedForAll(phone)
    assert.equal((await ana.list()).length, 1)
  })

  it('has expired for every call, though its row may still be there', async (t) => {
    const node = await startNode(t)
    for (const key of ['a', 'none']) {
      const ana = await node.signUp(key)
      if (key === 'a') await ana.save(key, 'x')
      assert.equal((await sessionsOf(ana)).length, 1)
      node.advance(90 * DAY)
      await expectEndedForAll(ana)
    }
  })

  async function expectEndedForAll(self: Client): Promise<void> {
    for (const [method, path, , body] of CALLS) {
      const refused = await self.request(path, { method, ...(body === undefined ? {} : { body }) })
      await (method === 'HEAD' ? expectStatus(refused, 401) : expectProblem(refused, 'AUTH01', 401))
    }
    await expectProblem(await self.request('/store?surplus=1'), 'AUTH01', 401)
  }

  it('lives on when the server starts again', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await node.restart()
    assert.equal((await sessionsOf(ana)).length, 1)
  })
})

describe('how long a session lives', () => {
  it('is 90 days after its last use', async (t) => {
    const node = await startNode(t)
    const [used, idle] = [await node.signUp('ana'), await node.logIn('ana')]
    await used.save('a', 'x')
    node.advance(90 * DAY - MINUTE)
    await expectStatus(await used.get('a'), 200)
    await settled(node)
    node.advance(2 * MINUTE)
    await expectProblem(await idle.get('a'), 'AUTH01', 401)
    await expectProblem(await idle.request('/account'), 'AUTH01', 401)
    const listed = await sessionsOf(used)
    assert.deepEqual(
      listed.map(({ token }) => token),
      [sha256(used.token)],
    )
    await expectProblem(await end(used, sha256(idle.token)), 'ERR01', 404)
    node.advance(90 * DAY - 3 * MINUTE)
    await expectStatus(await used.get('a'), 200)
  })

  it('is a year at most', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const [{ created }] = (await sessionsOf(ana)) as [Listed]
    for (let days = 73; days < 365; days += 73) {
      node.advance(73 * DAY)
      await expectStatus(await ana.get('none'), 404)
      await settled(node)
      const [{ expiration }] = (await sessionsOf(ana)) as [Listed]
      assert.ok(expiration <= created + 365 * DAY)
    }
    node.advance(73 * DAY - MINUTE)
    await expectStatus(await ana.get('none'), 404)
    node.advance(MINUTE)
    await expectProblem(await ana.get('none'), 'AUTH01', 401)
  })

  it('is renewed at most once a day', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const [opened] = (await sessionsOf(ana)) as [Listed]
    node.advance(DAY - MINUTE)
    await ana.get('none')
    await settled(node)
    assert.deepEqual(await sessionsOf(ana), [opened])
    node.advance(2 * MINUTE)
    await ana.get('none')
    await settled(node)
    const [renewed] = (await sessionsOf(ana)) as [Listed]
    assert.ok(renewed.used >= opened.used + DAY)
    assert.equal(renewed.expiration, renewed.used + 90 * DAY)
    assert.equal(renewed.created, opened.created)
    node.advance(DAY - MINUTE)
    await ana.get('none')
    await settled(node)
    assert.deepEqual(await sessionsOf(ana), [renewed])
  })

  for (const [method, path, status, body] of CALLS) {
    it(`is prolonged by ${method} ${path} (${status})`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      await ana.save('a', 'x')
      node.advance(2 * DAY)
      const init = { method, ...(body === undefined ? {} : { body }) }
      await expectStatus(await ana.request(path, init), status)
      await settled(node)
      const [session] = await rows(node, 'SELECT used, created FROM sync_session')
      assert.ok(Number(session?.['used']) >= Number(session?.['created']) + 2 * DAY)
    })
  }

  it('is prolonged by the first use after a start too', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const days of [40, 80, 120]) {
      node.advance(40 * DAY)
      // Writes the time down, which a start would not believe otherwise.
      await node.running.housekeep()
      await node.restart()
      await expectStatus(await ana.get('none'), 404)
      await settled(node)
      const [session] = await sessionsOf(ana)
      assert.ok(Number(session?.used) >= Number(session?.created) + days * DAY)
    }
  })

  it('ends in the database too, in the background', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    node.advance(80 * DAY)
    await node.logIn('ana')
    await node.running.housekeep()
    assert.equal(await count(node, 'sync_session'), 2)
    node.advance(11 * DAY)
    await node.running.housekeep()
    assert.equal(await count(node, 'sync_session'), 1)
  })
})

describe('the sessions of an account', () => {
  /** Opens 99 more for each account that there is, the n-th last used n minutes ago. */
  async function openMany(node: TestNode): Promise<void> {
    await rows(
      node,
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
       INSERT INTO sync_session (token, id, expiration, created, used)
       SELECT s.id || 'x' || n.i, s.id, s.expiration, s.created - ?1, s.used - ?2 * n.i
       FROM n, sync_session s WHERE true`,
      [HOUR, MINUTE],
    )
  }

  it('are 100 at most: the least used goes', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    await openMany(node)
    const [before, ofBen] = [await sessionsOf(ana), await sessionsOf(ben)]
    assert.equal(before.length, 100)
    const phone = await node.logIn('ana')
    const after = await sessionsOf(phone)
    assert.equal(after.length, 100)
    const gone = before.filter(({ token }) => !after.some((one) => one.token === token))
    assert.deepEqual(
      gone.map(({ token }) => token.split('x')[1]),
      ['99'],
    )
    assert.ok(after.some(({ current }) => current))
    assert.deepEqual(await sessionsOf(ben), ofBen)
  })

  it('are 100 at most when many open at once', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await openMany(node)
    const logins = Array.from({ length: 10 }, () => node.logIn('ana'))
    const opened = await Promise.all(logins)
    assert.equal((await sessionsOf(ana)).length, 100)
    for (const self of opened) assert.equal(await outcome(await self.request('/store')), '200')
  })
})

describe('a login beside a change of the password', () => {
  it('opens nothing with the password that was', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const { deps } = node.running
    const { random } = deps
    const changes: Promise<unknown>[] = []
    // The login has found the password right and draws its token: what is written now comes before it.
    t.mock.method(deps, 'random', (size: number) => {
      if (size === 32) changes.push(rows(node, `UPDATE sync_account SET password = 'changed'`))
      return random(size)
    })
    await expectProblem(await tryLogin(node, 'ana'), 'AUTH02', 401)
    assert.equal((await Promise.all(changes)).length, 1)
    assert.equal(await count(node, 'sync_session'), 1)
  })
})
