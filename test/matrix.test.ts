import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { METHODS } from 'node:http'
import { describe, it } from 'node:test'
import { routes } from '../src/http/app.ts'
import { statusOf } from '../src/http/problem.ts'
import type { ErrorCode } from '../src/errors.ts'
import { openAccount, openSession } from './helpers/accounts.ts'
import { encodeKey, type Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { raw } from './helpers/raw.ts'
import { initOf, nameOf, requestFor, targetOf, type Subject } from './helpers/requests.ts'
import { one, plant } from './helpers/rows.ts'

const CALLERS = [
  'no token',
  'garbage token',
  'expired session',
  'ended session',
  'stranger',
  'READ',
  'WRITE',
  'OWN',
  'creator',
  'revoked',
  'creator revoked, by name',
  'creator revoked, by key',
  'deleted account',
] as const

type Caller = (typeof CALLERS)[number]
/** A status of 2xx, or the code of a problem. */
type Outcome = number | ErrorCode
type Row = Record<Caller, Outcome>

const NO_SESSION: readonly Caller[] = [
  'no token',
  'garbage token',
  'expired session',
  'ended session',
  'deleted account',
]
const NO_STORE: readonly Caller[] = [
  'stranger',
  'revoked',
  'creator revoked, by name',
  'creator revoked, by key',
]

const row = (of: (caller: Caller) => Outcome): Row =>
  Object.fromEntries(CALLERS.map((caller) => [caller, of(caller)])) as Row

const anyone = (outcome: Outcome): Row => row(() => outcome)

const withSession = (outcome: Outcome): Row =>
  row((caller) => (NO_SESSION.includes(caller) ? 'AUTH01' : outcome))

const withStore = (levels: { READ: Outcome; WRITE: Outcome; OWN: Outcome }): Row =>
  row((caller) => {
    if (NO_SESSION.includes(caller)) return 'AUTH01'
    if (NO_STORE.includes(caller)) return 'ERR01'
    return levels[caller === 'creator' ? 'OWN' : (caller as 'READ' | 'WRITE' | 'OWN')]
  })

// A route that is not here fails: say first who may call it.
const EXPECTED: Record<string, Row> = {
  'POST /account': anyone(200),
  'GET /account': withSession(200),
  'DELETE /account': withSession(204),
  'POST /auth': anyone(200),
  'DELETE /auth': withSession(204),
  'DELETE /auth/{handle}': withSession(204),
  // With a wrong password: how far a session comes.
  'POST /password': withSession('AUTH02'),
  'POST /resetpassword': anyone(204),
  'GET /store': withSession(200),
  'GET /store/{key}': withStore({ READ: 200, WRITE: 200, OWN: 200 }),
  'HEAD /store/{key}': withStore({ READ: 200, WRITE: 200, OWN: 200 }),
  'PUT /store/{key}': withStore({ READ: 'PERM01', WRITE: 204, OWN: 204 }),
  'DELETE /store/{key}': withStore({ READ: 'PERM01', WRITE: 'PERM01', OWN: 204 }),
  'GET /permission/{key}': withStore({ READ: 200, WRITE: 200, OWN: 200 }),
  'PUT /permission/{key}': withStore({ READ: 'PERM01', WRITE: 'PERM01', OWN: 200 }),
  'DELETE /permission/{key}': withStore({ READ: 'PERM01', WRITE: 'PERM01', OWN: 204 }),
  'GET /changes': withSession(200),
  'POST /batch': withSession(200),
  'GET /': anyone(200),
  'GET /page.css': anyone(200),
  'GET /page.js': anyone(200),
  'GET /docs': anyone(200),
  'GET /client.js': anyone(200),
  'GET /health': anyone(200),
  'GET /info': anyone(200),
  'GET /openapi.json': anyone(200),
}

const LOGIN = 'someone with a password'
const NAME = 'notes/todo'

interface Scene {
  subject: Subject
  headers: Record<string, string>
  /** Still OWNs the store, whoever calls. */
  owner: Client
}

let scenes = 0

/** A store of its own for one call, and the one who makes it, who has used the session before. */
async function prepare(node: TestNode, caller: Caller): Promise<Scene> {
  const idOf = (name: string): string => `${name} ${scenes}`
  scenes++
  const creator = await openAccount(node, idOf('creator'))
  const owner = await openAccount(node, idOf('owner'))
  const friend = await openAccount(node, idOf('friend'))
  const { key, token } = await creator.save(NAME, 'as it was')
  await expectStatus(await creator.grant(NAME, owner.user, 'OWN'), 200)
  await expectStatus(await owner.grant(key, friend.user, 'READ'), 200)
  const self = caller.startsWith('creator') ? creator : await openAccount(node, idOf('caller'))
  await place(node, caller, { self, owner, key })
  const other = caller === 'deleted account' ? owner : await openSession(node, self)
  const isByName = caller === 'creator' || caller === 'creator revoked, by name'
  return {
    owner,
    headers: headersOf(caller, self),
    subject: {
      key: isByName ? encodeKey(NAME) : key,
      token,
      friend: friend.user,
      session: createHash('sha256').update(other.token).digest('base64url'),
      newId: idOf('new'),
      login: LOGIN,
    },
  }
}

/** Makes the caller what it is. */
async function place(
  node: TestNode,
  caller: Caller,
  { self, owner, key }: { self: Client; owner: Client; key: string },
): Promise<void> {
  const grant = async (permission: string) =>
    expectStatus(await owner.grant(key, self.user, permission), 200)
  await expectStatus(await self.request('/account'), 200)
  if (caller === 'READ' || caller === 'WRITE' || caller === 'OWN') await grant(caller)
  if (NO_SESSION.includes(caller) || caller === 'revoked') await grant('OWN')
  if (caller.includes('revoked')) await expectStatus(await owner.revoke(key, self.user), 204)
  if (caller === 'deleted account') {
    await expectStatus(await self.request('/account', { method: 'DELETE' }), 204)
  }
  if (caller === 'ended session') {
    await expectStatus(await self.request('/auth', { method: 'DELETE' }), 204)
  }
  if (caller === 'expired session') {
    await plant(node, 'UPDATE sync_session SET expiration = ? WHERE token = ?', [
      node.running.deps.clock.now(),
      createHash('sha256').update(self.token).digest('base64url'),
    ])
  }
}

function headersOf(caller: Caller, self: Client): Record<string, string> {
  if (caller === 'no token') return {}
  if (caller === 'garbage token') return { Authorization: `Bearer ${'x'.repeat(43)}` }
  return self.headers
}

/** What a store is, to see that a refusal left it alone. */
async function stateOf({ owner, subject }: Scene, node: TestNode): Promise<unknown[]> {
  const read = await node.request(`/store/${await keyOf(owner)}`, { headers: owner.headers })
  const members = await owner.request(`/permission/${await keyOf(owner)}`)
  const sessions = await one(node, 'SELECT count(*) FROM sync_session WHERE token = ?', [
    subject.session,
  ])
  return [await read.text(), read.headers.get('x-sync-token'), await members.json(), sessions]
}

const keyOf = async (owner: Client): Promise<string> => (await owner.list())[0]?.key as string

async function expectOutcome(answer: Response, outcome: Outcome, isHead: boolean): Promise<void> {
  if (typeof outcome === 'number') await expectStatus(answer, outcome)
  else if (isHead) assert.equal(answer.status, statusOf(outcome))
  else await expectProblem(answer, outcome, statusOf(outcome))
  if (isHead) assert.equal(await answer.text(), '')
  assert.equal(answer.headers.get('www-authenticate'), answer.status === 401 ? 'Bearer' : null)
}

describe('every route, for every caller', () => {
  it('has an entry here', () => {
    const expected = Object.keys(EXPECTED)
    assert.deepEqual(routes.map(nameOf).sort(), expected.sort())
  })

  it('answers as the matrix says', async (t) => {
    const node = await startNode(t)
    await node.signUp(LOGIN)
    for (const route of routes) {
      await t.test(nameOf(route), async () => {
        for (const caller of CALLERS) {
          const outcome = EXPECTED[nameOf(route)]?.[caller] as Outcome
          const scene = await prepare(node, caller)
          const before = await stateOf(scene, node)
          const request = requestFor(route, scene.subject)
          const init = initOf(route.method, request, scene.headers)
          const answer = await node.request(targetOf(request), init)
          await expectOutcome(answer, outcome, route.method === 'HEAD').catch((error: Error) => {
            throw new Error(`${caller}: ${error.message}`)
          })
          if (typeof outcome === 'string') assert.deepEqual(await stateOf(scene, node), before)
        }
      })
    }
  })

  it('answers HEAD as GET, without a body', async (t) => {
    const node = await startNode(t)
    for (const route of routes.filter(({ method }) => method === 'GET')) {
      for (const caller of CALLERS) {
        const { subject, headers } = await prepare(node, caller)
        const request = requestFor(route, subject)
        const answer = await fetch(node.url + targetOf(request), { method: 'HEAD', headers })
        await expectOutcome(answer, EXPECTED[nameOf(route)]?.[caller] as Outcome, true)
      }
    }
  })

  it('takes the token in the one form there is', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const answer = await node.request('/account', {
      headers: { Authorization: `bearer ${ana.token}` },
    })
    await expectStatus(answer, 200)
    for (const Authorization of [
      ana.token,
      'Bearer',
      `Bearer ${ana.token}x`,
      `Bearer ${ana.token.slice(1)}`,
      `Bearer ${ana.token} ${ana.token}`,
      `Basic ${ana.token}`,
      `Token ${ana.token}`,
      `Bearer ${createHash('sha256').update(ana.token).digest('base64url')}`,
    ]) {
      const refused = await node.request('/account', { headers: { Authorization } })
      await expectProblem(refused, 'AUTH01', 401)
    }
    const cookie = { Cookie: `token=${ana.token}; session=${ana.token}` }
    await expectProblem(await node.request('/account', { headers: cookie }), 'AUTH01', 401)
    const lowerKeys = await node.request(`/account?token=${ana.token}`)
    await expectProblem(lowerKeys, 'AUTH01', 401)
  })
})

describe('a method that a path does not take', () => {
  // Some well-formed path of each template.
  const paths = [...new Set(routes.map(({ path }) => path))].map((template) => ({
    template,
    path: template.replace('{key}', 'a').replace('{handle}', 'x'.repeat(43)),
  }))

  const allowedOf = (template: string): string[] => {
    const taken = routes.filter(({ path }) => path === template).map(({ method }) => method)
    return [...new Set([...taken, ...(taken.includes('GET') ? ['HEAD'] : []), 'OPTIONS'])].sort()
  }

  const expectNotAllowed = async (answer: Response, allowed: string[], why: string) => {
    assert.equal(answer.status, 405, why)
    const allow = answer.headers.get('allow') ?? ''
    assert.deepEqual(allow.split(/, */).sort(), allowed, why)
    assert.equal(answer.headers.get('access-control-allow-origin'), '*', why)
    assert.equal(answer.headers.get('cache-control'), 'no-store', why)
  }

  it('is 405, and Allow names those that it takes', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const methods = METHODS.filter((method) => !['CONNECT', 'TRACE', 'OPTIONS'].includes(method))
    for (const { template, path } of paths) {
      const allowed = allowedOf(template)
      for (const method of methods.filter((one) => !allowed.includes(one))) {
        for (const headers of [{}, ana.headers]) {
          const answer = await node.request(path, { method, headers })
          await expectNotAllowed(answer, allowed, `${method} ${path}`)
          if (method !== 'HEAD') await expectProblem(answer, 'ERR03', 405)
        }
      }
    }
    assert.deepEqual(await ana.list(), [])
  })

  it('is 405 for TRACE and CONNECT too, which no path takes', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const all = ['DELETE', 'GET', 'HEAD', 'OPTIONS', 'POST', 'PUT']
    const secret = `Authorization: Bearer ${ana.token}`
    for (const line of [
      'TRACE / HTTP/1.1',
      'TRACE /store/a HTTP/1.1',
      'CONNECT localhost:80 HTTP/1.1',
    ]) {
      const answer = await raw(t, node, [line, secret])
      assert.ok(!(await answer.clone().text()).includes(ana.token))
      await expectNotAllowed(answer, all, line)
      await expectProblem(answer, 'ERR03', 405)
    }
  })

  it('that is not of HTTP is a problem all the same', async (t) => {
    const node = await startNode(t)
    for (const method of ['TRACK', 'FOO', 'get', 'G=T', 'PUTT']) {
      await expectProblem(await raw(t, node, [`${method} /store/a HTTP/1.1`]), 'REQ01', 400)
    }
  })

  it('on a path that there is not is 404', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const path of [
      '/nothing',
      '/stores',
      '/store%2Fa',
      '/Store/a',
      '/permissions/a',
      '/account/',
      '/account/x',
      '/auth/',
      '/auth/x/y',
      '/health/',
      '/openapi.jso',
      '//store/a',
      '/.well-known/x',
    ]) {
      for (const method of ['GET', 'PUT', 'POST', 'DELETE', 'PATCH']) {
        for (const headers of [{}, ana.headers]) {
          const answer = await node.request(path, { method, headers })
          assert.equal(answer.status, 404, `${method} ${path}`)
          await expectProblem(answer, 'ERR01', 404)
        }
      }
    }
  })

  it('on a path that lacks its key, slash and all, is 404', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const headers of [{}, ana.headers]) {
      for (const method of ['GET', 'PUT', 'DELETE', 'PATCH']) {
        const answer = await fetch(`${node.url}/permission`, { method, headers })
        await expectProblem(answer, 'ERR01', 404)
      }
    }
  })
})
