import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { openAccount, openAccounts } from './helpers/accounts.ts'
import { encodeKey, type Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { one, plant, rows } from './helpers/rows.ts'

const OTHER = '0123456789abcdefghijklmnop'
const HOUR_MS = 3_600_000

interface Member {
  user: string
  permission: string
  current: boolean
}

interface Scene {
  node: TestNode
  ana: Client
  ben: Client
  cara: Client
  /** Ana's. */
  key: string
  token: string
}

async function startWithStore(t: TestContext): Promise<Scene> {
  const node = await startNode(t)
  const [ana, ben, cara] = await openAccounts(node, ['ana', 'ben', 'cara'])
  return { node, ana, ben, cara, ...(await ana.save('a', 'one')) }
}

const grantAll = (
  self: Client,
  key: string,
  grants: { user: string; permission: string }[],
): Promise<Response> =>
  self.request(`/permission/${encodeKey(key)}`, { method: 'PUT', body: JSON.stringify(grants) })

async function grant(self: Client, key: string, user: Client, permission: string): Promise<void> {
  await expectStatus(await self.grant(key, user.user, permission), 200)
}

async function revoke(self: Client, key: string, ...users: Client[]): Promise<void> {
  await expectStatus(await self.revoke(key, ...users.map(({ user }) => user)), 204)
}

async function membersOf(self: Client, key: string): Promise<Member[]> {
  const answer = await expectStatus(await self.request(`/permission/${encodeKey(key)}`), 200)
  return (await answer.json()) as Member[]
}

/** Who has what, by id. */
async function permissionsOf(self: Client, key: string, people: Client[]): Promise<object> {
  const members = await membersOf(self, key)
  const idOf = (handle: string): string => people.find(({ user }) => user === handle)?.id ?? handle
  return Object.fromEntries(members.map(({ user, permission }) => [idOf(user), permission]))
}

describe('PUT /permission/{key}', () => {
  it('grants by id and by handle, changes, and answers in the order sent', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    const expectMembers = async (self: Client, ...levels: string[]): Promise<void> => {
      const [anas, bens, caras] = levels
      const expected = { ana: anas, ben: bens, cara: caras }
      assert.deepEqual(await permissionsOf(self, key, [ana, ben, cara]), expected)
    }
    const granted = await grantAll(ana, 'a', [
      { user: cara.user, permission: 'WRITE' },
      { user: 'BEN ', permission: 'READ' },
    ])
    assert.deepEqual(await granted.json(), [
      { user: cara.user, permission: 'WRITE' },
      { user: ben.user, permission: 'READ' },
    ])
    await expectMembers(ben, 'OWN', 'READ', 'WRITE')
    await grant(ana, key, ben, 'OWN')
    await grant(ben, key, cara, 'READ')
    await expectMembers(cara, 'OWN', 'OWN', 'READ')
    await grant(ben, key, ana, 'READ')
    await expectMembers(ana, 'READ', 'OWN', 'READ')
  })

  it('lets each do what it was granted, at once, and no more', async (t) => {
    const { ana, ben, key } = await startWithStore(t)
    const outcomes = async (): Promise<number[]> => {
      const { token } = (await ana.list())[0] as { token: string }
      const written = await ben.put(key, 'x', { 'X-Sync-Token': token })
      const granted = await ben.grant(key, 'cara', 'READ')
      return [(await ben.get(key)).status, written.status, granted.status]
    }
    assert.deepEqual(await outcomes(), [404, 404, 404])
    await grant(ana, 'a', ben, 'READ')
    assert.deepEqual(await outcomes(), [200, 403, 403])
    await grant(ana, 'a', ben, 'WRITE')
    assert.deepEqual(await outcomes(), [200, 204, 403])
    await grant(ana, 'a', ben, 'OWN')
    assert.deepEqual(await outcomes(), [200, 204, 200])
    await grant(ana, 'a', ben, 'READ')
    assert.deepEqual(await outcomes(), [200, 403, 403])
    await revoke(ana, 'a', ben)
    assert.deepEqual(await outcomes(), [404, 404, 404])
  })

  it('takes OWN only: PERM01 for READ and WRITE, whomever they name', async (t) => {
    const { node, ana, ben, cara, key } = await startWithStore(t)
    await openAccount(node, 'dora')
    for (const permission of ['READ', 'WRITE']) {
      await grant(ana, 'a', ben, permission)
      for (const user of ['dora', 'ana', 'ben', 'nobody']) {
        await expectProblem(await ben.grant(key, user, 'OWN'), 'PERM01', 403)
      }
      await expectProblem(await ben.revoke(key, ana.user), 'PERM01', 403)
      await expectProblem(await ben.revoke(key, ben.user, ana.user), 'PERM01', 403)
      await expectProblem(await ben.revoke(key, 'nobody'), 'PERM01', 403)
    }
    const people = [ana, ben, cara]
    assert.deepEqual(await permissionsOf(ana, 'a', people), { ana: 'OWN', ben: 'WRITE' })
  })

  it('refuses the same user twice, by id and by handle', async (t) => {
    const { ana, ben, key } = await startWithStore(t)
    for (const pair of [
      ['ben', 'ben'],
      ['ben', ben.user],
      [ben.user, ' BEN'],
      ['nobody', 'nobody'],
    ] as const) {
      const twice = pair.map((user) => ({ user, permission: 'READ' }))
      await expectProblem(await grantAll(ana, 'a', twice), 'REQ01', 400)
    }
    assert.equal((await membersOf(ana, 'a')).length, 1)
    await expectProblem(await ben.get(key), 'ERR01', 404)
  })

  it('is all or nothing: an unknown user is 404 for all', async (t) => {
    const { ana, ben, key } = await startWithStore(t)
    for (const user of ['nobody', `~${'x'.repeat(43)}`, '', '~']) {
      const answer = await grantAll(ana, 'a', [
        { user: 'ben', permission: 'OWN' },
        { user, permission: 'READ' },
      ])
      await expectProblem(answer, 'ERR01', 404)
    }
    await expectProblem(await ben.get(key), 'ERR01', 404)
    assert.equal((await membersOf(ana, 'a')).length, 1)
  })

  it('refuses what is no grant', async (t) => {
    const { ana } = await startWithStore(t)
    for (const body of [
      [],
      {},
      null,
      [{ user: 'ben' }],
      [{ permission: 'READ' }],
      [{ user: 'ben', permission: 'read' }],
      [{ user: 'ben', permission: 'NONE' }],
      [{ user: 7, permission: 'READ' }],
      [{ user: 'ben', permission: 'READ', until: 1 }],
      [{ user: '\ud800', permission: 'READ' }],
    ]) {
      const answer = await ana.request('/permission/a', {
        method: 'PUT',
        body: JSON.stringify(body),
      })
      await expectProblem(answer, 'REQ01', 400)
    }
    assert.equal((await membersOf(ana, 'a')).length, 1)
  })

  it('does not know a deleted account, nor take the next of that name for it', async (t) => {
    const { node, ana, ben, key } = await startWithStore(t)
    await grant(ana, 'a', ben, 'WRITE')
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    await expectProblem(await ana.grant('a', 'ben', 'READ'), 'ERR01', 404)
    await expectProblem(await ana.grant('a', ben.user, 'READ'), 'ERR01', 404)
    assert.equal((await membersOf(ana, 'a')).length, 1)
    const next = await openAccount(node, 'ben')
    assert.equal(next.user, ben.user)
    await expectProblem(await next.get(key), 'ERR01', 404)
    assert.equal((await membersOf(ana, 'a')).length, 1)
  })
})

describe('the last OWN', () => {
  it('can be neither removed nor lowered, by itself or by all at once', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    await grant(ana, 'a', ben, 'WRITE')
    for (const permission of ['READ', 'WRITE']) {
      await expectProblem(await ana.grant('a', 'ana', permission), 'PERM02', 409)
    }
    await expectProblem(await ana.revoke('a', 'ana'), 'PERM02', 409)
    await expectProblem(await ana.revoke('a', 'ana', 'ben'), 'PERM02', 409)
    await grant(ana, 'a', ben, 'OWN')
    await expectProblem(await ben.revoke(key, 'ana', 'ben'), 'PERM02', 409)
    const lowered = [ana, ben].map(({ user }) => ({ user, permission: 'READ' }))
    await expectProblem(await grantAll(ana, 'a', lowered), 'PERM02', 409)
    const people = [ana, ben, cara]
    assert.deepEqual(await permissionsOf(ana, 'a', people), { ana: 'OWN', ben: 'OWN' })
  })

  it('may go when another comes in the same request', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    const swapped = await grantAll(ana, 'a', [
      { user: 'ana', permission: 'READ' },
      { user: 'ben', permission: 'OWN' },
    ])
    await expectStatus(swapped, 200)
    assert.deepEqual(await permissionsOf(ana, 'a', [ana, ben, cara]), { ana: 'READ', ben: 'OWN' })
    await revoke(ben, key, ana)
    await expectProblem(await ana.get('a'), 'ERR01', 404)
  })

  it('is the last alive: an OWN whose account is deleted does not count', async (t) => {
    const { ana, ben } = await startWithStore(t)
    await grant(ana, 'a', ben, 'OWN')
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    await expectProblem(await ana.revoke('a', 'ana'), 'PERM02', 409)
    await expectProblem(await ana.grant('a', 'ana', 'WRITE'), 'PERM02', 409)
  })

  it('stays when two OWNs leave at once', async (t) => {
    const { ana, ben, key } = await startWithStore(t)
    await grant(ana, 'a', ben, 'OWN')
    const answers = await Promise.all([ana.revoke(key, 'ana'), ben.revoke(key, 'ben')])
    const statuses = answers.map(({ status }) => status)
    assert.deepEqual(new Set(statuses), new Set([204, 409]))
  })
})

describe('DELETE /permission/{key}', () => {
  it('takes permissions, and ignores who has none, known or not', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    await grant(ana, 'a', ben, 'READ')
    await grant(ana, 'a', cara, 'WRITE')
    await expectStatus(await ana.revoke('a', 'nobody', '', `~${'x'.repeat(43)}`), 204)
    assert.equal((await membersOf(ana, 'a')).length, 3)
    await expectStatus(await ana.revoke('a', 'nobody', 'ben', cara.user, 'ben'), 204)
    assert.equal((await membersOf(ana, 'a')).length, 1)
    for (const gone of [ben, cara]) await expectProblem(await gone.get(key), 'ERR01', 404)
    await expectStatus(await ana.revoke('a', 'ben'), 204)
  })

  it('lets anyone leave, by id or by handle', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    for (const permission of ['READ', 'WRITE', 'OWN']) {
      for (const name of ['ben', ben.user, ' BEN']) {
        await grant(ana, 'a', ben, permission)
        await expectStatus(await ben.revoke(key, name), 204)
        await expectProblem(await ben.get(key), 'ERR01', 404)
        await expectProblem(await ben.revoke(key, name), 'ERR01', 404)
      }
    }
    assert.deepEqual(await permissionsOf(ana, 'a', [ana, ben, cara]), { ana: 'OWN' })
  })

  it('needs users', async (t) => {
    const { ana } = await startWithStore(t)
    for (const query of ['', '?', '?user=ana', '?users=ben&x=1', '?users=%zz']) {
      const answer = await ana.request(`/permission/a${query}`, { method: 'DELETE' })
      await expectProblem(answer, 'REQ01', 400)
    }
  })
})

describe('GET /permission/{key}', () => {
  it('is for everyone with a permission, and says which is the caller', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    for (const permission of ['READ', 'WRITE', 'OWN']) {
      await grant(ana, 'a', ben, permission)
      const members = await membersOf(ben, key)
      const expected = [
        { user: ana.user, permission: 'OWN', current: false },
        { user: ben.user, permission, current: true },
      ].sort((one, other) => (one.user < other.user ? -1 : 1))
      assert.deepEqual(members, expected)
      await expectProblem(await cara.request(`/permission/${key}`), 'ERR01', 404)
    }
    await revoke(ana, 'a', ben)
    await expectProblem(await ben.request(`/permission/${key}`), 'ERR01', 404)
  })
})

describe('new acquaintances', () => {
  const ids = (name: string, count: number): string[] =>
    Array.from({ length: count }, (_, i) => `${name}${i}`)

  const grants = (users: string[]) => users.map((user) => ({ user, permission: 'READ' }))

  it('are 30 an hour, known and unknown counted alike', async (t) => {
    const { node, ana } = await startWithStore(t)
    await openAccounts(node, ids('known', 17))
    await expectStatus(await grantAll(ana, 'a', grants(ids('known', 15))), 200)
    for (const id of ids('unknown', 15)) {
      await expectProblem(await ana.grant('a', id, 'READ'), 'ERR01', 404)
    }
    for (const id of ['known15', 'unknown15', 'unknown0']) {
      const refused = await ana.grant('a', id, 'READ')
      const seconds = Number(refused.headers.get('retry-after'))
      assert.ok(seconds > 0 && seconds <= 3600, `Retry-After: ${seconds}`)
      await expectProblem(refused, 'RATE01', 429)
    }
    node.advance(HOUR_MS + 1000)
    await expectStatus(await ana.grant('a', 'known15', 'READ'), 200)
    await expectProblem(await ana.grant('a', 'unknown15', 'READ'), 'ERR01', 404)
  })

  it('are counted by account, and once: old ones and oneself are free', async (t) => {
    const { node, ana, ben } = await startWithStore(t)
    await openAccounts(node, ids('known', 31))
    await expectStatus(await grantAll(ana, 'a', grants(ids('known', 30))), 200)
    await expectProblem(await ana.grant('a', 'known30', 'READ'), 'RATE01', 429)
    await ana.save('b', 'x')
    await expectStatus(await grantAll(ana, 'b', grants(ids('known', 30))), 200)
    await expectStatus(await ana.grant('a', 'ana', 'OWN'), 200)
    await expectStatus(await ana.revoke('a', 'known0'), 204)
    await expectStatus(await ana.grant('a', 'known0', 'WRITE'), 200)
    await ben.save('c', 'x')
    await expectStatus(await ben.grant('c', 'known30', 'READ'), 200)
  })

  it('beyond 30 in one request are refused together, and none is counted', async (t) => {
    const { node, ana } = await startWithStore(t)
    await openAccounts(node, ids('known', 31))
    await expectProblem(await grantAll(ana, 'a', grants(ids('known', 31))), 'RATE01', 429)
    assert.equal((await membersOf(ana, 'a')).length, 1)
    await expectStatus(await grantAll(ana, 'a', grants(ids('known', 30))), 200)
  })
})

describe('the members of a store', () => {
  /** As many more, each an account of its own. */
  async function plantMembers(node: TestNode, key: string, count: number): Promise<void> {
    await plant(
      node,
      `INSERT INTO sync_account (id, number, password, key_salt)
       WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       SELECT '~' || substr(hex(randomblob(32)), 1, 43), 1000000 + i, '', randomblob(32) FROM n`,
      [count],
    )
    await plant(
      node,
      `INSERT INTO account_permission (sync_account_id, store_key, permission)
       SELECT number, ?, 'READ' FROM sync_account WHERE number > 1000000`,
      [key],
    )
  }

  it('are at most 1,000, all or nothing', async (t) => {
    const { node, ana, ben, cara, key } = await startWithStore(t)
    await plantMembers(node, key, 998)
    const both = [ben, cara].map(({ user }) => ({ user, permission: 'READ' }))
    await expectProblem(await grantAll(ana, 'a', both), 'SIZE01', 413)
    for (const one of [ben, cara]) await expectProblem(await one.get(key), 'ERR01', 404)
    await grant(ana, 'a', ben, 'READ')
    assert.equal((await membersOf(ben, key)).length, 1000)
    await expectProblem(await ana.grant('a', 'cara', 'READ'), 'SIZE01', 413)
    await grant(ana, 'a', ben, 'OWN')
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    await grant(ana, 'a', cara, 'READ')
  })

  it('each see a write of the fullest store in its feed', async (t) => {
    const { node, ana, key, token } = await startWithStore(t)
    await plantMembers(node, key, 999)
    const before = await one(node, 'SELECT max(change_seq) FROM account_permission')
    await ana.save('a', 'two', { 'X-Sync-Token': token })
    const stamps = await rows(
      node,
      'SELECT change_seq FROM account_permission WHERE store_key = ?',
      [key],
    )
    assert.equal(stamps.length, 1000)
    assert.ok(stamps.every((row) => Number(row['change_seq']) > Number(before)))
  })
})

describe('the stamps of a feed', () => {
  type Stamps = Map<string, { seq: number; isGone: boolean }>

  /** An account's permissions and tombstones; each has a stamp of its own. */
  async function stampsOf(node: TestNode, { user }: Client): Promise<Stamps> {
    const found = await rows(
      node,
      `SELECT store_key, change_seq, 0 AS gone FROM account_permission p
       JOIN sync_account a ON a.number = p.sync_account_id AND a.id = ?1
       UNION ALL SELECT store_key, change_seq, 1 FROM tombstone t
       JOIN sync_account a ON a.number = t.sync_account_id AND a.id = ?1`,
      [user],
    )
    const stamps: Stamps = new Map()
    for (const { store_key: key, change_seq: seq, gone } of found) {
      assert.ok(!stamps.has(String(key)), 'a store is either there or gone')
      stamps.set(String(key), { seq: Number(seq), isGone: gone === 1 })
    }
    const seqs = [...stamps.values()].map(({ seq }) => seq)
    assert.equal(new Set(seqs).size, seqs.length, 'no stamp stands twice in an account')
    return stamps
  }

  /** Who of `people` is told by `act` about the store, and as what. */
  async function toldBy(
    { node, key }: Scene,
    people: Client[],
    act: () => Promise<unknown>,
  ): Promise<Record<string, 'changed' | 'gone'>> {
    const before = await Promise.all(people.map((one) => stampsOf(node, one)))
    const last = Number(await one(node, 'SELECT seq FROM node'))
    await act()
    const told: Record<string, 'changed' | 'gone'> = {}
    for (const [i, person] of people.entries()) {
      const after = (await stampsOf(node, person)).get(key)
      if (after === undefined || after.seq === before[i]?.get(key)?.seq) continue
      assert.ok(after.seq > last, 'a stamp is newer than all before')
      told[person.id] = after.isGone ? 'gone' : 'changed'
    }
    return told
  }

  it('are renewed for every member by every write, and for nobody else', async (t) => {
    const scene = await startWithStore(t)
    const { node, ana, ben, cara, key } = scene
    const people = [ana, ben, cara, await openAccount(node, 'dora')]
    await ana.save('unrelated', 'x')
    await grant(ana, 'a', ben, 'READ')
    await grant(ana, 'a', cara, 'WRITE')
    const everyone = { ana: 'changed', ben: 'changed', cara: 'changed' }
    for (const [value, headers] of [
      ['two', {}],
      ['two', {}],
      ['', { 'X-Sync-Meta': 'm' }],
      ['x'.repeat(20_000), {}],
      ['y'.repeat(20_000), {}],
      ['small', {}],
    ] as [string, Record<string, string>][]) {
      const write = () => cara.save(key, value, { ...headers, 'X-Sync-Token': '*' })
      assert.deepEqual(await toldBy(scene, people, write), everyone)
    }
  })

  it('tell only whom a grant, a change or a revocation touches', async (t) => {
    const scene = await startWithStore(t)
    const { ana, ben, cara, key } = scene
    const people = [ana, ben, cara]
    const told = (act: () => Promise<unknown>) => toldBy(scene, people, act)
    await grant(ana, 'a', cara, 'OWN')
    assert.deepEqual(await told(() => grant(ana, 'a', ben, 'READ')), { ben: 'changed' })
    assert.deepEqual(await told(() => grant(ana, 'a', ben, 'OWN')), { ben: 'changed' })
    assert.deepEqual(await told(() => grant(ana, 'a', ben, 'OWN')), {})
    assert.deepEqual(await told(() => revoke(ana, 'a', ben)), { ben: 'gone' })
    assert.deepEqual(await told(() => revoke(ana, 'a', ben)), {})
    assert.deepEqual(await told(() => grant(ana, 'a', ben, 'READ')), { ben: 'changed' })
    assert.deepEqual(await told(() => revoke(ben, key, ben)), { ben: 'gone' })
    assert.deepEqual(await told(() => revoke(ana, 'a', ana)), { ana: 'gone' })
    assert.deepEqual(await told(() => grant(cara, key, ana, 'READ')), { ana: 'changed' })
  })

  it('stay as they are when a call is refused', async (t) => {
    const scene = await startWithStore(t)
    const { ana, ben, cara, key } = scene
    await grant(ana, 'a', ben, 'WRITE')
    for (const act of [
      () => ana.put('a', 'x', { 'X-Sync-Token': OTHER }),
      () => ben.delete(key, '*'),
      () => ana.revoke('a', 'ana', 'ben'),
      () =>
        grantAll(ana, 'a', [
          { user: 'cara', permission: 'READ' },
          { user: 'nobody', permission: 'READ' },
        ]),
      () =>
        grantAll(ana, 'a', [
          { user: 'ben', permission: 'READ' },
          { user: 'ana', permission: 'READ' },
        ]),
    ]) {
      assert.deepEqual(await toldBy(scene, [ana, ben, cara], act), {})
    }
  })

  it('are a tombstone for every member of a deleted store, and none after it is there again', async (t) => {
    const scene = await startWithStore(t)
    const { node, ana, ben, cara, key } = scene
    const people = [ana, ben, cara]
    await grant(ana, 'a', ben, 'READ')
    const remove = async () => expectStatus(await ana.delete('a', '*'), 204)
    assert.deepEqual(await toldBy(scene, people, remove), { ana: 'gone', ben: 'gone' })
    assert.equal(await one(node, 'SELECT count(*) FROM tombstone WHERE store_key = ?', [key]), 2)
    assert.deepEqual(await toldBy(scene, people, () => ana.save('a', 'again')), { ana: 'changed' })
    assert.equal(await one(node, 'SELECT count(*) FROM tombstone WHERE store_key = ?', [key]), 1)
    assert.deepEqual(await toldBy(scene, people, () => grant(ana, 'a', ben, 'READ')), {
      ben: 'changed',
    })
    assert.equal(await one(node, 'SELECT count(*) FROM tombstone WHERE store_key = ?', [key]), 0)
  })

  it('tell the members when an account and its stores are gone, once they are buried', async (t) => {
    const scene = await startWithStore(t)
    const { node, ana, ben, cara } = scene
    await grant(ana, 'a', ben, 'READ')
    const told = await toldBy(scene, [ben, cara], async () => {
      await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
      await node.running.housekeep()
    })
    assert.deepEqual(told, { ben: 'gone' })
    assert.equal(await one(node, 'SELECT count(*) FROM sync_store'), 0)
    assert.equal(await one(node, 'SELECT count(*) FROM tombstone'), 1)
  })
})

describe('a store that was lost', () => {
  /** Every call on a key, with every condition that could let it through. */
  const callsOn = (key: string, token: string): [string, string, RequestInit][] => {
    const conditions = [
      {},
      { 'If-None-Match': '*' },
      { 'X-Sync-Token': token },
      { 'X-Sync-Token': '*' },
      { 'If-Match': '*' },
    ] as Record<string, string>[]
    const body = JSON.stringify([{ user: 'cara', permission: 'OWN' }])
    return [
      ['GET', `/store/${key}`, {}],
      ['HEAD', `/store/${key}`, {}],
      ...conditions.map((headers): [string, string, RequestInit] => [
        'PUT',
        `/store/${key}`,
        { headers, body: 'x' },
      ]),
      ...conditions.map((headers): [string, string, RequestInit] => [
        'DELETE',
        `/store/${key}`,
        { headers },
      ]),
      ['GET', `/permission/${key}`, {}],
      ['PUT', `/permission/${key}`, { body }],
      ['DELETE', `/permission/${key}?users=ana`, {}],
      ['DELETE', `/permission/${key}?users=ben`, {}],
    ]
  }

  /** Each is just what it is for a store key that nobody has. */
  async function expectNothingThere(self: Client, key: string, token: string): Promise<void> {
    const nowhere = callsOn(`~${'x'.repeat(43)}`, token)
    for (const [i, [method, path, init]] of callsOn(key, token).entries()) {
      const answer = await self.request(path, { ...init, method })
      const why = `${method} ${path.slice(0, 12)} ${JSON.stringify(init)}`
      assert.equal(answer.status, 404, why)
      for (const name of ['x-sync-token', 'etag', 'repr-digest', 'x-sync-key']) {
        assert.equal(answer.headers.get(name), null, why)
      }
      if (method === 'HEAD') continue
      const [, other, sameInit] = nowhere[i] as [string, string, RequestInit]
      const expected = await expectProblem(
        await self.request(other, { ...sameInit, method }),
        'ERR01',
        404,
      )
      assert.deepEqual(await answer.json(), expected, why)
    }
    assert.deepEqual(await self.list(), [])
  }

  async function expectUnharmed(self: Client, { key, token }: Scene): Promise<void> {
    const read = await expectStatus(await self.get(key), 200)
    assert.equal(read.headers.get('x-sync-token'), token)
    assert.deepEqual(await permissionsOf(self, key, [self]), { [self.id]: 'OWN' })
  }

  it('is like one that never was, to its creator whom another OWN revoked', async (t) => {
    const scene = await startWithStore(t)
    const { ana, ben, key, token } = scene
    await grant(ana, 'a', ben, 'OWN')
    await revoke(ben, key, ana)
    await expectNothingThere(ana, 'a', token)
    await expectNothingThere(ana, key, token)
    await expectUnharmed(ben, scene)
  })

  it('is so to its creator who left, and to a member who was revoked', async (t) => {
    const scene = await startWithStore(t)
    const { ana, ben, cara, key, token } = scene
    for (const member of [ben, cara]) await grant(ana, 'a', member, 'OWN')
    await revoke(ana, 'a', ana)
    await revoke(ben, key, cara)
    await expectNothingThere(ana, 'a', token)
    await expectNothingThere(ana, key, token)
    await expectNothingThere(cara, key, token)
    await expectUnharmed(ben, scene)
  })

  it('comes back by a new grant, and not by the old name before', async (t) => {
    const { ana, ben, key, token } = await startWithStore(t)
    await grant(ana, 'a', ben, 'OWN')
    await revoke(ben, key, ana)
    await expectProblem(await ana.put('a', 'x'), 'ERR01', 404)
    await grant(ben, key, ana, 'READ')
    assert.equal((await ana.get('a')).headers.get('x-sync-token'), token)
    await expectProblem(await ana.put('a', 'x', { 'X-Sync-Token': token }), 'PERM01', 403)
  })

  it('frees its name when it is deleted, or the account of its last OWN is', async (t) => {
    const { node, ana, ben, cara, key } = await startWithStore(t)
    const lose = async (heir: Client): Promise<void> => {
      await grant(ana, 'a', heir, 'OWN')
      await revoke(heir, key, ana)
      await expectProblem(await ana.put('a', 'x'), 'ERR01', 404)
    }
    await lose(ben)
    await expectStatus(await ben.delete(key, '*'), 204)
    await ana.save('a', 'new')
    await lose(ben)
    await grant(ben, key, cara, 'READ')
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    await ana.save('a', 'newer')
    assert.deepEqual(await permissionsOf(ana, 'a', [ana]), { ana: 'OWN' })
    await expectProblem(await cara.get(key), 'ERR01', 404)
    await node.running.housekeep()
    assert.equal(await (await ana.get('a')).text(), 'newer')
  })

  it('frees its name even while its creator has a READ that holds no more', async (t) => {
    const { node, ana, ben, key } = await startWithStore(t)
    await grant(ana, 'a', ben, 'OWN')
    await grant(ben, key, ana, 'READ')
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    await expectProblem(await ana.get('a'), 'ERR01', 404)
    await expectProblem(await ana.put(key, 'x'), 'ERR01', 404)
    await ana.save('a', 'new')
    assert.deepEqual(await permissionsOf(ana, 'a', [ana]), { ana: 'OWN' })
    await node.running.housekeep()
    assert.equal(await (await ana.get('a')).text(), 'new')
    assert.equal(await one(node, 'SELECT count(*) FROM tombstone'), 0)
  })
})
