// Owns the proof that an account with very many stores goes at once, whoever looks, and that nobody
// waits while its rows go in the background. `make test T=vast STORES=1000000` takes a million: that
// is some minutes. The test prints its figures.
import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import type { Statement } from '../src/database/database.ts'
import { cheapen, count, tryLogin } from './helpers/ask.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { openStream, readAll, readPage, type EventStream } from './helpers/feed.ts'
import { startNode, type TestNode } from './helpers/node.ts'

const STORES = Number(process.env['STORES'] ?? 40_000)
// Of ana's stores, every second is read by bob, and every hundredth owned by both.
const READ_BY_BOB = 's.store_data % 2 = 0'
const OWNED_BY_BOTH = 's.store_data % 100 = 1'
const ANY = { 'X-Sync-Token': '*' }
/** Slices of the clean-up that may go by while one request is answered. */
const MOST_SLICES = 100

interface Scene {
  node: TestNode
  ana: Client
  bob: Client
  cara: Client
  keys: Record<'own' | 'shared' | 'both' | 'ofBob', string[]>
}

/** Rows straight into the database, as the triggers make them: a million of PUTs would take an hour. */
async function startWithMany(t: TestContext): Promise<Scene> {
  const node = await startNode(t)
  const ids = ['ana', 'bob', 'cara', 'dan']
  const [ana, bob, cara] = (await Promise.all(ids.map((id) => node.signUp(id)))) as [
    Client,
    Client,
    Client,
  ]
  await cheapen(node, 'dan')
  await cara.save('of cara', 'x')
  await ana.save('diary', 'old')
  await node.stop()
  const database = new DatabaseSync(`${node.root}/sync-node.db`)
  const numberOf = ({ user }: Client): string =>
    `(SELECT number FROM sync_account WHERE id = '${user}')`
  const numbers = `WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ${STORES})`
  const random = "'~' || substr(hex(randomblob(22)), 1, 43)"
  database.exec(`
    PRAGMA synchronous = OFF;
    BEGIN;
    INSERT INTO store_data (id, value) ${numbers} SELECT 1000 + i, x'76' FROM n;
    INSERT INTO sync_store (store_key, store_data, store_token, size, digest, modified)
    ${numbers} SELECT ${random}, 1000 + i, 't' || i, 1, zeroblob(32), i FROM n;
    INSERT INTO account_permission (sync_account_id, store_key, permission)
    SELECT ${numberOf(ana)}, s.store_key, 'OWN' FROM sync_store s WHERE s.store_data > 1000;
    INSERT INTO account_permission (sync_account_id, store_key, permission)
    SELECT ${numberOf(bob)}, s.store_key, iif(${OWNED_BY_BOTH}, 'OWN', 'READ') FROM sync_store s
    WHERE s.store_data > 1000 AND (${READ_BY_BOB} OR ${OWNED_BY_BOTH});
    COMMIT`)
  const select = (which: string): string[] =>
    database
      .prepare(`SELECT s.store_key FROM sync_store s WHERE s.store_data > 1000 AND ${which}`)
      .all()
      .map((row) => String(row['store_key']))
  const keys = {
    own: select(`NOT (${READ_BY_BOB}) AND NOT (${OWNED_BY_BOTH}) LIMIT 100`),
    shared: select(READ_BY_BOB),
    both: select(OWNED_BY_BOTH),
  }
  database.close()
  await node.restart()
  const { key: ofBob } = await bob.save('of bob', 'x')
  return { node, ana, bob, cara, keys: { ...keys, ofBob: [ofBob] } }
}

/** What an account that took the id of the dead one may never see. */
async function expectNoRemnant(anew: Client, { keys }: Scene): Promise<void> {
  const list = await expectStatus(await anew.request('/store'), 200)
  assert.deepEqual(await list.json(), [])
  assert.equal(list.headers.get('x-sync-quota-used'), '0')
  const page = await readPage(anew)
  assert.deepEqual([page.changes, page.more], [[], false])
  for (const ofKind of Object.values(keys)) {
    for (const key of [ofKind[0] as string, ofKind.at(-1) as string]) {
      await expectProblem(await anew.get(key), 'ERR01', 404)
      await expectProblem(await anew.put(key, 'x', ANY), 'ERR01', 404)
      await expectProblem(await anew.put(key, 'x', { 'If-None-Match': '*' }), 'ERR01', 404)
      await expectProblem(await anew.request(`/permission/${key}`), 'ERR01', 404)
    }
  }
  await expectStatus(await anew.put('diary', 'new'), 201)
  await expectStatus(await anew.delete('diary', '*'), 204)
}

/** What is left to the account with which the dead one shared. */
async function expectOwnAlone(bob: Client, { keys }: Scene): Promise<void> {
  const listed = (await bob.list()).map(({ key }) => key)
  expectSame(listed, [...keys.both, ...keys.ofBob], 'listed')
  for (const key of [keys.shared[0] as string, keys.shared.at(-1) as string]) {
    await expectProblem(await bob.get(key), 'ERR01', 404)
  }
}

interface Asked {
  answers: number
  /** What went by during the slowest. */
  slices: number
  ms: number
}

/** Makes these requests in turn, again and again, until `isOver`. */
async function askInTurn(
  requests: Record<string, () => Promise<unknown>>,
  seen: { slices: number },
  isOver: () => boolean,
): Promise<Map<string, Asked>> {
  const asked = new Map<string, Asked>()
  while (!isOver()) {
    for (const [name, request] of Object.entries(requests)) {
      const [{ slices }, startMs] = [{ ...seen }, performance.now()]
      await request()
      const before = asked.get(name) ?? { answers: 0, slices: 0, ms: 0 }
      asked.set(name, {
        answers: before.answers + 1,
        slices: Math.max(before.slices, seen.slices - slices),
        ms: Math.max(before.ms, performance.now() - startMs),
      })
    }
  }
  return asked
}

/** Counts the slices in which the rows of the dead account go, and the rows that go at once. */
function watchSlices({ running }: TestNode): { slices: number; mostRows: number } {
  const { database } = running.deps
  const { execute, batch } = database
  const seen = { slices: 0, mostRows: 0 }
  // No mock, which would keep each call and what it answered.
  database.execute = (statement: Statement | string) => {
    const text = typeof statement === 'string' ? statement : statement.sql
    if (text.includes('AS dead')) seen.slices++
    return execute(statement)
  }
  database.batch = async (...args) => {
    const results = await batch(...args)
    const rows = results.reduce((sum, { rowsAffected }) => sum + rowsAffected, 0)
    seen.mostRows = Math.max(seen.mostRows, rows)
    return results
  }
  return seen
}

/** How many requests of others are answered while `work` runs. */
async function answeredDuring(
  { node, cara }: Scene,
  work: () => Promise<unknown>,
): Promise<number> {
  let answers = 0
  let isOver = false
  const all = Array.from({ length: 8 }, async () => {
    while (!isOver) {
      await readWhole(node, '/store/of%20cara', cara)
      answers++
    }
  })
  await readWhole(node, '/info', cara)
  const before = answers
  await work()
  const during = answers - before
  isOver = true
  await Promise.all(all)
  return during
}

/** Without a look at what it says: that takes time of its own. */
const readWhole = async (node: TestNode, path: string, { headers }: Client): Promise<string> =>
  (await fetch(node.url + path, { headers })).text()

/** Reads a stream until it has told of so many stores that are there, or so many that are deleted. */
async function take(
  stream: EventStream,
  { deleted, length }: { deleted: boolean; length: number },
): Promise<string[]> {
  const keys: string[] = []
  while (keys.length < length) {
    const event = await stream.next()
    assert.ok(event, 'the stream has ended')
    if ((event.change.deleted === true) === deleted) keys.push(event.change.key)
  }
  return keys
}

/** The same keys, each once; a list of thousands would be no message. */
function expectSame(found: string[], expected: string[], what: string): void {
  const isSame = isDeepStrictEqual(found.toSorted(), expected.toSorted())
  assert.ok(isSame, `${what}: ${found.length} keys, not the ${expected.length} that it should be`)
}

describe(`an account with ${STORES} stores that is deleted`, () => {
  it('is gone at once and whole, and nobody waits for its rows to go', async (t) => {
    const scene = await startWithMany(t)
    const { node, ana, bob, cara, keys } = scene
    const { cursor } = await readAll(bob, undefined, 1000)
    const live = await openStream(bob, { query: `?since=${cursor}` })
    const say = (name: string, sinceMs: number): void =>
      t.diagnostic(`${name}: ${Math.round(performance.now() - sinceMs)} ms`)

    const deletedMs = performance.now()
    await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
    say('DELETE /account', deletedMs)
    const anew = await node.signUp('ana')
    await expectNoRemnant(anew, scene)
    await expectOwnAlone(bob, scene)

    // What bob reads has to pass over all that is dead in it.
    const reads: Record<string, () => Promise<unknown>> = {
      list: () => readWhole(node, '/store', bob),
      page: () => readWhole(node, '/changes?limit=1000', bob),
      stream: async () => {
        const stream = await openStream(bob)
        await take(stream, { deleted: false, length: keys.both.length + 1 })
        await stream.close()
      },
    }
    for (const [name, read] of Object.entries(reads)) {
      const answers = await answeredDuring(scene, read)
      assert.ok(answers > 32, `${answers} are answered while bob reads a ${name}`)
    }

    const seen = watchSlices(node)
    let isOver = false
    const cleanMs = performance.now()
    const clean = async (): Promise<void> => {
      await node.running.housekeep()
      isOver = true
      say(`the clean-up, ${seen.slices} slices`, cleanMs)
    }
    const requests = {
      PUT: () => cara.save('of cara', 'y', ANY),
      GET: () => cara.get('of cara'),
      login: async () => expectStatus(await tryLogin(node, 'dan'), 200),
      'PUT of what both owned': () => bob.save(keys.both[0] as string, 'y', ANY),
    }
    const lookForRemnants = async (): Promise<void> => {
      while (!isOver) await expectNoRemnant(anew, scene)
    }
    const [told, asked] = await Promise.all([
      take(live, { deleted: true, length: keys.shared.length }),
      askInTurn(requests, seen, () => isOver),
      lookForRemnants(),
      clean(),
    ])
    assert.ok(seen.mostRows <= 1000, `${seen.mostRows} rows went at once`)
    for (const [name, { answers, slices, ms }] of asked) {
      const slowest = `the slowest took ${Math.round(ms)} ms and ${slices} slices`
      t.diagnostic(`${name}: ${answers} answers, ${slowest}`)
      assert.ok(answers > 1 && slices <= MOST_SLICES, `${name}: ${slowest}`)
    }

    await live.close()
    expectSame(told, keys.shared, 'told by the stream')
    const { changes } = await readAll(bob, cursor, 1000)
    const gone = changes.filter(({ deleted }) => deleted === true)
    expectSame(
      gone.map(({ key }) => key),
      keys.shared,
      'told in pages',
    )
    await expectNoRemnant(anew, scene)
    await expectOwnAlone(bob, scene)
    for (const [table, left] of [
      ['sync_account WHERE dead = 1', 0],
      ['sync_store', keys.both.length + 2],
      ['store_data', keys.both.length + 2],
      ['account_permission', keys.both.length + 2],
    ] as const) {
      assert.equal(await count(node, table), left, table)
    }
    t.diagnostic(
      `at most ${Math.round(process.resourceUsage().maxRSS / 1024)} MB, the test's own too`,
    )
  })
})
