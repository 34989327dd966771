import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import type { Environment } from '../src/config.ts'
import { openAccount, openAccounts, openSession } from './helpers/accounts.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { raw } from './helpers/raw.ts'
import { blobFiles, expectNoStrayFile, one, rows } from './helpers/rows.ts'
import { finish, hold, startUpload } from './helpers/upload.ts'

// Beyond what the row holds: a file.
const LARGE = 20_000
const ANY = { 'X-Sync-Token': '*' }

async function startWithPeople(t: TestContext, environment: Environment) {
  const node = await startNode(t, environment)
  const [ana, ben, cara] = await openAccounts(node, ['ana', 'ben', 'cara'])
  return { node, ana, ben, cara }
}

/** What the server says that an account uses. */
async function usedBy(self: Client): Promise<number> {
  const answer = await expectStatus(await self.request('/store'), 200)
  await answer.arrayBuffer()
  return Number(answer.headers.get('x-sync-quota-used'))
}

const usedByAll = (...people: Client[]): Promise<number[]> => Promise.all(people.map(usedBy))

const bytes = (size: number): Uint8Array => new Uint8Array(size)

async function grant(self: Client, key: string, user: Client, permission: string): Promise<void> {
  await expectStatus(await self.grant(key, user.user, permission), 200)
}

/** What each living account uses, as the server keeps it and as its rows add up. */
async function expectExact(node: TestNode): Promise<void> {
  const accounts = await rows(
    node,
    `SELECT a.id, a.used, (
       SELECT coalesce(sum(t.size), 0) FROM account_permission p
       JOIN sync_store t ON t.store_key = p.store_key
       WHERE p.sync_account_id = a.number AND p.permission = 'OWN') AS summed
     FROM sync_account a WHERE a.dead = 0`,
  )
  for (const { id, used, summed } of accounts) assert.equal(used, summed, String(id))
}

describe('what an account uses', () => {
  it('follows its values, whatever happens to them', async (t) => {
    const { node, ana } = await startWithPeople(t, { QUOTA: '1M' })
    const expectUsed = async (response: Response, used: number): Promise<void> => {
      assert.equal(response.headers.get('x-sync-quota-used'), String(used))
      assert.equal(response.headers.get('x-sync-quota-limit'), '1048576')
      assert.equal(await usedBy(ana), used)
      await expectExact(node)
    }
    await expectUsed(await ana.request('/store'), 0)
    await expectUsed(await ana.put('a', bytes(100), { 'X-Sync-Meta': 'm'.repeat(50) }), 100)
    await expectUsed(await ana.put('b', bytes(LARGE)), LARGE + 100)
    await expectUsed(await ana.put('a', bytes(40), ANY), LARGE + 40)
    await expectUsed(await ana.put('a', bytes(LARGE), ANY), 2 * LARGE)
    await expectUsed(await ana.put('a', bytes(LARGE), ANY), 2 * LARGE)
    await expectUsed(await ana.put('b', bytes(1), ANY), LARGE + 1)
    await expectUsed(await ana.put('empty', bytes(0)), LARGE + 1)
    await expectUsed(await ana.put('b', bytes(0), ANY), LARGE)
    await expectUsed(await ana.delete('a', '*'), 0)
    await expectUsed(await ana.delete('b', '*'), 0)
  })

  it('stays as it is when a call is refused', async (t) => {
    const { node, ana } = await startWithPeople(t, { QUOTA: '1000' })
    const { token } = await ana.save('a', bytes(100))
    await ana.save('a', bytes(200), { 'X-Sync-Token': token })
    await expectProblem(await ana.put('a', bytes(300), { 'X-Sync-Token': token }), 'KEY01', 412)
    await expectProblem(await ana.put('a', bytes(300)), 'KEY01', 428)
    await expectProblem(await ana.put('a', bytes(1001), ANY), 'SIZE02', 507)
    await expectProblem(await ana.put('b', bytes(801)), 'SIZE02', 507)
    await expectProblem(await ana.delete('a', token), 'KEY01', 412)
    assert.equal(await usedBy(ana), 200)
    await expectExact(node)
  })

  it('counts a shared store in full for each OWN, and for nobody else', async (t) => {
    const { node, ana, ben, cara } = await startWithPeople(t, { QUOTA: '1M' })
    const { key } = await ana.save('a', bytes(100))
    const expectUsed = async (...used: number[]): Promise<void> => {
      assert.deepEqual(await usedByAll(ana, ben, cara), used)
      await expectExact(node)
    }
    await grant(ana, 'a', ben, 'WRITE')
    await grant(ana, 'a', cara, 'READ')
    await expectUsed(100, 0, 0)
    await grant(ana, 'a', ben, 'OWN')
    await expectUsed(100, 100, 0)
    await grant(ana, 'a', ben, 'OWN')
    await expectUsed(100, 100, 0)
    await ben.save(key, bytes(LARGE), ANY)
    await expectUsed(LARGE, LARGE, 0)
    await grant(ben, key, ana, 'WRITE')
    await expectUsed(0, LARGE, 0)
    await ana.save(key, bytes(7), ANY)
    await expectUsed(0, 7, 0)
    await grant(ben, key, cara, 'OWN')
    await expectStatus(await ben.revoke(key, 'ben'), 204)
    await expectUsed(0, 0, 7)
    await expectStatus(await cara.delete(key, '*'), 204)
    await expectUsed(0, 0, 0)
  })

  it('does not change for others when an account is deleted', async (t) => {
    const { node, ana, ben, cara } = await startWithPeople(t, { QUOTA: '1M' })
    const shared = await ana.save('shared', bytes(10))
    const lost = await ana.save('lost', bytes(20))
    await grant(ana, 'shared', ben, 'OWN')
    await grant(ana, 'lost', cara, 'WRITE')
    await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
    for (let round = 0; round < 2; round++) {
      assert.deepEqual(await usedByAll(ben, cara), [10, 0])
      await expectExact(node)
      await node.running.housekeep()
    }
    await ben.save(shared.key, bytes(30), ANY)
    await expectProblem(await cara.get(lost.key), 'ERR01', 404)
    assert.deepEqual(await usedByAll(ben, cara), [30, 0])
  })

  it('is the one of the caller in every answer, beside the limit where there is one', async (t) => {
    const { node, ana, ben } = await startWithPeople(t, { QUOTA: '5000' })
    const { key } = await ana.save('a', bytes(100))
    await ben.save('b', bytes(3))
    await grant(ana, 'a', ben, 'WRITE')
    const check = (response: Response, used: string, limit: string | null): void => {
      assert.equal(response.headers.get('x-sync-quota-used'), used)
      assert.equal(response.headers.get('x-sync-quota-limit'), limit)
    }
    check(await ben.put(key, bytes(200), ANY), '3', '5000')
    check(await ben.request('/store'), '3', '5000')
    check(await ana.request('/store'), '200', '5000')
    check(await ana.delete('a', '*'), '0', '5000')
    await node.restart({ QUOTA: 'none' })
    check(await ben.put('b', bytes(9000), ANY), '9000', null)
    check(await ben.request('/store'), '9000', null)
    check(await ben.delete('b', '*'), '0', null)
  })
})

describe('a full quota', () => {
  it('refuses a store that would not fit, and takes one that just does', async (t) => {
    const { ana } = await startWithPeople(t, { QUOTA: '1000' })
    await expectProblem(await ana.put('a', bytes(1001)), 'SIZE02', 507)
    await ana.save('a', bytes(600))
    await expectProblem(await ana.put('b', bytes(401)), 'SIZE02', 507)
    await ana.save('b', bytes(400))
    await expectProblem(await ana.put('c', bytes(1)), 'SIZE02', 507)
    await ana.save('c', bytes(0))
    await expectStatus(await ana.delete('b', '*'), 204)
    await ana.save('d', bytes(400))
  })

  it('refuses growth alone: what is there may shrink, or change', async (t) => {
    const { ana, ben } = await startWithPeople(t, { QUOTA: '1000' })
    await ana.save('a', bytes(300))
    await ben.save('b', bytes(700))
    await grant(ben, 'b', ana, 'OWN')
    await ben.save('b', bytes(900), ANY)
    assert.equal(await usedBy(ana), 1200)
    await expectProblem(await ana.put('a', bytes(301), ANY), 'SIZE02', 507)
    await expectProblem(await ana.put('new', bytes(1)), 'SIZE02', 507)
    await ana.save('new', bytes(0))
    await ana.save('a', bytes(300), ANY)
    await ana.save('a', bytes(250), ANY)
    await expectProblem(await ana.put('a', bytes(251), ANY), 'SIZE02', 507)
    await ana.save('a', bytes(0), ANY)
    await ana.save('a', bytes(100), ANY)
    assert.equal(await usedBy(ana), 1000)
  })

  it('of one OWN does not stop a shared store while another has room', async (t) => {
    const { ana, ben, cara } = await startWithPeople(t, { QUOTA: '1000' })
    const { key } = await ana.save('a', bytes(100))
    await grant(ana, 'a', ben, 'OWN')
    await grant(ana, 'a', cara, 'WRITE')
    await ana.save('full', bytes(900))
    for (const [who, size] of [
      [ana, 200],
      [ben, 300],
      [cara, 1000],
    ] as const) {
      await who.save(key, bytes(size), ANY)
    }
    for (const who of [ana, ben, cara]) {
      await expectProblem(await who.put(key, bytes(1001), ANY), 'SIZE02', 507)
      await who.save(key, bytes(1000), ANY)
    }
    assert.deepEqual(await usedByAll(ana, ben, cara), [1900, 1000, 0])
  })

  it('of a caller does not stop a write to what others own, nor its room help', async (t) => {
    const { ana, ben } = await startWithPeople(t, { QUOTA: '1000' })
    const { key } = await ana.save('a', bytes(100))
    await grant(ana, 'a', ben, 'WRITE')
    await ben.save('full', bytes(1000))
    await ben.save(key, bytes(500), ANY)
    await expectStatus(await ben.delete('full', '*'), 204)
    await expectProblem(await ben.put(key, bytes(1001), ANY), 'SIZE02', 507)
  })

  it('refuses to OWN what others hand over, and takes any other permission on it', async (t) => {
    const { node, ana, ben } = await startWithPeople(t, { QUOTA: '1000' })
    await ben.save('b', bytes(500))
    for (const key of ['first', 'second']) await ana.save(key, bytes(500))
    await grant(ana, 'first', ben, 'OWN')
    await expectProblem(await ana.grant('second', ben.user, 'OWN'), 'SIZE02', 507)
    await grant(ana, 'second', ben, 'WRITE')
    await expectProblem(await ana.grant('second', ben.user, 'OWN'), 'SIZE02', 507)
    // Once more what is so already, and what takes no room.
    await grant(ana, 'first', ben, 'OWN')
    await ana.save('empty', bytes(0))
    await grant(ana, 'empty', ben, 'OWN')
    assert.deepEqual(await usedByAll(ana, ben), [1000, 1000])
    await node.restart({ QUOTA: 'none' })
    await grant(ana, 'second', ben, 'OWN')
    await expectExact(node)
  })

  it('of a dead OWN gives no room', async (t) => {
    const { ana, ben } = await startWithPeople(t, { QUOTA: '1000' })
    await ana.save('a', bytes(100))
    await ana.save('full', bytes(900))
    await grant(ana, 'a', ben, 'OWN')
    await expectStatus(await ben.request('/account', { method: 'DELETE' }), 204)
    await expectProblem(await ana.put('a', bytes(101), ANY), 'SIZE02', 507)
  })

  it('is not passed by two that both had room when they began', async (t) => {
    const { node, ana } = await startWithPeople(t, { QUOTA: '50000' })
    for (const key of ['a', 'b']) await ana.save(key, bytes(100))
    for (const [keys, headers] of [
      [['a', 'b'], ANY],
      [['c', 'd'], {}],
    ] as [[string, string], Record<string, string>][]) {
      const first = await hold(node, ana, keys[0], { size: 30_000, headers })
      const second = await hold(node, ana, keys[1], { size: 30_000, headers })
      await expectStatus(await finish(first), headers === ANY ? 204 : 201)
      await expectProblem(await finish(second), 'SIZE02', 507)
      await expectStatus(await ana.delete(keys[0], '*'), 204)
      await expectExact(node)
    }
    await node.running.housekeep()
    await expectNoStrayFile(node)
  })

  it('is not passed by many at once', async (t) => {
    const { node, ana } = await startWithPeople(t, { QUOTA: '1000' })
    const created = await Promise.all(
      Array.from({ length: 12 }, (_, i) => ana.put(`k${i}`, bytes(200))),
    )
    const taken = created.filter(({ ok }) => ok)
    assert.equal(taken.length, 5)
    for (const answer of created) {
      if (!answer.ok) await expectProblem(answer, 'SIZE02', 507)
    }
    const first = taken[0]?.headers.get('x-sync-key') as string
    await expectStatus(await ana.delete(first, '*'), 204)
    const others = (await ana.list()).map(({ key }) => key)
    await Promise.all(others.map((key) => ana.put(key, bytes(350), ANY)))
    assert.equal(await usedBy(ana), 200 * 4 + 150)
    await expectExact(node)
  })
})

describe('a value that is too large', () => {
  const LIMITS = [
    [{ QUOTA: '30000' }, 'SIZE02', 507],
    [{ MAX_VALUE_SIZE: '30000' }, 'SIZE01', 413],
  ] as const

  it('is refused before its body is sent when its length says so', async (t) => {
    for (const [environment, code, status] of LIMITS) {
      const { node, ana } = await startWithPeople(t, environment)
      const ask = (length: number): Promise<Response> =>
        raw(t, node, [
          'PUT /store/a HTTP/1.1',
          `Authorization: ${ana.headers['Authorization']}`,
          `Content-Length: ${length}`,
          'Expect: 100-continue',
        ])
      await expectProblem(await ask(30_001), code, status)
      await assert.rejects(ask(30_000), /asks for the body: 100/)
      await expectProblem(await ana.put('a', bytes(30_001)), code, status)
      await ana.save('a', bytes(30_000))
    }
  })

  it('is refused as soon as it is, when it comes in chunks, and leaves no file', async (t) => {
    for (const [environment, code, status] of LIMITS) {
      const { node, ana } = await startWithPeople(t, environment)
      await ana.save('a', bytes(100))
      for (const headers of [{}, ANY] as Record<string, string>[]) {
        const upload = startUpload(node, ana, headers === ANY ? 'a' : 'new', headers)
        upload.write(bytes(20_000))
        upload.write(bytes(10_001))
        // The body never ends: the answer does not wait for it.
        await expectProblem(await upload.answer, code, status)
      }
      assert.deepEqual(blobFiles(node), [])
      assert.equal((await ana.get('a')).headers.get('content-length'), '100')
      await expectProblem(await ana.get('new'), 'ERR01', 404)
      const upload = startUpload(node, ana, 'new')
      upload.write(bytes(29_900))
      upload.end()
      await expectStatus(await upload.answer, 201)
      await expectNoStrayFile(node)
    }
  })

  it('may be inside the quota and above the limit of a value, which comes first', async (t) => {
    const { ana } = await startWithPeople(t, { QUOTA: '50', MAX_VALUE_SIZE: '100' })
    await expectProblem(await ana.put('a', bytes(101)), 'SIZE01', 413)
    await expectProblem(await ana.put('a', bytes(51)), 'SIZE02', 507)
    await ana.save('a', bytes(50))
  })
})

describe('any sequence of changes', () => {
  const SIZES = [0, 1, 10, 100, LARGE]
  const person = fc.nat({ max: 2 })
  const store = fc.nat({ max: 2 })
  const permission = fc.constantFrom('READ', 'WRITE', 'OWN')
  const change = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('put' as const),
        person,
        store,
        size: fc.constantFrom(...SIZES),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('grant' as const),
        person,
        store,
        to: person,
        permission,
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('revoke' as const),
        person,
        store,
        to: fc.uniqueArray(person, { minLength: 1 }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('delete' as const), person, store }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('bury' as const), person }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('clean' as const) }) },
  )
  type Change = typeof change extends fc.Arbitrary<infer C> ? C : never

  /** Three people, and the store that each of them made. */
  async function setOut(node: TestNode, run: number) {
    const people = await openAccounts(
      node,
      [0, 1, 2].map((i) => `p${run}-${i}`),
    )
    const keys = await Promise.all(
      people.map(async (self, i) => (await self.save(`s${i}`, bytes(i))).key),
    )
    const [first, second, third] = people as [Client, Client, Client]
    await grant(first, keys[0] as string, second, 'OWN')
    await grant(second, keys[1] as string, third, 'WRITE')
    return { people, keys }
  }

  async function apply(
    node: TestNode,
    { people, keys }: Awaited<ReturnType<typeof setOut>>,
    step: Change,
  ) {
    if (step.do === 'clean') return node.running.housekeep()
    const self = people[step.person] as Client
    if (step.do === 'bury') {
      await self.request('/account', { method: 'DELETE' })
      return
    }
    // One's own by its name, which creates it again; the others' by their store key.
    const key = step.store === step.person ? `s${step.store}` : (keys[step.store] as string)
    const userOf = (i: number): string => (people[i] as Client).user
    if (step.do === 'put') {
      const answer = await self.put(key, bytes(step.size), ANY)
      if (answer.status === 412) await self.put(key, bytes(step.size))
    } else if (step.do === 'delete') await self.delete(key, '*')
    else if (step.do === 'grant') await self.grant(key, userOf(step.to), step.permission)
    else await self.revoke(key, ...step.to.map(userOf))
  }

  it('leaves what each account uses the sum of what it owns', async (t) => {
    const node = await startNode(t, { QUOTA: '25000' })
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 5, maxLength: 25 }), async (changes) => {
        const scene = await setOut(node, ++run)
        for (const step of changes) {
          await apply(node, scene, step)
          await expectExact(node)
        }
      }),
      { numRuns: 40 },
    )
    assert.ok(Number(await one(node, 'SELECT count(*) FROM sync_store')) > 0, 'something is left')
  })
})

describe('a session of the same account', () => {
  it('sees the same sum', async (t) => {
    const node = await startNode(t, { QUOTA: '1000' })
    const ana = await openAccount(node, 'ana')
    const phone = await openSession(node, ana)
    await ana.save('a', bytes(100))
    assert.equal(await usedBy(phone), 100)
    await phone.save('a', bytes(50), ANY)
    assert.equal(await usedBy(ana), 50)
  })
})
