import assert from 'node:assert/strict'
import { argon2Sync } from 'node:crypto'
import { readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import {
  DAY,
  MINUTE,
  count,
  from,
  outcome,
  outcomes,
  post,
  rows,
  sha256,
  tryLogin,
} from './helpers/ask.ts'
import { encodeKey, type Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'
import { blobFiles, graceOf } from './helpers/rows.ts'
import { readPage } from './helpers/feed.ts'
import { startReal } from './helpers/real.ts'

const LARGE = 40_000

const register = (node: TestNode, id: string, password = PASSWORD): Promise<Response> =>
  post(node, '/account', { id, password })

describe('POST /account', () => {
  it('creates an account and a first session', async (t) => {
    const node = await startNode(t)
    const before = node.running.deps.clock.now()
    const response = await post(node, '/account', { id: 'ana', password: PASSWORD, device: 'desk' })
    const after = node.running.deps.clock.now()
    await expectStatus(response, 200)
    assert.equal(response.headers.get('cache-control'), 'no-store')
    const opened = (await response.json()) as Record<string, string | number>
    assert.deepEqual(Object.keys(opened).sort(), ['expiration', 'token', 'user'])
    assert.match(String(opened['user']), /^~[\w-]{43}$/)
    const expiration = Number(opened['expiration'])
    assert.ok(expiration >= before + 90 * DAY && expiration <= after + 90 * DAY)
    const headers = { Authorization: `Bearer ${opened['token']}` }
    const sessions = (await (await node.request('/account', { headers })).json()) as object[]
    assert.equal(sessions.length, 1)
    assert.equal((sessions[0] as { device: string }).device, 'desk')
    assert.equal((await node.logIn('ana')).user, opened['user'])
  })

  it('takes an id as the same whatever its case, width and outer blanks', async (t) => {
    const node = await startNode(t)
    const { user } = await node.signUp('  Ana@Example.ORG ')
    for (const same of ['ana@example.org', 'ＡＮＡ＠example.org', '\u00a0ANA@example.org\n']) {
      assert.equal((await node.logIn(same)).user, user, same)
      await expectProblem(await register(node, same), 'ACCT03', 409)
    }
    const other = await node.signUp('aná@example.org')
    assert.notEqual(other.user, user)
    assert.equal((await node.logIn('ANA\u0301@example.org')).user, other.user)
  })

  it('refuses an id that is empty, longer than 320 characters, or a handle', async (t) => {
    const node = await startNode(t)
    for (const id of ['', ' \t ', 'x'.repeat(321), 'ﬀ'.repeat(161), '~ana', ' ~ana', '～ana']) {
      const { detail } = await expectProblem(await register(node, id), 'ACCT02', 422)
      assert.match(String(detail), /\bid\b/)
    }
    // Each is 1 or 320 characters after NFKC.
    for (const id of ['a', ` ${'x'.repeat(320)} `, '😀'.repeat(320), 'ﬀ'.repeat(160)]) {
      await expectStatus(await register(node, id), 200)
    }
  })

  it('refuses a password that is too short or too long after NFKC', async (t) => {
    const node = await startNode(t)
    const bad = ['', 'seven 7', '😀'.repeat(7), 'e\u0301'.repeat(7), 'ﬁﬁﬁa', 'x'.repeat(1025)]
    for (const password of [...bad, 'ﷺ'.repeat(57)]) {
      const refused = await register(node, 'ana', password)
      assert.match(String((await expectProblem(refused, 'ACCT02', 422))['detail']), /password/)
    }
    const good = ['eight888', '😀'.repeat(8), 'e\u0301'.repeat(8), 'ﬁﬁﬁﬁ', 'x'.repeat(1024)]
    for (const [i, password] of good.entries()) {
      await expectStatus(await register(node, `user ${i}`, password), 200)
    }
  })

  it('refuses the id as a password, however it is written', async (t) => {
    const node = await startNode(t)
    for (const password of ['anna@example.org', 'ANNA@example.org', ' ａnna@example.org ']) {
      const refused = await register(node, 'Anna@Example.org', password)
      assert.match(String((await expectProblem(refused, 'ACCT02', 422))['detail']), /password.*id/)
    }
    await expectStatus(await register(node, 'anna@example.org', 'anna@example.org!'), 200)
  })

  it('takes a password as the same in every Unicode form', async (t) => {
    const node = await startNode(t)
    await expectStatus(await register(node, 'ana', 'pässword ﬁne'), 200)
    await expectStatus(await tryLogin(node, 'ana', 'pa\u0308ssword fine'), 200)
    for (const other of ['passwörd fine', 'PÄSSWORD FINE', ' pässword fine']) {
      await expectProblem(await tryLogin(node, 'ana', other), 'AUTH02', 401)
    }
  })

  it('gives an id to one of many who ask at once', async (t) => {
    const node = await startNode(t)
    const ids = ['ana', 'ANA', ' ana', 'ana ', 'aNa']
    const answers = await outcomes(ids.map((id) => register(node, id)))
    assert.deepEqual(answers.sort(), ['200', ...Array<string>(4).fill('409 ACCT03')])
    assert.equal(await count(node, 'sync_account'), 1)
    assert.equal(await count(node, 'sync_session'), 1)
  })

  it('is refused on a disk that is nearly full, where logins and deletions go on', async (t) => {
    const roomy = await startNode(t)
    const ana = await roomy.signUp('ana')
    await roomy.stop()
    const node = await startNode(t, {}, { root: roomy.root, floorBytes: Number.MAX_SAFE_INTEGER })
    await expectProblem(await register(node, 'ben'), 'SIZE03', 507)
    const again = await node.logIn('ana')
    const sessions = await again.request(`/auth/${sha256(ana.token)}`, { method: 'DELETE' })
    await expectStatus(sessions, 204)
    await expectStatus(await again.request('/account', { method: 'DELETE' }), 204)
  })

  it('takes no more than 64 KiB of JSON', async (t) => {
    const node = await startNode(t)
    const refused = await register(node, 'ana', 'x'.repeat(70_000))
    await expectProblem(refused, 'SIZE01', 413)
  })
})

describe('what the server keeps of names and secrets', () => {
  it('keeps a password as an Argon2id PHC string', async (t) => {
    const node = await startNode(t)
    await Promise.all([register(node, 'ana', 'pa\u0308ssword'), register(node, 'ben', 'pässword')])
    const stored = await rows(node, 'SELECT password FROM sync_account')
    const phcs = stored.map((row) => String(row['password']))
    assert.notEqual(phcs[0], phcs[1], 'each has its own salt')
    for (const phc of phcs) {
      const match = /^\$argon2id\$v=19\$m=19456,t=2,p=1\$([\w+/]{22})\$([\w+/]{43})$/.exec(phc)
      assert.ok(match, phc)
      const tag = argon2Sync('argon2id', {
        message: 'pässword',
        nonce: Buffer.from(match[1] as string, 'base64'),
        memory: 19456,
        passes: 2,
        parallelism: 1,
        tagLength: 32,
      })
      assert.equal(tag.toString('base64').replace('=', ''), match[2])
    }
  })

  it('keeps an id as its HMAC under the secret of this server', async (t) => {
    const [SECRET_KEY, other] = ['k'.repeat(40), 'l'.repeat(40)]
    const nodes = await Promise.all(
      [{ SECRET_KEY }, { SECRET_KEY }, { SECRET_KEY: other }, {}, {}].map((environment) =>
        startNode(t, environment),
      ),
    )
    const users = (await Promise.all(nodes.map((node) => node.signUp('ana')))).map(
      ({ user }) => user,
    )
    assert.equal(users[0], users[1])
    assert.equal(new Set(users).size, 4)
    const [row] = await rows(nodes[0] as TestNode, 'SELECT id FROM sync_account')
    assert.equal(row?.['id'], users[0])
  })

  it('keeps a session token as its SHA-256 only', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const [row] = await rows(node, 'SELECT token FROM sync_session')
    assert.equal(row?.['token'], sha256(ana.token))
  })

  it('writes no id, key name, password or token to its files or log', async (t) => {
    const node = await startReal(t)
    const plain = await leaveTraces(node)
    await node.stop()
    const files = readdirSync(node.root, { recursive: true, encoding: 'utf8' })
      .map((name) => join(node.root, name))
      .filter((path) => statSync(path).isFile())
    const kept = files.map((path) => [path, readFileSync(path)] as const)
    assert.ok(kept.some(([path]) => path.endsWith('sync-node.db')))
    for (const secret of plain) {
      for (const [path, bytes] of kept) {
        assert.ok(!bytes.includes(secret), `${secret} is in ${path}`)
        assert.ok(!bytes.includes(Buffer.from(secret, 'utf16le')), `${secret} is in ${path}`)
      }
      assert.ok(!node.log.join('').includes(secret), `${secret} is in the log`)
    }
  })
})

/** Does what an account does, rightly and wrongly; answers the names and secrets it used. */
async function leaveTraces(node: Awaited<ReturnType<typeof startReal>>): Promise<string[]> {
  const { post: send } = node
  const ana = await node.signUp('ana.plain@example.org')
  const ben = await node.signUp('ben-plain')
  const headers = { Authorization: `Bearer ${ana.token}` }
  const ask = (method: string, path: string, body?: string): Promise<Response> =>
    fetch(node.url + path, { method, headers, ...(body === undefined ? {} : { body }) })
  await expectStatus(await ask('PUT', '/store/diary%20of%20ana', 'x'), 201)
  const grant = JSON.stringify([{ user: 'ben-plain', permission: 'READ' }])
  await expectStatus(await ask('PUT', '/permission/diary%20of%20ana', grant), 200)
  await send('/auth', { id: 'unknown-plain', password: 'a wrong password' })
  await send('/resetpassword', { id: 'ana.plain@example.org' })
  await send('/auth', '{"id": "broken-plain"')
  await expectStatus(await ask('DELETE', '/permission/diary%20of%20ana?users=ben-plain'), 204)
  await expectStatus(await ask('DELETE', '/account'), 204)
  await node.running.housekeep()
  return [
    'ana.plain',
    'ben-plain',
    'unknown-plain',
    'broken-plain',
    'diary of ana',
    'diary%20of%20ana',
    'a wrong password',
    PASSWORD,
    ana.token,
    ben.token,
  ]
}

describe('malformed requests about accounts', () => {
  const valid: Record<string, Record<string, string>> = {
    '/account': { id: 'ana', password: PASSWORD, device: 'desk', invitation: 'x' },
    '/auth': { id: 'ana', password: PASSWORD, device: 'desk' },
    '/password': { password: PASSWORD, current: PASSWORD },
    '/password ': { password: PASSWORD, token: 'x' },
    '/resetpassword': { id: 'ana' },
  }
  const optional = new Set(['device', 'invitation'])

  for (const [name, body] of Object.entries(valid)) {
    it(`are REQ01: POST ${name.trim()} with ${Object.keys(body).join(', ')}`, async (t) => {
      const node = await startNode(t)
      for (const wrong of malformedFrom(body)) {
        const refused = await post(node, name.trim(), wrong)
        const { detail } = await expectProblem(refused, 'REQ01', 400)
        assert.ok(!String(detail).includes('surplus'), 'a refusal echoes nothing')
      }
      for (const query of ['?surplus=1', '?__proto__=1', '?id=ana', '?=', '?%ff=1', '?%']) {
        await expectProblem(await post(node, name.trim() + query, body), 'REQ01', 400)
      }
      assert.equal(await count(node, 'sync_account'), 0)
    })
  }

  function malformedFrom(body: Record<string, string>): string[] {
    const text = JSON.stringify(body)
    const unknown = ['surplus', '__proto__', 'constructor', 'toString', 'hasOwnProperty', '', 'Id']
    const values = ['null', '1', 'true', '[]', '{}', '["ana"]', '"\\ud800"', '"a\\udfffb"']
    const replace = (member: string, value: string): string =>
      `{${Object.entries(body)
        .map(([name, usual]) => `"${name}": ${name === member ? value : JSON.stringify(usual)}`)
        .join()}}`
    const without = (member: string): string =>
      JSON.stringify({ ...body, [member]: undefined }) as string
    return [
      '',
      'null',
      '1',
      '"x"',
      '[]',
      `[${text}]`,
      '{}',
      text.slice(1),
      `${text} x`,
      '{id: 1}',
      ...unknown.map((member) => `${text.slice(0, -1)}, "${member}": "x"}`),
      ...Object.keys(body).flatMap((member) => values.map((value) => replace(member, value))),
      ...Object.keys(body)
        .filter((member) => !optional.has(member))
        .map(without),
      ...('device' in body ? [replace('device', '""'), replace('device', text101())] : []),
    ]
  }

  const text101 = (): string => JSON.stringify('😀'.repeat(101))

  it('are REQ01 when not UTF-8, and JSON whatever the Content-Type', async (t) => {
    const node = await startNode(t)
    const bytes = Buffer.from(JSON.stringify({ id: 'an\u00e9', password: PASSWORD }), 'latin1')
    const refused = await node.request('/account', { method: 'POST', body: bytes })
    await expectProblem(refused, 'REQ01', 400)
    const body = { id: 'ana', password: PASSWORD, device: '😀'.repeat(100) }
    for (const type of ['application/json', 'text/plain', 'application/octet-stream']) {
      const response = await post(node, '/account', { ...body, id: type }, { 'Content-Type': type })
      await expectStatus(response, 200)
    }
  })

  it('are REQ01: query parameters on the calls of a session', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const [method, path] of [
      ['GET', '/account'],
      ['DELETE', '/account'],
      ['DELETE', '/auth'],
      ['DELETE', `/auth/${sha256(ana.token)}`],
    ] as const) {
      for (const query of ['?surplus', '?__proto__=1', '?constructor=1', '?token=x']) {
        await expectProblem(await ana.request(path + query, { method }), 'REQ01', 400)
      }
    }
    await expectStatus(await ana.request('/account'), 200)
  })
})

describe('DELETE /account', () => {
  const remove = (self: Client): Promise<Response> => self.request('/account', { method: 'DELETE' })

  it('ends the account and all its sessions', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const phone = await node.logIn('ana')
    await phone.list()
    await expectStatus(await remove(ana), 204)
    for (const self of [ana, phone]) {
      await expectProblem(await remove(self), 'AUTH01', 401)
      await expectProblem(await self.request('/store'), 'AUTH01', 401)
      await expectProblem(await self.put('a', 'x'), 'AUTH01', 401)
    }
    await expectProblem(await tryLogin(node, 'ana'), 'AUTH02', 401)
  })

  it('needs a session that was opened in the last 10 minutes', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', 'kept')
    node.advance(10 * MINUTE)
    await expectProblem(await remove(ana), 'AUTH03', 403)
    assert.equal(await (await ana.get('a')).text(), 'kept')
    const fresh = await node.logIn('ana')
    await expectProblem(await remove(ana), 'AUTH03', 403)
    node.advance(9 * MINUTE)
    await expectStatus(await remove(fresh), 204)
  })

  it('is at once seen by everyone: its stores, permissions and handle are gone', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const keys: string[] = []
    for (const permission of ['READ', 'WRITE', 'OWN']) {
      keys.push((await ana.save(permission, permission)).key)
      await expectStatus(await ana.grant(permission, 'ben', permission), 200)
    }
    await ben.save('of ben', 'x')
    await expectStatus(await ben.grant('of ben', 'ana', 'READ'), 200)
    await expectStatus(await remove(ana), 204)
    for (const key of keys.slice(0, 2)) await expectNothing(ben, key)
    const [, , both = ''] = keys
    assert.equal(await (await ben.get(both)).text(), 'OWN')
    for (const key of [both, 'of ben']) assert.deepEqual(await membersOf(ben, key), [ben.user])
    assert.deepEqual((await ben.list()).map(({ key }) => key).includes(both), true)
    assert.equal((await ben.list()).length, 2)
    for (const user of ['ana', ana.user]) {
      await expectProblem(await ben.grant('of ben', user, 'READ'), 'ERR01', 404)
      await expectStatus(await ben.revoke('of ben', user), 204)
    }
  })

  async function expectNothing(self: Client, key: string): Promise<void> {
    const path = encodeKey(key)
    for (const [method, at] of [
      ['GET', `/store/${path}`],
      ['DELETE', `/store/${path}`],
      ['GET', `/permission/${path}`],
      ['DELETE', `/permission/${path}?users=${self.user}`],
    ] as const) {
      await expectProblem(await self.request(at, { method }), 'ERR01', 404)
    }
    await expectStatus(await self.head(key), 404)
    await expectProblem(await self.put(key, 'x', { 'X-Sync-Token': '*' }), 'ERR01', 404)
    await expectProblem(await self.put(key, 'x'), 'ERR01', 404)
    await expectProblem(await self.grant(key, self.user, 'READ'), 'ERR01', 404)
  }

  async function membersOf(self: Client, key: string): Promise<string[]> {
    const answer = await expectStatus(await self.request(`/permission/${encodeKey(key)}`), 200)
    return ((await answer.json()) as { user: string }[]).map(({ user }) => user)
  }

  it('leaves no store without a living OWN, and no room in a quota that is gone', async (t) => {
    const node = await startNode(t, { QUOTA: '1000' })
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const { key } = await ana.save('both', 'x'.repeat(500))
    await expectStatus(await ana.grant('both', 'ben', 'OWN'), 200)
    await ben.save('alone', 'x'.repeat(500))
    const grow = (): Promise<Response> => ben.put(key, 'x'.repeat(600), { 'X-Sync-Token': '*' })
    await expectStatus(await grow(), 204)
    await expectStatus(await ben.put(key, 'x'.repeat(500), { 'X-Sync-Token': '*' }), 204)
    await expectStatus(await remove(ana), 204)
    for (const _ of ['before its rows go', 'after']) {
      await expectProblem(await grow(), 'SIZE02', 507)
      await expectProblem(await ben.grant(key, 'ben', 'READ'), 'PERM02', 409)
      await expectProblem(await ben.revoke(key, 'ben'), 'PERM02', 409)
      await node.running.housekeep()
    }
  })

  it('frees the id at once for an account that sees nothing of the old one', async (t) => {
    const node = await startNode(t)
    const [old, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const { key } = await old.save('diary', 'old')
    await old.grant('diary', 'ben', 'OWN')
    const shared = await ben.save('of ben', 'x')
    await ben.grant('of ben', 'ana', 'OWN')
    await expectStatus(await remove(old), 204)
    await expectStatus(await register(node, 'ana', 'another password'), 200)
    const anew = await node.logIn('ana', { password: 'another password' })
    assert.equal(anew.user, old.user)
    await expectProblem(await tryLogin(node, 'ana'), 'AUTH02', 401)
    await expectProblem(await old.request('/account'), 'AUTH01', 401)
    for (const _ of ['before its rows go', 'after']) {
      assert.deepEqual((await anew.list()).length, 0)
      for (const name of ['diary', key, shared.key]) await expectStatus(await anew.get(name), 404)
      assert.deepEqual(await membersOf(ben, key), [ben.user])
      await node.running.housekeep()
    }
    const listed = await anew.request('/store')
    assert.equal(listed.headers.get('x-sync-quota-used'), '0')
    const made = await expectStatus(await anew.put('diary', 'new'), 201)
    assert.notEqual(made.headers.get('x-sync-key'), key)
    assert.equal(await (await ben.get(key)).text(), 'old')
  })

  it('lets its remnants go in the background, and nothing of others', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    await fill(ana, ben)
    await expectStatus(await post(node, '/resetpassword', { id: 'ana' }), 204)
    await eventually(() => node.mails.length, 1)
    const [dead] = await rows(node, 'SELECT number FROM sync_account WHERE id = ?', [ana.user])
    await expectStatus(await remove(ana), 204)
    const anew = await node.signUp('ana')
    await anew.save('1', 'of the new account')
    await node.running.housekeep()
    await node.running.housekeep()
    const number = Number(dead?.['number'])
    assert.equal(await count(node, 'sync_account WHERE number = ? OR dead = 1', [number]), 0)
    for (const [table, column] of OF_ACCOUNT) {
      assert.equal(await count(node, `${table} WHERE ${column} = ?`, [number]), 0, table)
    }
    assert.equal((await ben.list()).length, 2)
    assert.equal(await count(node, 'sync_store'), 3)
    assert.equal(await count(node, 'account_permission'), 3)
    assert.equal(await count(node, 'store_data'), 2)
    assert.equal(await (await anew.get('1')).text(), 'of the new account')
    assert.equal(blobFiles(node).length, 4)
    node.advance(graceOf(node))
    await node.running.housekeep()
    await node.running.housekeep() // what was superseded since a round has its grace from that on
    assert.equal(blobFiles(node).length, 1)
    assert.equal(await count(node, 'blob_garbage'), 0)
  })

  it('takes from others first what they could read, however much there is besides', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const keys = new Map<string, string>()
    for (let i = 0; i < 60; i++) keys.set((await ana.save(String(i), '')).key, String(i))
    const last = [...keys.keys()].toSorted().at(-1) as string
    await expectStatus(await ana.grant(keys.get(last) as string, 'ben', 'READ'), 200)
    const { cursor } = await readPage(ben)
    await expectStatus(await remove(ana), 204)
    const { database } = node.running.deps
    const { batch } = database
    let heard: object[] | null = null
    database.batch = async (...given) => {
      if (JSON.stringify(given).includes('DELETE FROM sync_store')) {
        heard ??= (await readPage(ben, `?since=${cursor}`)).changes
      }
      return batch(...given)
    }
    await node.running.housekeep()
    assert.deepEqual(heard, [{ key: last, deleted: true }])
  })

  it('takes nothing with it that was made anew under a name that died with it', async (t) => {
    for (const slice of [0, 1]) {
      const node = await startNode(t)
      const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
      const { key } = await ana.save('handed over', 'old')
      await ana.grant('handed over', 'ben', 'OWN')
      await ana.revoke('handed over', ana.user)
      await expectStatus(await remove(ben), 204)
      const { database } = node.running.deps
      const { batch } = database
      let slices = 0
      database.batch = async (...given) => {
        const isBurial = JSON.stringify(given).includes('DELETE FROM account_permission')
        if (isBurial && slices++ === slice) {
          assert.equal((await ana.save('handed over', 'new')).key, key)
        }
        return batch(...given)
      }
      await node.running.housekeep()
      assert.ok(slices > slice)
      assert.equal(await (await ana.get('handed over')).text(), 'new')
      assert.equal((await ana.list()).length, 1)
    }
  })

  const OF_ACCOUNT = [
    ['sync_session', 'id'],
    ['password_reset_token', 'id'],
    ['account_permission', 'sync_account_id'],
    ['tombstone', 'sync_account_id'],
    ['account_grant', 'sync_account_id'],
    ['account_grant', 'grantee'],
  ] as const

  /** Of ana 110 small and 3 large stores, 60 read by ben, 1 (large) owned by both; of ben 1. */
  async function fill(ana: Client, ben: Client): Promise<void> {
    for (let i = 0; i < 110; i++) await ana.save(String(i), 'small')
    for (const key of ['large', 'larger', 'both', 'gone']) await ana.save(key, 'x'.repeat(LARGE))
    for (let i = 0; i < 60; i++) await expectStatus(await ana.grant(String(i), 'ben', 'READ'), 200)
    await expectStatus(await ana.grant('both', 'ben', 'OWN'), 200)
    await expectStatus(await ana.delete('gone', '*'), 204)
    await ben.save('of ben', 'small')
    await expectStatus(await ben.grant('of ben', 'ana', 'WRITE'), 200)
  }

  it('happens once when asked many times at once', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const answers = await outcomes(Array.from({ length: 5 }, () => remove(ana)))
    assert.deepEqual(answers.sort(), ['204', ...Array<string>(4).fill('401 AUTH01')])
    await expectStatus(await register(node, 'ana'), 200)
  })
})

describe('the other methods of the account paths', () => {
  it('are ERR03 with Allow', async (t) => {
    const node = await startNode(t)
    for (const [method, path, allow] of [
      ['PUT', '/account', 'POST, GET, HEAD, DELETE, OPTIONS'],
      ['GET', '/auth', 'POST, DELETE, OPTIONS'],
      ['GET', '/auth/x', 'DELETE, OPTIONS'],
      ['GET', '/password', 'POST, OPTIONS'],
      ['DELETE', '/resetpassword', 'POST, OPTIONS'],
    ] as const) {
      const refused = await node.request(path, { method, headers: from('192.0.2.1') })
      assert.equal(refused.headers.get('allow'), allow)
      assert.equal(await outcome(refused), '405 ERR03')
    }
  })
})
