// Owns the proof of nodes on a database server: any number of them, that hear each other, outlive its
// death and what is lost on the way to it, and notice when it comes back as it was before.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { describe, it } from 'node:test'
import { readConfig } from '../src/config.ts'
import { sql, type Database } from '../src/database/database.ts'
import { follow } from '../src/database/follow.ts'
import { migrate } from '../src/database/migrate.ts'
import { open as openRemote } from '../src/database/remote.ts'
import { StartError } from '../src/errors.ts'
import { NotSent, openWire } from '../src/database/wire.ts'
import { openLog } from '../src/log.ts'
import { openForCommand, start } from '../src/node.ts'
import { openAccount } from './helpers/accounts.ts'
import { through } from './helpers/client.ts'
import { startDatabaseProxy } from './helpers/database-proxy.ts'
import { startBucket } from './helpers/bucket.ts'
import { eventually } from './helpers/eventually.ts'
import { EXECUTABLE, install } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { holdPoll, openStream, readAll, readPage } from './helpers/feed.ts'
import { SECRET_KEY, startNode, temporaryFolder, type TestNode } from './helpers/node.ts'
import { remoteClient, signUp } from './helpers/remote.ts'
import { one, rows } from './helpers/rows.ts'
import { hasSqld, openServer } from './helpers/sqld.ts'

const ANY = { 'X-Sync-Token': '*' }
const skip = hasSqld ? false : 'there is no sqld for this machine'

const listFiles = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder, { recursive: true }).map(String) : []

const isWrite = (body: string): boolean => body.includes('COMMIT')

describe('Nodes on a database server', { skip }, () => {
  it('can start at once on an empty one', async (t) => {
    const { url } = await openServer(t)
    const open = () => startNode(t, {}, { databaseUrl: url })
    const nodes = await Promise.all([open(), open(), open()])
    const [first, second, third] = nodes as [TestNode, TestNode, TestNode]
    assert.equal(await one(first, 'SELECT count(*) FROM migration'), 3)
    assert.equal(await one(first, 'SELECT start FROM node'), 3)
    const ana = await first.signUp('ana')
    for (const [key, node] of Object.entries({ first, second, third })) {
      await through(node, ana).save(key, new Uint8Array(20_000))
    }
    const files = await rows(second, 'SELECT store_file FROM sync_store')
    const starts = files.map((row) => String(row['store_file']).split('-', 1)[0])
    assert.deepEqual(new Set(starts), new Set(['1', '2', '3']))
    const info = (await (await second.request('/info')).json()) as Record<string, unknown>
    assert.equal(info['durability'], 'database')
  })

  it('are refused without the secret of its data, and where there is none', async (t) => {
    const sqld = await openServer(t)
    await startNode(t, {}, { databaseUrl: sqld.url })
    const open = (secretKey: string): Promise<unknown> =>
      start(
        {
          ...readConfig({ STATIC_ROOT: temporaryFolder(t), HOST: '127.0.0.1', PORT: '0' }),
          database: { url: sqld.url, authToken: 'a-token' },
          secretKey,
        },
        { log: openLog({ logLevel: 'silent' }) },
      )
    await assert.rejects(open('x'.repeat(40)), (error) => {
      assert.ok(error instanceof StartError)
      return error.message.startsWith('The secret is not the one this data was made with')
    })
    await sqld.kill()
    const refused = (what: string) => (error: unknown) => {
      assert.ok(error instanceof StartError && !error.message.includes('a-token'))
      return error.message.startsWith(`The database server ${what}: `)
    }
    await assert.rejects(open(SECRET_KEY), refused('at DATABASE_URL does not answer'))
    const guard = createServer((_, outgoing) => outgoing.writeHead(401).end('who are you?'))
    await new Promise<void>((resolve) => guard.listen(sqld.port, '127.0.0.1', resolve))
    t.after(() => guard.close())
    await assert.rejects(open(SECRET_KEY), refused('refuses DATABASE_AUTH_TOKEN'))
  })

  it('are upgraded by the first of those that start at once', async (t) => {
    const { url } = await openServer(t)
    const silent = { isServer: false, onWarning: () => undefined, onChange: () => undefined }
    const databases = await Promise.all(
      [1, 2, 3].map(() => openRemote({ url, authToken: null, ...silent })),
    )
    t.after(() => databases.forEach((database) => database.close()))
    const database = databases[0] as Database
    const node = sql(`INSERT INTO node
      (one, id, schema, start, newest, secret_check, is_clean, seq, account_number)
      VALUES (1, 'id', 0, 0, 0, '', 1, 0, 0)`)
    await migrate(database, [node], 1)
    await Promise.all(databases.map((each) => migrate(each, [node])))
    const { rows: applied } = await database.execute('SELECT number FROM migration ORDER BY 1')
    assert.deepEqual(
      applied.map((row) => row['number']),
      [1, 2, 3],
    )
  })

  it('hear what happens through the others', async (t) => {
    const { url } = await openServer(t)
    const here = await startNode(t, {}, { databaseUrl: url })
    const there = await startNode(t, {}, { databaseUrl: url })
    const [ana, ben] = [await here.signUp('ana'), await here.signUp('ben')]
    const stream = await openStream(through(there, ana))
    const { cursor } = await readAll(ana)
    const poll = holdPoll(through(there, ana), cursor)
    await eventually(() => there.running.deps.listeners.count(), 2)
    const { key, token } = await ana.save('a', 'x')
    const event = await stream.next()
    assert.deepEqual([event?.change.key, event?.change.token], [key, token])
    const page = (await (await poll).json()) as { changes: { key: string }[] }
    assert.deepEqual(
      page.changes.map((change) => change.key),
      [key],
    )
    await expectStatus(await ana.grant('a', 'ben', 'READ'), 200)
    const shared = await openStream(through(there, ben))
    assert.equal((await shared.next())?.change.key, key)
    await expectStatus(await ana.delete('a', token), 204)
    assert.equal((await shared.next())?.change.deleted, true)
    // A session ends for all of them.
    await expectStatus(await ben.request('/auth', { method: 'DELETE' }), 204)
    assert.equal(await shared.next(), undefined)
    await stream.close()
  })

  it('ask once for a read, twice for a small write, and each for all who wait on it', async (t) => {
    const sqld = await openServer(t)
    const proxy = await startDatabaseProxy(t, sqld.url)
    const node = await startNode(t, {}, { databaseUrl: proxy.url })
    const [ana, ben] = [await node.signUp('ana'), await node.signUp('ben')]
    const cost = async (work: () => Promise<unknown>): Promise<number> => {
      const before = proxy.asked.length
      await work()
      return proxy.asked.length - before
    }
    const { token } = await ana.save('first', 'x')
    assert.equal(await cost(() => ana.save('a', 'x')), 2)
    assert.equal(await cost(() => ana.save('first', 'y', { 'X-Sync-Token': token })), 2)
    assert.equal(await cost(() => ana.get('a')), 1)
    assert.equal(await cost(() => ana.head('a')), 1)
    assert.equal(await cost(() => ana.delete('a', '*')), 2)
    await ben.save('of ben', 'x')
    const { cursor } = await readPage(ben)
    await ben.save('more of ben', 'x')
    assert.equal(await cost(() => ben.request(`/changes?since=${cursor}`)), 1)
    const streams = []
    for (let i = 0; i < 20; i++) streams.push(await openStream(ben))
    for (const stream of streams) for (let i = 0; i < 2; i++) await stream.next()
    const mine = await openStream(ana)
    await mine.next()
    // Once they have told all, none of them is woken by what is none of its account's.
    const asked = (): Promise<number> =>
      cost(async () => {
        await ana.save('b', 'x', ANY)
        await mine.next()
      })
    await ana.save('b', 'x')
    await mine.next()
    await eventually(async () => (await asked()) <= 4, true)
    for (const stream of [mine, ...streams]) await stream.close()
  })

  it('outlive its death under load: nothing acknowledged is lost, and they go on alone', async (t) => {
    const sqld = await openServer(t)
    const nodes = [
      await startNode(t, {}, { databaseUrl: sqld.url }),
      await startNode(t, {}, { databaseUrl: sqld.url }),
    ]
    const [node] = nodes as [TestNode, TestNode]
    const ana = await openAccount(node, 'ana')
    const stream = await openStream(ana)
    const refused = { ERR04: 0, ERR05: 0 }
    const writers = Array.from({ length: 6 }, (_, i) => ({
      key: `k${i}`,
      acknowledged: 0,
      tried: 0,
    }))
    let isOver = false
    const write = async (writer: (typeof writers)[0], i: number): Promise<void> => {
      const self = through(nodes[i % 2] as TestNode, ana)
      while (!isOver) {
        const headers = writer.acknowledged === 0 && writer.tried === 0 ? {} : ANY
        writer.tried++
        const answer = await self.put(writer.key, String(writer.tried), headers)
        if (answer.ok) writer.acknowledged = writer.tried
        else if (answer.status === 412) writer.tried = 0 // not there after all: made anew
        else {
          assert.equal(answer.headers.get('retry-after'), '5')
          assert.equal(answer.status, 503)
          const { code } = (await answer.json()) as { code: keyof typeof refused }
          refused[code]++
        }
      }
    }
    const load = Promise.all(writers.map(write))
    const sum = (): number => writers.reduce((all, { acknowledged }) => all + acknowledged, 0)
    await eventually(() => sum() > 60, true)
    await sqld.kill()
    await eventually(() => refused.ERR05 > 6, true)
    node.running.deps.listeners.announce(null) // as a heartbeat would: the stream waits
    const health = await expectProblem(await node.request('/health'), 'ERR05', 503)
    assert.equal(health['database'], 'unreachable')
    await sqld.start()
    const before = sum()
    await eventually(() => sum() > before + 30, true)
    isOver = true
    await load
    await expectStatus(await node.request('/health'), 200)
    for (const { key, acknowledged, tried } of writers) {
      const found = Number(await (await ana.get(key)).text())
      assert.ok(found >= acknowledged && found <= tried, `${key}: ${found} of ${acknowledged}`)
    }
    // The stream that was open all along has not missed the last of it.
    const listed = new Map((await ana.list()).map(({ key, token }) => [key, token]))
    const told = new Map<string, string>()
    while ([...listed].some(([key, token]) => told.get(key) !== token)) {
      const event = await stream.next()
      assert.ok(event !== undefined)
      told.set(event.change.key, event.change.token ?? '')
    }
    await stream.close()
  })

  it('say that a write is unknown when its answer got lost, and settle it by its digest', async (t) => {
    const sqld = await openServer(t)
    const proxy = await startDatabaseProxy(t, sqld.url)
    const node = await startNode(t, {}, { databaseUrl: proxy.url })
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('a', 'before')
    proxy.loseAnswer = isWrite
    const headers = { 'X-Sync-Token': token }
    await expectProblem(await ana.put('a', 'after', headers), 'ERR04', 503)
    const again = await ana.put('a', 'after', headers)
    const after = await ana.get('a')
    assert.equal(again.headers.get('repr-digest'), after.headers.get('repr-digest'))
    await expectProblem(again, 'KEY01', 412)
    assert.equal(await after.text(), 'after')
    // A read is asked for again, and nobody notices.
    proxy.loseAnswer = (body) => !isWrite(body)
    await expectStatus(await ana.get('a'), 200)
    // What never left did not happen.
    await proxy.cut()
    await expectProblem(await ana.put('b', 'x'), 'ERR05', 503)
    await expectProblem(await ana.get('a'), 'ERR05', 503)
    await proxy.mend()
    await expectStatus(await ana.get('b'), 404)
    await expectStatus(await ana.put('b', 'x'), 201)
  })

  it('hold nobody up for one slow call', async (t) => {
    const sqld = await openServer(t)
    const proxy = await startDatabaseProxy(t, sqld.url)
    const node = await startNode(t, {}, { databaseUrl: proxy.url })
    const ana = await openAccount(node, 'ana')
    await ana.save('a', 'x')
    proxy.holds = (body) =>
      isWrite(body) && body.includes(Buffer.from('slow').toString('base64').slice(0, 5))
    let isAnswered = false
    const slow = ana.put('slow', 'slow').finally(() => {
      isAnswered = true
    })
    await eventually(() => proxy.asked.some((body) => proxy.holds?.(body)), true)
    await expectStatus(await ana.get('a'), 200)
    await expectStatus(await ana.put('b', 'x'), 201)
    assert.equal(isAnswered, false)
    await proxy.cut()
    await expectProblem(await slow, 'ERR04', 503)
  })

  it('notice that it went back: cursors from after are FEED01 on all of them', async (t) => {
    const sqld = await openServer(t)
    const here = await startNode(t, {}, { databaseUrl: sqld.url })
    const there = await startNode(t, {}, { databaseUrl: sqld.url })
    const ana = await openAccount(here, 'ana')
    const self = through(there, ana)
    await ana.save('a', 'x')
    const { cursor: early } = await readPage(ana)
    await sqld.keep()
    for (let i = 0; i < 5; i++) await ana.save(`lost ${i}`, 'x')
    const { cursor: late } = await readPage(ana)
    const stream = await openStream(self, { query: `?since=${late}` })
    const poll = holdPoll(self, late)
    await eventually(() => there.running.deps.listeners.count(), 2)
    await sqld.goBack()
    await sqld.start()
    // Past where the cursor was, through a node that has asked for nothing since.
    for (let i = 0; i < 9; i++) await ana.save(`anew ${i}`, 'x')
    await expectProblem(await poll, 'FEED01', 410)
    assert.equal(await stream.next(), undefined)
    for (const one of [ana, self]) {
      await expectProblem(await one.request(`/changes?since=${late}`), 'FEED01', 410)
    }
    const reset = await openStream(self, { headers: { 'Last-Event-ID': late } })
    assert.equal((await reset.next())?.type, 'reset')
    const { changes } = await readAll(self, early)
    assert.equal(changes.length, 9)
  })

  it('notice it when nothing failed in between: another server is there at once', async (t) => {
    const sqld = await openServer(t)
    const proxy = await startDatabaseProxy(t, sqld.url)
    const node = await startNode(t, {}, { databaseUrl: proxy.url })
    const ana = await openAccount(node, 'ana')
    await sqld.keep()
    const copy = await sqld.openCopy()
    t.after(() => copy.remove())
    await ana.save('lost', 'x')
    const { cursor } = await readPage(ana)
    await ana.save('lost too', 'x')
    proxy.lead(copy.url)
    for (let i = 0; i < 4; i++) await ana.save(`anew ${i}`, 'x')
    await expectProblem(await ana.request(`/changes?since=${cursor}`), 'FEED01', 410)
  })

  it('send nothing over a first connection before the server behind it is trusted', async (t) => {
    const sqld = await openServer(t)
    const proxy = await startDatabaseProxy(t, sqld.url)
    const wire = openWire(new URL(proxy.url))
    t.after(() => wire.close())
    const body = JSON.stringify({ baton: null, requests: [{ type: 'close' }] })
    const question = (): Request =>
      new Request(`${proxy.url}/v2/pipeline`, { method: 'POST', body })
    await wire.fetch(question())
    wire.trust()
    await wire.fetch(question())
    proxy.lead(sqld.url)
    await eventually(() => wire.isTrusted(), false)
    await assert.rejects(wire.fetch(question()), NotSent)
    assert.equal(proxy.asked.length, 2)
    await wire.fetchAnyway(question())
    wire.trust()
    await wire.fetch(question())
  })

  it('wake everybody when what they follow has gone back', async (t) => {
    const answers = [{ last: 100 }, { last: 50 }]
    const execute = async () => {
      const { last } = answers.shift() ?? { last: 50 }
      return { rows: [{ seq: 1, last, account: null }] }
    }
    const heard: unknown[] = []
    const history = {
      sure: async () => undefined,
      doubt: () => undefined,
      saw: async () => undefined,
    }
    const following = follow({ execute } as unknown as Database, history, {
      onWarning: () => undefined,
      onChange: (accounts) => heard.push(accounts),
    })
    t.after(() => following.stop())
    await following.begin()
    await eventually(() => heard, [null])
  })

  it('hold up no command whose connection was closed while it asked its operator', async (t) => {
    const sqld = await openServer(t)
    const proxy = await startDatabaseProxy(t, sqld.url)
    await startNode(t, {}, { databaseUrl: sqld.url })
    const config = { ...readConfig({ STATIC_ROOT: temporaryFolder(t) }), secretKey: SECRET_KEY }
    const { deps, close } = await openForCommand(
      { ...config, database: { url: proxy.url, authToken: null } },
      openLog({ logLevel: 'silent' }),
    )
    proxy.lead(sqld.url)
    for (let i = 0; i < 2; i++) await deps.database.execute('SELECT 1')
    await close()
  })

  it('share large values in a bucket, and keep nothing on their own disks', async (t) => {
    const [{ url }, bucket] = await Promise.all([openServer(t), startBucket(t)])
    const environment = { DATABASE_URL: url, SECRET_KEY, ...bucket.environment }
    const places = [install(t, EXECUTABLE), install(t, EXECUTABLE)]
    const nodes = await Promise.all(places.map((place) => place.serve(environment)))
    const [first, second] = nodes.map((node) => node.url) as [string, string]
    const opened = await signUp(first, { id: 'ana' })
    const [here, there] = [remoteClient(first, opened), remoteClient(second, opened)]
    const value = randomBytes(100_000)
    await expectStatus(await here.put('a', value), 201)
    const read = await expectStatus(await there.get('a'), 200)
    assert.deepEqual(Buffer.from(await read.arrayBuffer()), value)
    await expectStatus(await there.put('a', randomBytes(50_000), ANY), 204)
    const { size } = await readPage(here).then(
      ({ changes: [change] }) => change as { size: number },
    )
    assert.equal(size, 50_000)
    const health = await (await fetch(`${second}/health`)).json()
    assert.deepEqual(health, { database: 'ok', disk: 'ok', values: 'ok' })
    for (const node of nodes) assert.equal((await node.stop()).code, 0)
    for (const { root } of places) assert.deepEqual(listFiles(root), [])
    // A third takes over what the others left.
    const third = await install(t, EXECUTABLE).serve(environment)
    await expectStatus(await remoteClient(third.url, opened).get('a'), 200)
  })

  it('are refused with their values elsewhere than those of the others', async (t) => {
    const [{ url }, bucket] = await Promise.all([openServer(t), startBucket(t)])
    const environment = { DATABASE_URL: url, SECRET_KEY, ...bucket.environment }
    const elsewhere = {
      ...environment,
      BLOB_URL: `${bucket.environment['BLOB_URL']}`.replace('of/ana', 'of/bob'),
    }
    const begin = (of: Record<string, string>) => startNode(t, of)
    const refused = (says: RegExp) => (error: unknown) =>
      error instanceof StartError && says.test(error.message)
    // A first start there claims it; once that node has stopped, another place may be taken.
    await (await begin(elsewhere)).stop()
    const node = await begin(environment)
    await assert.rejects(begin(elsewhere), refused(/^A node that runs on this database has/))
    const other = await begin(environment)
    await (await node.signUp('ana')).save('a', randomBytes(20_000))
    for (const one of [node, other]) await one.stop()
    await assert.rejects(begin(elsewhere), refused(/without the values of this data/))
    await begin(environment)
  })

  it('have commands that work on it, and others that say what does', async (t) => {
    const { url } = await openServer(t)
    const node = await startNode(t, {}, { databaseUrl: url })
    const here = install(t, EXECUTABLE)
    const bucket = await startBucket(t)
    const environment = { DATABASE_URL: url, SECRET_KEY, ...bucket.environment }
    const run = (...args: string[]) => here.run(args, environment)
    const added = await run('account', 'add', 'ana')
    assert.equal(added.code, 0, added.stderr)
    assert.match(added.stderr, new RegExp(`^Data: ${url}/\n`))
    const ben = await node.signUp('ben')
    const listed = await run('account', 'list', '--json')
    assert.equal((JSON.parse(listed.stdout) as unknown[]).length, 2)
    assert.equal((await run('account', 'disable', 'ben')).code, 0)
    await expectProblem(await ben.request('/store'), 'AUTH01', 401)
    const looked = await run('doctor')
    assert.equal(looked.code, 0, looked.stdout)
    assert.match(looked.stdout, /^warning {2}durability: .*--checkpoint-interval-s 2/m)
    const runs = [['backup'], ['restore', 'x'], ['rollback']].map((args) => run(...args))
    for (const { code, stderr } of await Promise.all(runs)) {
      assert.equal(code, 1)
      assert.match(stderr, /^sync-node: The database is on a server: use its own backups.*\n$/)
    }
  })
})
