// Proves that migrate-data brings all that a server has to where it can grow: nothing is missing or
// another there, wherever it was killed on the way, and what it comes from stays as it is.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { hash, randomBytes } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import type { Database } from '../src/database/database.ts'
import { open as openRemote } from '../src/database/remote.ts'
import { parseEnvironmentFile } from '../src/environment-file.ts'
import { done, refused } from './helpers/backups.ts'
import { startBucket, type FakeBucket } from './helpers/bucket.ts'
import { through, type Client } from './helpers/client.ts'
import { startDatabaseProxy } from './helpers/database-proxy.ts'
import { EXECUTABLE, FROM_SOURCE, install } from './helpers/executable.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { readAll, readPage, type Change } from './helpers/feed.ts'
import { startNode, temporaryFolder, type TestNode } from './helpers/node.ts'
import { block } from './helpers/readme.ts'
import { plant } from './helpers/rows.ts'
import { hasSqld, openServer, type Sqld } from './helpers/sqld.ts'
import { skip as skipSwift, startSwift } from './helpers/swift.ts'

const KIB = 1024
const PART = 8 * KIB * KIB
const DAY = 86_400_000
// Where bugs are seeded there is none.
const PROGRAM = existsSync(EXECUTABLE[0] as string) ? EXECUTABLE : FROM_SOURCE
const ANY = { 'X-Sync-Token': '*' }
const skip = hasSqld ? false : 'there is no sqld for this machine'

type Environment = Record<string, string>

interface World {
  root: string
  people: Client[]
  /** Of each, from when there was half of it. */
  cursors: Map<string, string>
  /** That eve was mailed. */
  resetToken: string
  seen: unknown
  /** What came after the cursors. */
  news: unknown
}

/** All that one can see: stores with their values, who may what, sessions, the feed. */
async function lookOf(self: Client): Promise<unknown> {
  const listed = await expectStatus(await self.request('/store'), 200)
  const used = listed.headers.get('x-sync-quota-used')
  const list = (await listed.json()) as { key: string; size: number }[]
  const stores: unknown[] = []
  for (const one of list.filter(({ key, size }, i) => size > 100 || i < 20 || key === '')) {
    const cut = (): never => assert.fail(`${one.key} is cut short`)
    const got = await self.get(one.key).catch(cut)
    const bytes = Buffer.from(await got.arrayBuffer().catch(cut))
    const headers = ['x-sync-token', 'x-sync-meta', 'repr-digest', 'last-modified', 'etag']
    const permissions = await (await self.request(`/permission/${one.key}`)).json()
    const heads = headers.map((name) => got.headers.get(name))
    stores.push([got.status, heads, bytes.length, hash('sha256', bytes), permissions])
  }
  const sessions = await (await self.request('/account')).json()
  const { changes } = await readAll(self, undefined, 1000)
  return { list, used, stores, sessions, changes }
}

async function newsOf({ people, cursors }: World, node: TestNode): Promise<[string, Change[]][]> {
  const all: [string, Change[]][] = []
  for (const one of people) {
    const { changes } = await readAll(through(node, one), cursors.get(one.id), 1000)
    all.push([one.id, changes])
  }
  return all
}

async function allSee({ people }: World, node: TestNode): Promise<unknown> {
  const all: unknown[] = []
  for (const one of people) all.push([one.id, await lookOf(through(node, one))])
  return all
}

/** A server that has some of everything, and was stopped. */
async function makeWorld(t: TestContext, root: string): Promise<World> {
  const node = await startNode(t, { BLOB_URL: '' }, { root })
  const [ana, ben, cleo] = [
    await node.signUp('ana', { device: 'phone' }),
    await node.signUp('ben'),
    await node.signUp('cleo'),
  ]
  const laptop = await node.logIn('ana', { device: 'laptop' })
  const gone = await node.logIn('ben')
  await expectStatus(await gone.request('/auth', { method: 'DELETE' }), 204)
  for (const [i, size] of [0, 1, 16 * KIB, 16 * KIB + 1, 300_000, PART + 1].entries()) {
    await ana.save(`v${i}`, randomBytes(size), i % 2 === 0 ? {} : { 'X-Sync-Meta': `meta ${i}` })
  }
  const operations = Array.from({ length: 600 }, (_, i) => ({ put: `n${i}`, data: btoa(`${i}`) }))
  const batch = { method: 'POST', body: JSON.stringify({ operations }) }
  await expectStatus(await ben.request('/batch', batch), 200)
  for (let i = 0; i < 12; i++) await ben.save(`large ${i}`, randomBytes(20_000 + i))
  await expectStatus(await ana.grant('v3', 'ben', 'READ'), 200)
  await expectStatus(await ana.grant('v4', 'cleo', 'OWN'), 200)
  await expectStatus(await ana.grant('v1', 'cleo', 'WRITE'), 200)
  const people = [ana, laptop, ben, cleo]
  people.forEach((one, i) => (one.id = `${one.id} ${i}`))
  const cursors = new Map<string, string>()
  for (const one of people) cursors.set(one.id, (await readAll(one, undefined, 1000)).cursor)
  await ana.save('v4', randomBytes(40_000), ANY)
  await expectStatus(await ana.delete('v0', (await ana.save('v0', 'x', ANY)).token), 204)
  await expectStatus(await ana.revoke('v3', 'ben'), 204)
  await expectStatus(await ben.grant('n7', 'ana', 'WRITE'), 200)
  await node.signUp('eve@example.org')
  const forgotten = { method: 'POST', body: JSON.stringify({ id: 'eve@example.org' }) }
  await expectStatus(await node.request('/resetpassword', forgotten), 204)
  await eventually(() => node.mails.length, 1)
  await plant(node, `INSERT INTO invitation VALUES ('${'i'.repeat(43)}', ${Date.now() + DAY})`)
  await plant(node, `INSERT INTO hold VALUES ('lease-sweep', ${Date.now() + DAY})`)
  const dora = await node.signUp('dora')
  await dora.save('dora', randomBytes(17_000))
  await expectStatus(await dora.grant('dora', 'ben', 'READ'), 200)
  await expectStatus(await dora.request('/account', { method: 'DELETE' }), 204)
  await node.running.housekeep()
  const resetToken = node.mails[0]?.token ?? ''
  const world: World = { root, people, cursors, resetToken, seen: null, news: null }
  world.seen = await allSee(world, node)
  world.news = await newsOf(world, node)
  await node.stop()
  return world
}

/** What is in each file of the folder, and when it was changed. */
const filesIn = (root: string): string[] =>
  (readdirSync(root, { recursive: true }) as string[]).sort().map((name) => {
    const path = join(root, name)
    const { size, mtimeMs } = statSync(path)
    const isFile = statSync(path).isFile()
    return `${name} ${size} ${mtimeMs} ${isFile ? hash('sha256', readFileSync(path)) : ''}`
  })

/** The settings that it prints. */
const linesOf = (stdout: string): Environment =>
  Object.fromEntries(
    [...stdout.matchAll(/^(\w+)='(.*)'$/gm)].map(([, name = '', value = '']) => [name, value]),
  )

interface Call {
  toBucket: string[]
  environment: Environment
}

/** What a move is called with: where the bucket is, and its credentials. */
function callOf(bucket: Pick<FakeBucket, 'environment'>, root: string): Call {
  const { BLOB_URL: url = '', ...credentials } = bucket.environment
  return {
    toBucket: ['migrate-data', '--to', url],
    environment: { ...credentials, STATIC_ROOT: root },
  }
}

/** A node that serves all that was, to the same sessions, from the same cursors. */
async function expectWorld(
  t: TestContext,
  world: World,
  environment: Environment,
): Promise<TestNode> {
  const node = await startNode(t, environment, { root: world.root })
  assert.deepEqual(await allSee(world, node), world.seen)
  assert.deepEqual(await newsOf(world, node), world.news)
  for (const one of world.people) {
    const self = through(node, one)
    const { cursor } = await readAll(self, world.cursors.get(one.id), 1000)
    assert.deepEqual((await readPage(self, `?since=${cursor}`)).changes, [])
  }
  return node
}

/** The same data in a folder of its own, for one more move. */
function copyOf(t: TestContext, world: World): World {
  const root = join(temporaryFolder(t), 'data')
  cpSync(world.root, root, { recursive: true, preserveTimestamps: true })
  return { ...world, root }
}

const fileOf = (root: string, size: number): string =>
  (readdirSync(join(root, 'blobs')) as string[])
    .map((name) => join(root, 'blobs', name))
    .find((path) => statSync(path).size === size) ?? ''

/** Changes the database of a server that does not run. */
function change(root: string, text: string): void {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  database.exec(text)
  database.close()
}

async function openDatabase({ url }: Sqld): Promise<Database> {
  const silent = { isServer: false, onWarning: () => undefined, onChange: () => undefined }
  return openRemote({ url, authToken: null, ...silent })
}

/** All rows of a database server, by table. */
async function rowsIn(sqld: Sqld): Promise<Record<string, unknown>> {
  const database = await openDatabase(sqld)
  const { rows } = await database.execute(`SELECT name FROM sqlite_master WHERE type = 'table'`)
  const found: Record<string, unknown> = {}
  for (const row of rows) {
    const name = String(row['name'])
    found[name] = plainRows((await database.execute(`SELECT * FROM "${name}"`)).rows)
  }
  database.close()
  return found
}

/** The same of a file that no server has open. */
function rowsOf({ root }: World, name: string): unknown {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  const rows = database.prepare(`SELECT * FROM "${name}"`).all()
  database.close()
  return plainRows(rows)
}

/** In one order, with bytes as hex. */
const plainRows = (rows: object[]): unknown[] =>
  rows
    .map((row) =>
      Object.fromEntries(
        Object.entries(row).map(([name, value]): [string, unknown] => {
          const isBytes = value instanceof Uint8Array || value instanceof ArrayBuffer
          return [name, isBytes ? Buffer.from(value as Uint8Array).toString('hex') : value]
        }),
      ),
    )
    .toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))

/** Row by row what the file has, but for an id of its own and who works there. */
async function expectRows(world: World, sqld: Sqld): Promise<void> {
  const { node, hold, ...tables } = await rowsIn(sqld)
  const names = Object.keys(tables)
  assert.ok(names.length > 10)
  for (const name of names) assert.deepEqual(tables[name], rowsOf(world, name), name)
  assert.deepEqual(hold, [])
  const [own] = rowsOf(world, 'node') as object[]
  assert.partialDeepStrictEqual(node, [{ ...own, id: (node as { id: string }[])[0]?.id }])
}

const secretsOf = ({ root }: World, environment: Environment): string[] => [
  environment['AWS_SECRET_ACCESS_KEY'] ?? '',
  readFileSync(join(root, 'secret'), 'utf8').trim(),
]

let made: World | undefined
const folders: string[] = []

/** A world of its own for each test, made once. */
async function openWorld(t: TestContext): Promise<World> {
  if (made === undefined) {
    const folder = mkdtempSync(join(tmpdir(), 'sync-node-'))
    folders.push(folder)
    made = await makeWorld(t, join(folder, 'data'))
  }
  return copyOf(t, made)
}

after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })))

describe('sync-node migrate-data', { skip }, () => {
  it('brings all to a database server and a bucket, and leaves the folder as it is', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const { toBucket, environment } = callOf(bucket, world.root)
    const before = filesIn(world.root)
    const here = install(t, PROGRAM)
    const token = { DATABASE_AUTH_TOKEN: 'a.secret.token' }
    const ran = await here.run([...toBucket, '--to', sqld.url], { ...environment, ...token })
    const stdout = done(ran)
    assert.deepEqual(filesIn(world.root), before)
    for (const secret of [...secretsOf(world, environment), token.DATABASE_AUTH_TOKEN]) {
      assert.ok(secret !== '' && !(stdout + ran.stderr).includes(secret))
    }
    const lines = linesOf(stdout)
    assert.deepEqual(Object.keys(lines), ['BLOB_URL', 'DATABASE_URL', 'SECRET_KEY_FILE'])
    assert.match(
      ran.stderr,
      /^Data: .*\n4 accounts, 617 stores, .*: moved and compared\nPut these lines .*:\nand beside them what is set here: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, DATABASE_AUTH_TOKEN\nEvery other node .*\n$/,
    )
    const settings = { ...environment, ...lines }
    const again = await here.run([...toBucket, '--to', sqld.url], environment)
    assert.deepEqual(linesOf(done(again)), lines, 'all is there: it says so once more')
    await expectRows(world, sqld)
    const node = await expectWorld(t, world, settings)
    await through(node, world.people[0] as Client).save('new', randomBytes(50_000))
    const reset = { token: world.resetToken, password: 'another good password' }
    const body = JSON.stringify(reset)
    await expectStatus(await node.request('/password', { method: 'POST', body }), 204)
    await node.running.housekeep()
    const looked = await here.run(['doctor'], settings)
    assert.equal(looked.code, 0, looked.stdout)
    assert.match(looked.stdout, /^ok +sums:/m)
    assert.match(looked.stdout, /^ok +values: 618 values .*all there$/m)
    bucket.objects.delete(bucket.values()[3] ?? '')
    const missing = await here.run(['doctor'], settings)
    assert.match(missing.stdout, /^problem +values: 1 of 618 values/m)
    assert.match(
      refused(await here.run([...toBucket, '--to', sqld.url], environment)),
      /moved to this database server already, and was used there or here since: an empty one takes it again\.$/,
    )
    assert.deepEqual(filesIn(world.root), before)
  })

  it('brings values to a bucket, and from there all else to a database server', async (t) => {
    const world = await openWorld(t)
    const bucket = await startBucket(t)
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const before = filesIn(world.root)
    const lines = linesOf(done(await here.run(toBucket, environment)))
    assert.deepEqual([filesIn(world.root), Object.keys(lines)], [before, ['BLOB_URL']])
    done(await here.run(toBucket, environment))
    bucket.goAway()
    const silent = { ...environment, ...lines, LOG_LEVEL: 'silent' }
    const early = refused(await here.run(['serve'], silent))
    assert.match(early, /and the bucket does not say whether it has them/)
    bucket.comeBack()
    const node = await expectWorld(t, world, { ...environment, ...lines })
    const names = readdirSync(world.root)
    assert.ok(!names.includes('blobs') && names.some((name) => name.startsWith('blobs.moved-')))
    await node.stop()
    assert.match(
      refused(await here.run(['serve'], environment)),
      /BLOB_URL is not set, and the folder blobs is missing/,
    )
    const sqld = await openServer(t)
    const files = filesIn(world.root)
    const toServer = ['migrate-data', '--to', sqld.url]
    const ran = await here.run(toServer, { ...environment, ...lines })
    const more = linesOf(done(ran))
    assert.deepEqual(Object.keys(more), ['DATABASE_URL', 'SECRET_KEY_FILE'])
    assert.deepEqual(filesIn(world.root), files)
    await expectWorld(t, world, { ...environment, ...lines, ...more })
    // Both would take what the other writes for left over.
    assert.match(
      refused(await here.run(['serve'], { ...environment, ...lines })),
      /a place with the values of other data/,
    )
  })

  it('brings values to a store of another make', { skip: skipSwift }, async (t) => {
    const world = await openWorld(t)
    const swift = await startSwift(t)
    const { toBucket, environment } = callOf(swift, world.root)
    const lines = linesOf(done(await install(t, PROGRAM).run(toBucket, environment)))
    await expectWorld(t, world, { ...environment, ...lines })
  })

  it('goes on where it was, wherever it was killed', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const proxy = await startDatabaseProxy(t, sqld.url)
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const before = filesIn(world.root)
    let left = 0
    let kill = (): void => undefined
    const strike = (): boolean => {
      if (--left === 0) kill()
      return left <= 0
    }
    bucket.fault = () => (strike() ? 'hang' : undefined)
    proxy.holds = strike
    let runs = 0
    let isRefused = false
    for (let calls = 1; ; calls += 3, runs++) {
      left = calls
      const child = here.launch([...toBucket, '--to', proxy.url], environment)
      kill = () => child.signal('SIGKILL')
      const { signal, code } = await child.ended
      if (signal === null) {
        assert.equal(code, 0, child.output().stderr)
        break
      }
      if (runs % 8 !== 4) continue
      left = Infinity
      const settings = { ...environment, DATABASE_URL: sqld.url, BLOB_URL: toBucket[2] ?? '' }
      const secret = { SECRET_KEY_FILE: join(world.root, 'secret') }
      const line = refused(await here.run(['serve'], { ...settings, ...secret }))
      assert.match(line, /not all (?:come|there)|has not all come/)
      isRefused = true
    }
    assert.ok(runs > 12 && isRefused, `killed ${runs} times`)
    t.diagnostic(`killed ${runs} times`)
    const values = bucket.values().length
    assert.equal(values, new Set(bucket.values()).size)
    bucket.fault = null
    proxy.holds = null
    assert.deepEqual(filesIn(world.root), before)
    const settings = { ...environment, DATABASE_URL: sqld.url, BLOB_URL: toBucket[2] ?? '' }
    const secret = { SECRET_KEY_FILE: join(world.root, 'secret') }
    await expectWorld(t, world, { ...settings, ...secret })
  })

  it('goes on by itself when the database does not answer for a moment', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const proxy = await startDatabaseProxy(t, sqld.url)
    const { toBucket, environment } = callOf(bucket, world.root)
    let lost = 0
    const lose = (body: string): boolean => {
      const isRows = /INSERT INTO .{1,4}(?:sync_store|account_permission)/.test(body)
      if (isRows && ++lost < 3) setImmediate(() => (proxy.loseAnswer = lose))
      return isRows
    }
    proxy.loseAnswer = lose
    done(await install(t, PROGRAM).run([...toBucket, '--to', proxy.url], environment))
    assert.equal(lost, 3)
    await expectRows(world, sqld)
  })

  it('stops at once when it is told to, and goes on when it is called again', async (t) => {
    const world = await openWorld(t)
    const bucket = await startBucket(t)
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const child = here.launch(toBucket, environment)
    bucket.fault = (call) => {
      if (call.includes('partNumber')) child.signal('SIGINT')
      return undefined
    }
    const ended = { ...(await child.ended), ...child.output() }
    assert.equal(refused(ended), 'sync-node: Interrupted.')
    bucket.fault = null
    assert.equal(bucket.uploads.size, 0)
    const early = { ...environment, BLOB_URL: toBucket[2] ?? '' }
    assert.match(
      refused(await here.run(['serve'], early)),
      /values lie in .* by sync-node migrate-data/,
    )
    const lines = linesOf(done(await here.run(toBucket, environment)))
    await expectWorld(t, world, { ...environment, ...lines })
  })

  it('begins anew when the data was used meanwhile', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const args = [...toBucket, '--to', sqld.url]
    // All but its end.
    bucket.fault = (call) =>
      call === 'PUT sync-node' && bucket.values().length > 5
        ? { status: 403, code: 'AccessDenied' }
        : undefined
    assert.match(
      refused(await here.run(args, environment)),
      /The bucket refuses this server \(it answers 403 AccessDenied\): run this again\.$/,
    )
    bucket.fault = null
    const node = await startNode(t, {}, { root: world.root })
    const [ana] = world.people.map((one) => through(node, one)) as [Client]
    await ana.save('v2', randomBytes(30_000), ANY)
    await ana.save('later', 'value')
    await expectStatus(await ana.delete('v1', (await ana.save('v1', 'x', ANY)).token), 204)
    const now = { ...world, seen: await allSee(world, node), news: await newsOf(world, node) }
    await node.stop()
    const lines = linesOf(done(await here.run(args, environment)))
    await expectWorld(t, now, { ...environment, ...lines })
  })
})

describe('A target of migrate-data', { skip }, () => {
  it('is refused with data of others, which stays as it is', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket, theirs] = [await openServer(t), await startBucket(t), await startBucket(t)]
    const other = await startNode(t, {
      ...theirs.environment,
      SECRET_KEY: 's'.repeat(40),
      DATABASE_URL: sqld.url,
    })
    const bob = await other.signUp('bob')
    await bob.save('a', randomBytes(20_000))
    await other.stop()
    const here = install(t, PROGRAM)
    const before = await rowsIn(sqld)
    const mine = callOf(bucket, world.root)
    const refusal = async ({ toBucket, environment }: Call, ...more: string[]) =>
      refused(await here.run([...toBucket, ...more], environment))
    assert.match(
      await refusal(mine, '--to', sqld.url),
      /has data already that is not of this server: take an empty one\.$/,
    )
    assert.deepEqual([await rowsIn(sqld), [...bucket.objects.keys()]], [before, []])
    const taken = callOf(theirs, world.root)
    const objects = [...theirs.objects.keys()]
    assert.match(await refusal(taken), /has values of other data there: take another prefix\.$/)
    const empty = await openServer(t)
    assert.match(await refusal(taken, '--to', empty.url), /take another prefix/)
    assert.deepEqual([...theirs.objects.keys()], objects)
    const strange = await openServer(t)
    const database = await openDatabase(strange)
    await database.execute('CREATE TABLE photos (id INTEGER PRIMARY KEY) STRICT')
    database.close()
    assert.match(await refusal(mine, '--to', strange.url), /is not of this server/)
  })

  it('may be one that a server has begun, before anybody had an account', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const settings = { ...bucket.environment, SECRET_KEY: 's'.repeat(40), DATABASE_URL: sqld.url }
    const begun = await startNode(t, settings)
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const untouched = await rowsIn(sqld)
    assert.match(
      refused(await here.run([...toBucket, '--to', sqld.url], environment)),
      /A node runs on the database at --to: stop it first/,
    )
    assert.deepEqual(await rowsIn(sqld), untouched)
    await begun.stop()
    // Somebody may think that this is how data moves.
    const early = {
      ...environment,
      ...settings,
      SECRET_KEY: '',
      SECRET_KEY_FILE: join(world.root, 'secret'),
    }
    assert.match(refused(await here.run(['serve'], early)), /The secret is not the one/)
    const lines = linesOf(done(await here.run([...toBucket, '--to', sqld.url], environment)))
    await expectWorld(t, world, { ...environment, ...lines })
  })

  it('is emptied by the next run, where the one before was killed at that', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const secret = { SECRET_KEY_FILE: join(world.root, 'secret') }
    const settings = { ...bucket.environment, ...secret, DATABASE_URL: sqld.url }
    await (await startNode(t, settings)).stop()
    const proxy = await startDatabaseProxy(t, sqld.url)
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const child = here.launch([...toBucket, '--to', proxy.url], environment)
    proxy.holds = (body) => {
      const isHalfWay = body.includes('DROP TABLE \\"sync_account\\"')
      if (isHalfWay) child.signal('SIGKILL')
      return isHalfWay
    }
    assert.equal((await child.ended).signal, 'SIGKILL')
    assert.match(refused(await here.run(['serve'], settings)), /has not all come/)
    const other = await startBucket(t)
    const call = callOf(other, world.root)
    const args = [...call.toBucket, '--to', sqld.url]
    const lines = linesOf(done(await here.run(args, call.environment)))
    await expectWorld(t, world, { ...call.environment, ...lines })
  })

  it('that does not keep what it was given is noticed', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const proxy = await startDatabaseProxy(t, sqld.url)
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const args = [...toBucket, '--to', proxy.url]
    let damage = 'UPDATE store_data SET value = randomblob(3) WHERE id = 100'
    proxy.holds = (body) => {
      // The first question of the comparison: all rows have come.
      if (
        damage === '' ||
        !/SELECT[^"]*\\"id\\"[^"]*\\"number/.test(body) ||
        body.includes('INSERT')
      )
        return false
      void damageServer(sqld, damage)
      damage = ''
      return false
    }
    assert.match(
      refused(await here.run(args, environment)),
      /does not have what it was given \(store_data\): run this again, it begins anew\.$/,
    )
    const [key = ''] = bucket.values()
    const size = bucket.objects.get(key)?.bytes.length ?? 0
    bucket.objects.set(key, { bytes: randomBytes(size), modified: Date.now() })
    const lines = linesOf(done(await here.run(args, environment)))
    await expectWorld(t, world, { ...environment, ...lines })
  })
})

async function damageServer(sqld: Sqld, text: string): Promise<void> {
  const database = await openDatabase(sqld)
  await database.execute(text)
  database.close()
}

describe('What migrate-data comes from', { skip }, () => {
  it('is a server that does not run, whole, and in a file', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const { toBucket, environment } = callOf(bucket, world.root)
    const here = install(t, PROGRAM)
    const run = async (more: Environment, ...args: string[]) =>
      refused(await here.run(args.length === 0 ? toBucket : args, { ...environment, ...more }))
    const running = await here.serve(environment)
    assert.match(await run({}), /is in use: stop the server first\.$/)
    await running.stop('SIGKILL')
    const nowhere = join(here.folder, 'nowhere')
    assert.match(await run({ STATIC_ROOT: nowhere }), /holds no data/)
    assert.match(
      await run({ STATIC_ROOT: nowhere }, ...toBucket, '--to', sqld.url),
      /holds no data/,
    )
    assert.match(await run({ SECRET_KEY: 'x'.repeat(40) }), /The secret is not the one/)
    const settings = { DATABASE_URL: sqld.url, SECRET_KEY: 'x'.repeat(40), ...bucket.environment }
    assert.match(await run(settings), /The database is on a server already/)
    assert.match(await run(bucket.environment), /The values are in a bucket already/)
    assert.deepEqual([...bucket.objects.keys()], [])
    // What its log has alone comes along.
    done(await here.run(toBucket, environment))
  })

  it('may have damaged values: they are named, and all else is moved', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const { toBucket, environment } = callOf(bucket, world.root)
    const [ana, , ben] = world.people as [Client, Client, Client]
    writeFileSync(fileOf(world.root, 16_385), randomBytes(16_385))
    rmSync(fileOf(world.root, 20_003))
    change(
      world.root,
      `UPDATE store_data SET value = x'00' WHERE id = (SELECT store_data FROM sync_store JOIN account_permission USING (store_key) WHERE size = 1 AND store_meta IS NOT NULL)`,
    )
    const before = filesIn(world.root)
    const ran = await install(t, PROGRAM).run([...toBucket, '--to', sqld.url], environment)
    assert.equal(ran.code, 1)
    assert.deepEqual(filesIn(world.root), before)
    assert.equal(
      ran.stderr.match(/^damaged: ~[\w-]{43}(?:, blobs\/1-\w{26})?$/gm)?.length,
      3,
      ran.stderr,
    )
    assert.match(
      ran.stderr,
      /All is there but for 3 damaged values: see sync-node doctor --deep\.\n$/,
    )
    const node = await startNode(
      t,
      { ...environment, ...linesOf(ran.stdout) },
      { root: world.root },
    )
    for (const [one, key] of [
      [ana, 'v3'],
      [ana, 'v1'],
      [ben, 'large 3'],
    ] as const) {
      await expectProblem(await through(node, one).get(key), 'ERR02', 500)
    }
    await expectStatus(await through(node, ben).get('large 4'), 200)
    await node.stop()
    const alone = copyOf(t, world)
    const other = callOf(await startBucket(t), alone.root)
    let settings: Environment = {}
    for (let i = 0; i < 2; i++) {
      const again = await install(t, PROGRAM).run(other.toBucket, other.environment)
      assert.match(again.stderr, /All is there but for 3 damaged values/)
      settings = { ...other.environment, ...linesOf(again.stdout) }
    }
    const served = await startNode(t, settings, { root: alone.root })
    await expectProblem(await through(served, ana).get('v3'), 'ERR02', 500)
    await expectStatus(await through(served, ben).get('large 4'), 200)
  })
})

describe('What README.md says of growing', { skip }, () => {
  it('works as it stands', async (t) => {
    const world = await openWorld(t)
    const [sqld, bucket] = [await openServer(t), await startBucket(t)]
    const { toBucket, environment } = callOf(bucket, world.root)
    const [folder, programs] = [temporaryFolder(t), temporaryFolder(t)]
    symlinkSync(EXECUTABLE[0] as string, join(programs, 'sync-node'))
    for (const [name, script] of [
      ['sudo', 'exec "$@"'],
      ['systemctl', ':'],
    ] as const) {
      writeFileSync(join(programs, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    }
    const settings = join(folder, 'settings')
    const credentials = Object.entries(environment).map(([name, value]) => `${name}=${value}\n`)
    writeFileSync(join(folder, 'credentials'), credentials.join(''))
    const script = block('grow').replaceAll('/etc/default/sync-node', settings)
    const env = {
      bucket: toBucket[2],
      database: sqld.url,
      PATH: `${programs}:${process.env['PATH']}`,
    }
    await promisify(execFile)('sh', ['-e', '-c', script], {
      cwd: folder,
      env: { ...env, ...environment },
    })
    const written = parseEnvironmentFile(readFileSync(settings, 'utf8'))
    assert.ok(statSync(join(folder, 'before-growing.tar.zst')).size > 0)
    await expectWorld(t, world, written as Environment)
  })
})

describe('The way of calling migrate-data', { skip }, () => {
  it('is told in one line that says what it takes', async (t) => {
    const here = install(t, PROGRAM)
    const credentials = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret' }
    const s3 = ['--to', 's3://values']
    for (const [args, says] of [
      [[], /takes --to s3:\/\/bucket\/prefix, --to libsql:\/\/host, or one of each;/],
      [['--to', 'ftp://host'], /takes --to s3:/],
      [[...s3, ...s3], /or one of each;/],
      [[...s3, 'more'], /takes no arguments;/],
      [['--to', 's3://'], /--to takes s3:\/\/bucket\/prefix\?endpoint=/],
      [
        [...s3, '--to', 'libsql://host?authToken=hidden'],
        /--to takes a libSQL server such as libsql:/,
      ],
      [['--to', 'libsql://host'], /takes --to s3:\/\/bucket\/prefix too:/],
    ] as const) {
      const { code, stderr } = await here.run(['migrate-data', ...args], credentials)
      assert.equal(code, 2, stderr)
      assert.match(stderr, /^sync-node migrate-data: [^\n]+; see sync-node migrate-data --help\n$/)
      assert.match(stderr, says)
      assert.ok(!stderr.includes('hidden'))
    }
    const help = await here.run(['migrate-data', '--help'])
    assert.match(help.stdout, /^Usage: sync-node migrate-data --to URL \[--to URL\]$/m)
    const { stderr } = await here.run(['migrate-data', ...s3])
    assert.match(stderr, /AWS_ACCESS_KEY_ID is needed beside BLOB_URL/)
    assert.deepEqual(readdirSync(here.folder), [])
  })
})
