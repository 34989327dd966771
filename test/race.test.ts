import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import type { Statement } from '../src/database/database.ts'
import type { Deps } from '../src/deps.ts'
import type { SyncError } from '../src/errors.ts'
import * as permission from '../src/permission.ts'
import * as session from '../src/session.ts'
import * as store from '../src/store.ts'
import type { Condition } from '../src/store.ts'
import { openAccount, openAccounts, openSession } from './helpers/accounts.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { holdBack } from './helpers/held.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { blobFiles, expectNoStrayFile, one } from './helpers/rows.ts'
import { finish, hold, startUpload, type Upload } from './helpers/upload.ts'

const LARGE = 100_000
const BY_AGE = 'the end of the session by age'
const SESSION_MS = 91 * 24 * 3_600_000
const ANY = { 'X-Sync-Token': '*' }

interface Scene {
  node: TestNode
  ana: Client
  ben: Client
  cara: Client
  /** Ana's; Ben OWNs it too, and Cara may WRITE. */
  key: string
  token: string
}

async function startWithStore(t: TestContext): Promise<Scene> {
  const node = await startNode(t)
  const [ana, ben, cara] = await openAccounts(node, ['ana', 'ben', 'cara'])
  const saved = await ana.save('a', 'as it was')
  await expectStatus(await ana.grant('a', 'ben', 'OWN'), 200)
  await expectStatus(await ana.grant('a', 'cara', 'WRITE'), 200)
  return { node, ana, ben, cara, ...saved }
}

const times = <T>(count: number, work: (i: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => work(i)))

const statusesOf = (answers: Response[]): number[] =>
  answers.map(({ status }) => status).sort((a, b) => a - b)

const others = (count: number, status: number): number[] => Array<number>(count).fill(status)

describe('many writes with the same token', () => {
  it('have one winner, which all the others are told of', async (t) => {
    const { node, ana, ben, cara, key, token: first } = await startWithStore(t)
    let token = first
    for (const [count, size] of [
      [24, 10],
      [12, LARGE],
    ] as const) {
      const answers = await times(count, (i) => {
        const self = [ana, ben, cara][i % 3] as Client
        return self.put(key, Buffer.alloc(size, i), { 'X-Sync-Token': token })
      })
      assert.deepEqual(statusesOf(answers), [204, ...others(count - 1, 412)])
      const winner = answers.findIndex(({ status }) => status === 204)
      token = answers[winner]?.headers.get('x-sync-token') as string
      for (const answer of answers) assert.equal(answer.headers.get('x-sync-token'), token)
      const read = await ana.get('a')
      assert.deepEqual(Buffer.from(await read.arrayBuffer()), Buffer.alloc(size, winner))
      assert.equal(read.headers.get('x-sync-token'), token)
    }
    await expectNoStrayFile(node)
  })

  it('have one winner of a new name', async (t) => {
    const { node, ana } = await startWithStore(t)
    for (const [name, headers, status] of [
      ['b', {}, 428],
      ['c', { 'If-None-Match': '*' }, 412],
    ] as [string, Record<string, string>, number][]) {
      const answers = await times(16, (i) => ana.put(name, `value ${i}`, headers))
      assert.deepEqual(statusesOf(answers), [201, ...others(15, status)])
      const winner = answers.findIndex((answer) => answer.status === 201)
      assert.equal(await (await ana.get(name)).text(), `value ${winner}`)
    }
    assert.equal(await one(node, 'SELECT count(*) FROM store_data'), 3)
  })

  it('all land when they say *, each with a token of its own', async (t) => {
    const { ana, ben, cara, key } = await startWithStore(t)
    const answers = await times(24, (i) => {
      const self = [ana, ben, cara][i % 3] as Client
      return self.put(key, `value ${i}`, ANY)
    })
    assert.deepEqual(statusesOf(answers), others(24, 204))
    const tokens = answers.map(({ headers }) => headers.get('x-sync-token'))
    assert.equal(new Set(tokens).size, 24)
    const read = await ana.get('a')
    const last = tokens.indexOf(read.headers.get('x-sync-token'))
    assert.equal(await read.text(), `value ${last}`)
  })

  it('are written or deleted, not both', async (t) => {
    const { ana, ben, key } = await startWithStore(t)
    for (let round = 0; round < 10; round++) {
      const { token } = await ana.save(`r${round}`, 'x')
      const [written, removed] = await Promise.all([
        ana.put(`r${round}`, 'y', { 'X-Sync-Token': token }),
        ana.delete(`r${round}`, token),
      ])
      const pair = `${written.status} ${removed.status}`
      assert.ok(['204 412', '412 204'].includes(pair), pair)
    }
    const removals = await times(8, (i) => (i % 2 === 0 ? ana : ben).delete(key, '*'))
    assert.deepEqual(statusesOf(removals), [204, ...others(7, 404)])
  })

  it('are read whole, the old one or the new', async (t) => {
    const { node, ana, ben, cara, key } = await startWithStore(t)
    const sizes = [0, 10, 16_384, 16_385, LARGE]
    let isWriting = true
    const write = async (): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        await cara.save(key, randomBytes(sizes[i % sizes.length] as number), ANY)
      }
      isWriting = false
    }
    const read = async (self: Client): Promise<void> => {
      while (isWriting) {
        const answer = await expectStatus(await self.get(key), 200)
        const value = Buffer.from(await answer.arrayBuffer())
        const digest = createHash('sha256').update(value).digest('base64')
        assert.equal(answer.headers.get('repr-digest'), `sha-256=:${digest}:`)
      }
    }
    await Promise.all([write(), read(ana), read(ben), node.running.housekeep()])
  })
})

/** The server's parts, but right after the statement or batch with such a number something else happens. */
function interrupted({ running }: TestNode, acts: Record<number, () => Promise<unknown>>): Deps {
  const { database } = running.deps
  let count = 0
  const then = async <T>(result: Promise<T>): Promise<T> => {
    const number = count++
    await result.catch(() => undefined)
    await acts[number]?.()
    return result
  }
  const execute = (statement: Statement) => then(database.execute(statement))
  const batch: typeof database.batch = (...given) => then(database.batch(...given))
  return { ...running.deps, database: { ...database, execute, batch } as Deps['database'] }
}

describe('what happens between two statements of a write', () => {
  async function putBy(deps: Deps, self: Client, key: string, condition: Condition) {
    const found = await session.finder(deps)(self.token)
    const body = (async function* () {
      yield Buffer.from('mine')
    })()
    const incoming = { body, length: 4, digests: [] }
    return store.put(deps, found, key, { condition, meta: null, incoming })
  }

  it('is not taken for a name that was lost: somebody made the store just now', async (t) => {
    const { node, ana } = await startWithStore(t)
    for (const [kind, status] of [
      ['new', 412],
      ['none', 428],
    ] as const) {
      for (let after = 0; after < 2; after++) {
        const name = `${kind} ${after}`
        const deps = interrupted(node, { [after]: () => ana.save(name, 'theirs') })
        await assert.rejects(putBy(deps, ana, name, { kind }), (error: SyncError) => {
          assert.equal(error.code, 'KEY01', `after statement ${after}: ${error.message}`)
          assert.equal(error.extras.status, status)
          return true
        })
      }
    }
  })

  it('wins when it is a revocation or a logout', async (t) => {
    for (let after = 0; after < 2; after++) {
      const scene = await startWithStore(t)
      const { node, ana, ben, cara, key, token } = scene
      const condition: Condition = { kind: 'match', tokens: [token] }
      for (const [self, code, act] of [
        [cara, 'ERR01', () => ana.revoke('a', 'cara')],
        [ben, 'AUTH01', () => ben.request('/auth', { method: 'DELETE' })],
        [ana, 'KEY01', () => ana.put('a', 'theirs', ANY)],
      ] as const) {
        const deps = interrupted(node, { [after]: act })
        await assert.rejects(putBy(deps, self, key, condition), { code })
      }
    }
  })
})

describe('what happens between two statements of a grant', () => {
  it('finds nothing in a store that goes, comes and goes again', async (t) => {
    const { node, ana } = await startWithStore(t)
    const remove = () => ana.delete('a', '*').then((answer) => expectStatus(answer, 204))
    const again = () => ana.save('a', 'made anew')
    const grants = [{ user: 'cara', permission: 'READ' as const }]
    for (let last = 3; last < 6; last++) {
      const deps = interrupted(node, { 1: remove, 2: again, [last]: remove })
      const found = await session.finder(node.running.deps)(ana.token)
      await assert.rejects(permission.put(deps, found, 'a', grants), { code: 'ERR01' })
      await again()
    }
  })

  it('is a leave that was there before: the second finds nothing', async (t) => {
    const { node, ana, cara, key } = await startWithStore(t)
    const leave = () => cara.revoke(key, cara.user).then((answer) => expectStatus(answer, 204))
    for (let after = 0; after < 2; after++) {
      await expectStatus(await ana.grant('a', 'cara', 'WRITE'), 200)
      const deps = interrupted(node, { [after]: leave })
      const found = await session.finder(node.running.deps)(cara.token)
      await assert.rejects(permission.remove(deps, found, key, [cara.user]), { code: 'ERR01' })
    }
  })
})

describe('what happens during a long upload', () => {
  const cases: {
    what: string
    /** Who uploads, and under which name of the store. */
    by: 'ana' | 'cara'
    act: (scene: Scene) => Promise<unknown>
    code: string
    status: number
  }[] = [
    {
      what: 'a revocation',
      by: 'cara',
      act: ({ ana }) => ana.revoke('a', 'cara'),
      code: 'ERR01',
      status: 404,
    },
    {
      what: 'a revocation of its creator',
      by: 'ana',
      act: ({ ben, key }) => ben.revoke(key, 'ana'),
      code: 'ERR01',
      status: 404,
    },
    {
      what: 'a change of permission',
      by: 'cara',
      act: ({ ana }) => ana.grant('a', 'cara', 'READ'),
      code: 'PERM01',
      status: 403,
    },
    {
      what: 'a logout',
      by: 'cara',
      act: ({ cara }) => cara.request('/auth', { method: 'DELETE' }),
      code: 'AUTH01',
      status: 401,
    },
    {
      what: BY_AGE,
      by: 'cara',
      act: async ({ node }) => node.advance(SESSION_MS),
      code: 'AUTH01',
      status: 401,
    },
    {
      what: 'the deletion of the account',
      by: 'cara',
      act: ({ cara }) => cara.request('/account', { method: 'DELETE' }),
      code: 'AUTH01',
      status: 401,
    },
    {
      what: 'the deletion of the store',
      by: 'cara',
      act: ({ ana }) => ana.delete('a', '*'),
      code: 'ERR01',
      status: 404,
    },
    {
      what: 'the deletion of the store, for its creator,',
      by: 'ana',
      act: ({ ben, key }) => ben.delete(key, '*'),
      code: 'KEY01',
      status: 412,
    },
    {
      what: 'another write',
      by: 'cara',
      act: ({ ana }) => ana.put('a', 'faster', ANY),
      code: 'KEY01',
      status: 412,
    },
    {
      what: "the deletion of all its OWNs' accounts",
      by: 'cara',
      act: async ({ ana, ben }) => {
        for (const self of [ana, ben]) await self.request('/account', { method: 'DELETE' })
      },
      code: 'ERR01',
      status: 404,
    },
  ]

  for (const { what, by, act, code, status } of cases) {
    // In a bucket an upload of more than a day is refused before that.
    const skip = process.env['TEST_BLOBS'] === 's3' && what === BY_AGE
    it(`${what} wins: ${status} ${code}, and no file is left`, { skip }, async (t) => {
      const scene = await startWithStore(t)
      const { node, key, token } = scene
      const upload = await hold(node, scene[by], by === 'ana' ? 'a' : key, {
        headers: { 'X-Sync-Token': token },
      })
      await act(scene)
      const state = () => one(node, 'SELECT group_concat(store_token) FROM sync_store')
      const before = await state()
      await expectProblem(await finish(upload), code, status)
      assert.equal(await state(), before)
      await eventually(() => blobFiles(node), [])
    })
  }

  it('a logout wins over a new store too, and over what says *', async (t) => {
    const { node, ana } = await startWithStore(t)
    for (const [name, headers] of [
      ['new', {}],
      ['new', { 'If-None-Match': '*' }],
      ['a', ANY],
    ] as [string, Record<string, string>][]) {
      const phone = await openSession(node, ana)
      const upload = await hold(node, phone, name, { headers })
      await expectStatus(await phone.request('/auth', { method: 'DELETE' }), 204)
      await expectProblem(await finish(upload), 'AUTH01', 401)
    }
    await expectProblem(await ana.get('new'), 'ERR01', 404)
    await eventually(() => blobFiles(node), [])
  })

  it('another who makes the same store wins', async (t) => {
    const { node, ana } = await startWithStore(t)
    const upload = await hold(node, ana, 'new')
    const { token } = await ana.save('new', 'faster')
    const answer = await finish(upload)
    assert.equal(answer.headers.get('x-sync-token'), token)
    await expectProblem(answer, 'KEY01', 428)
    assert.equal(await (await ana.get('new')).text(), 'faster')
    await eventually(() => blobFiles(node), [])
  })

  it('what leaves it its right does not matter', async (t) => {
    const { node, ana, cara, key } = await startWithStore(t)
    const upload = await hold(node, cara, key, { headers: ANY })
    await ana.save('a', 'between', ANY)
    await expectStatus(await ana.grant('a', 'cara', 'OWN'), 200)
    await expectStatus(await ana.revoke('a', 'ben'), 204)
    await expectStatus(await finish(upload), 204)
    assert.equal((await ana.get('a')).headers.get('content-length'), String(LARGE))
    await expectNoStrayFile(node)
  })

  it('what says * lands on whatever the store has become', async (t) => {
    const { node, ana, cara, key } = await startWithStore(t)
    const small = { key, value: 'small', headers: ANY }
    for (const between of ['', 'x'.repeat(LARGE), 'y']) {
      const [inRow, inFile] = [
        await holdBack(node.url, cara, small),
        await hold(node, cara, key, { headers: ANY }),
      ]
      await ana.save('a', between, ANY)
      assert.equal((await inRow.finish()).status, 204)
      assert.equal(await (await ana.get('a')).text(), 'small')
      await expectStatus(await finish(inFile), 204)
      assert.equal((await ana.get('a')).headers.get('content-length'), String(LARGE))
      await ana.save('a', 'small again', ANY)
    }
    await expectNoStrayFile(node)
    assert.equal(await one(node, 'SELECT count(*) FROM store_data'), 1)
  })

  it('nobody sees anything of it', async (t) => {
    const { node, ana, token } = await startWithStore(t)
    const [upload, another] = [
      await hold(node, ana, 'a', { headers: ANY }),
      await hold(node, ana, 'new'),
    ]
    assert.equal((await ana.get('a')).headers.get('x-sync-token'), token)
    await expectProblem(await ana.get('new'), 'ERR01', 404)
    assert.equal((await ana.list()).length, 1)
    for (const one of [upload, another]) one.abort()
    await eventually(() => blobFiles(node), [])
    assert.equal((await ana.get('a')).headers.get('x-sync-token'), token)
    await expectProblem(await ana.get('new'), 'ERR01', 404)
  })
})

describe('uploads of an account', () => {
  const holdEight = async (node: TestNode, self: Client): Promise<Upload[]> => {
    const uploads: Upload[] = []
    for (let i = 0; i < 8; i++) uploads.push(await hold(node, self, `k${i}`))
    return uploads
  }

  async function expectRefused(node: TestNode, self: Client, key: string): Promise<void> {
    const upload = startUpload(node, self, key)
    upload.write(randomBytes(LARGE))
    const answer = await upload.answer
    assert.ok(Number(answer.headers.get('retry-after')) > 0)
    await expectProblem(answer, 'RATE01', 429)
  }

  it('are 8 at once, in all its sessions; the ninth is RATE01', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await openAccounts(node, ['ana', 'ben'])
    const uploads = await holdEight(node, ana)
    await expectRefused(node, ana, 'ninth')
    await expectRefused(node, await openSession(node, ana), 'ninth')
    assert.equal(blobFiles(node).length, 8)
    // What fits into a row is no upload, and others have their own eight.
    await ana.save('small', 'x')
    await ben.save('large', randomBytes(LARGE))
    await expectStatus(await finish(uploads[0] as Upload), 201)
    await ana.save('ninth', randomBytes(LARGE))
    for (const upload of uploads.slice(1)) await expectStatus(await finish(upload), 201)
    await expectNoStrayFile(node)
  })

  it('free their place when the client goes away', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const uploads = await holdEight(node, ana)
    await expectRefused(node, ana, 'ninth')
    for (const upload of uploads) upload.abort()
    await eventually(() => blobFiles(node), [])
    const again = await holdEight(node, ana)
    for (const upload of again) await expectStatus(await finish(upload), 201)
  })

  it('free their place, and their file, whatever they were refused for', async (t) => {
    const node = await startNode(t, { QUOTA: '500000', MAX_VALUE_SIZE: '400000' })
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('a', 'x')
    const wrong = createHash('sha256').update('other').digest('base64')
    for (let round = 0; round < 9; round++) {
      for (const [body, headers, code] of [
        [LARGE, { ...ANY, 'Repr-Digest': `sha-256=:${wrong}:` }, 'REQ01'],
        [400_001, ANY, 'SIZE01'],
      ] as const) {
        const upload = startUpload(node, ana, 'a', headers)
        upload.write(randomBytes(body))
        await expectProblem(await finish(upload), code)
      }
    }
    await eventually(() => blobFiles(node), [])
    assert.equal((await ana.get('a')).headers.get('x-sync-token'), token)
    const uploads = await times(8, (i) => ana.put(`k${i}`, randomBytes(50_000)))
    assert.deepEqual(statusesOf(uploads), others(8, 201))
  })
})
