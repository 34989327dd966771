import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { Client } from './helpers/client.ts'
import { FROM_SOURCE, install, type Installation } from './helpers/executable.ts'
import { expectStatus } from './helpers/expect.ts'
import { openStream, readPage } from './helpers/feed.ts'
import { PASSWORD } from './helpers/node.ts'
import { post, remoteClient, signUp } from './helpers/remote.ts'
import { attach, readTrace, skip, traced, type Call } from './helpers/trace.ts'

const MIB = 1024 * 1024

interface Watched {
  pid: number
  url: string
  ana: Client
  blobs: string
  /** Ends the watch. */
  calls(): Promise<Call[]>
}

/** A server from source with an account, watched from here on. */
async function watch(t: TestContext): Promise<Watched> {
  const here = install(t, FROM_SOURCE)
  const server = await here.serve()
  const { pid, url } = server
  const ana = remoteClient(url, await signUp(url, { id: 'ana' }))
  return { pid, url, ana, blobs: join(here.root, 'blobs'), calls: await attach(t, here, server) }
}

const WRITES = new Set(['write', 'pwrite64', 'writev', 'sendto', 'sendmsg'])

const isWrite = (call: Call, target: string): boolean =>
  WRITES.has(call.name) && call.target.endsWith(target)

const isSync = ({ name, target, result }: Call, suffix: string): boolean =>
  /^(?:fsync|fdatasync)$/.test(name) && target.endsWith(suffix) && result === 0

const isMadeIn =
  (folder: string) =>
  ({ name, target, args }: Call): boolean =>
    name === 'openat' && target.startsWith(`${folder}/`) && args.includes('O_EXCL')

/** The answers in their order, each as the call that wrote its head to the socket. */
const answersIn = (calls: Call[]): Call[] =>
  calls.filter(({ name, args }) => WRITES.has(name) && /"HTTP\/1\.1 [2-5]\d\d /.test(args))

const after = (calls: Call[], { end }: Pick<Call, 'end'>): Call[] =>
  calls.filter((call) => call.start > end)

const before = (calls: Call[], { start }: Pick<Call, 'start'>): Call[] =>
  calls.filter((call) => call.end < start)

/** The sync of the database's log that made `text` durable, once it was first written in `calls`. */
function syncOf(calls: Call[], text: string): Call {
  const written = calls.find(
    (call) => isWrite(call, '/sync-node.db-wal') && call.args.includes(text),
  )
  assert.ok(written, `${text} is not written to the log of the database`)
  const sync = after(calls, written).find((call) => isSync(call, '/sync-node.db-wal'))
  assert.ok(sync, `${text} is written, and not synced`)
  return sync
}

/** What one thread writes to the database or syncs of it. */
const writesOf = (calls: Call[], thread: number): string[] =>
  calls
    .filter((call) => call.thread === thread && /\/sync-node\.db(?:-wal)?$/.test(call.target))
    .filter(({ name }) => WRITES.has(name) || /sync$|truncate$/.test(name))
    .map(({ name, target }) => `${name} ${target}`)

/** The first match of each in turn, each begun after the one before had ended. */
function expectOrder(calls: Call[], steps: [string, (call: Call) => boolean][]): void {
  let rest = calls
  for (const [name, isIt] of steps) {
    const found = rest.find(isIt)
    assert.ok(found, `${name} is missing, or too early`)
    rest = after(rest, found)
  }
}

describe('A write, and why it survives', { skip }, () => {
  it('syncs the log of the database before each answer', async (t) => {
    const { url, ana, calls } = await watch(t)
    const value = 'inline-value-to-look-for'
    const { key, token } = await ana.save('a', value)
    const ben = await signUp(url, { id: 'ben' })
    await expectStatus(await ana.grant('a', 'ben', 'READ'), 200)
    await expectStatus(await ana.delete('a', token), 204)
    const found = await calls()
    const answers = answersIn(found)
    for (const [index, text] of [value, ben.user, key, key].entries()) {
      const between = before(found, answers[index] as Call)
      const since = index === 0 ? between : after(between, answers[index - 1] as Call)
      syncOf(since, text)
    }
  })

  it('has a file and its folder entry on the disk before the row that names it', async (t) => {
    const { ana, blobs, calls } = await watch(t)
    await ana.save('large', randomBytes(17 * MIB))
    const found = await calls()
    const [answer] = answersIn(found)
    const made = found.find(isMadeIn(blobs)) as Call
    const writes = found.filter((call) => isWrite(call, made.target))
    const synced = found.findLast((call) => isSync(call, made.target)) as Call
    assert.ok(synced && synced.start > (writes.at(-1) as Call).end, 'the file is not synced')
    const entry = after(found, made).find((call) => isSync(call, blobs))
    assert.ok(entry, 'the folder is not synced after the file was made')
    const name = made.target.slice(blobs.length + 1)
    const row = found.find((call) => isWrite(call, '-wal') && call.args.includes(name)) as Call
    assert.ok(synced.end < row.start, 'the row is written before the file is synced')
    assert.ok(entry.end < row.start, 'the row is written before the folder is synced')
    syncOf(before(found, answer as Call), name)
  })

  it('syncs a file every 8 MiB, so that nobody else has to', async (t) => {
    const { ana, blobs, calls } = await watch(t)
    await ana.save('large', randomBytes(17 * MIB))
    const onFile = (await calls()).filter(({ target }) => target.startsWith(`${blobs}/`))
    let unsynced = 0
    for (const call of onFile) {
      if (isSync(call, '')) unsynced = 0
      else if (WRITES.has(call.name)) unsynced += call.result
      assert.ok(unsynced < 9 * MIB, `${unsynced} bytes are not synced`)
    }
    assert.ok(onFile.filter((call) => isSync(call, '')).length >= 3)
  })

  it('makes one sync of the writes that wait', async (t) => {
    const { ana, calls } = await watch(t)
    const clients = Array.from({ length: 32 }, async (_, client) => {
      for (const turn of [0, 1]) await ana.save(`${client}/${turn}`, 'value')
    })
    await Promise.all(clients)
    const found = await calls()
    assert.equal(answersIn(found).filter(({ args }) => args.includes('HTTP/1.1 201')).length, 64)
    const syncs = found.filter((call) => isSync(call, '-wal')).length
    assert.ok(syncs >= 1 && syncs <= 32, `${syncs} syncs for 64 writes`)
  })

  it('leaves every write and sync of the database to the writer', async (t) => {
    const { pid, ana, calls } = await watch(t)
    const { token } = await ana.save('a', 'one')
    await ana.save('a', 'two', { 'X-Sync-Token': token })
    await expectStatus(await ana.get('a'), 200)
    assert.deepEqual(writesOf(await calls(), pid), [])
  })

  it('shows nobody a value that could still be lost', async (t) => {
    const { ana, calls } = await watch(t)
    const texts = await writeAndRead(ana)
    const found = await calls()
    const sent = found.filter(
      ({ name, target }) => WRITES.has(name) && target.startsWith('socket:'),
    )
    const shown = texts.flatMap((text) => {
      const first = sent.find(({ args }) => args.includes(text))
      return first === undefined ? [] : [{ text, first }]
    })
    assert.ok(shown.length > 0)
    for (const { text, first } of shown) syncOf(before(found, first), text)
  })

  it('tells nobody of a change that could still be lost, and then tells of it', async (t) => {
    const { ana, calls } = await watch(t)
    const stream = await openStream(ana)
    let { cursor } = await readPage(ana)
    const metas: string[] = []
    for (let round = 0; round < 4; round++) {
      const poll = readPage(ana, `?wait=50&since=${cursor}`)
      const meta = `meta-to-look-for-${round}`
      metas.push(meta)
      await ana.save(`key ${round}`, 'value', { 'X-Sync-Meta': meta })
      assert.equal((await stream.next())?.change.meta, meta)
      ;({ cursor } = await poll)
    }
    await stream.close()
    const found = await calls()
    for (const meta of metas) {
      const told = found.filter(
        ({ name, target, args }) =>
          WRITES.has(name) && target.startsWith('socket:') && args.includes(meta),
      )
      assert.ok(told.length > 0, `nobody was told of ${meta}`)
      for (const call of told) syncOf(before(found, call), meta)
    }
  })

  it('removes no superseded file before what supersedes it is durable', async (t) => {
    const { ana, blobs, calls } = await watch(t)
    const { token } = await ana.save('large', randomBytes(20_000))
    const second = await ana.save('large', randomBytes(30_000), { 'X-Sync-Token': token })
    await expectStatus(await ana.delete('large', second.token), 204)
    const found = await calls()
    const names = found.filter(isMadeIn(blobs)).map(({ target }) => target.slice(blobs.length + 1))
    assert.equal(names.length, 2)
    const [, replaced, deleted] = answersIn(found) as [Call, Call, Call]
    const [first = '', last = ''] = names
    const supersedes = syncOf(before(found, replaced), last)
    const deletes = syncOf(after(before(found, deleted), replaced), last)
    for (const [name, commit] of [
      [first, supersedes],
      [last, deletes],
    ] as const) {
      const gone = found.find(
        (call) => call.name.startsWith('unlink') && call.target.endsWith(name),
      )
      assert.ok(gone === undefined || gone.start > commit.end, `${name} went before the commit`)
    }
  })
})

/** Four write and four read the same keys; answers the values that were written. */
async function writeAndRead(ana: Client): Promise<string[]> {
  const texts: string[] = []
  let writing = 4
  const write = async (writer: number) => {
    for (let round = 0; round < 8; round++) {
      const text = `value-${writer}-${round}-${randomBytes(8).toString('hex')}`
      texts.push(text)
      await ana.put(`key ${writer}`, text, round === 0 ? {} : { 'X-Sync-Token': '*' })
    }
    writing--
  }
  const read = async (reader: number) => {
    while (writing > 0) await (await ana.get(`key ${reader}`)).arrayBuffer()
  }
  await Promise.all([0, 1, 2, 3].flatMap((one) => [write(one), read(one)]))
  return texts
}

/** Starts and ends a server under strace; answers its calls. */
async function traceStart(
  t: TestContext,
  here: Installation,
): Promise<{ pid: number; calls: Call[] }> {
  const file = join(here.folder, 'start.trace')
  const server = await install(t, traced(file, FROM_SOURCE)).serve({
    STATIC_ROOT: here.root,
  })
  await expectStatus(await fetch(`${server.url}/health`), 200)
  await server.stop()
  return { pid: server.pid, calls: await readTrace(file, server) }
}

describe('A start', { skip }, () => {
  it('has the secret on the disk before the database that depends on it', async (t) => {
    const here = install(t, FROM_SOURCE)
    const { root } = here
    const secret = join(root, 'secret')
    const { calls } = await traceStart(t, here)
    const database = calls.find(({ target }) => target.includes('/sync-node.db')) as Call
    assert.equal(database.target, join(root, 'sync-node.db'))
    expectOrder(before(calls, database), [
      ['the entry of the folder is synced', (call) => isSync(call, dirname(root))],
      ['the secret is made', ({ name, target }) => name === 'openat' && target === `${secret}.new`],
      ['the secret is written', (call) => isWrite(call, `${secret}.new`)],
      ['the secret is synced', (call) => isSync(call, `${secret}.new`)],
      [
        'the secret gets its name',
        ({ name, target }) => name.startsWith('rename') && target === `${secret}.new -> ${secret}`,
      ],
      ['the folder is synced', (call) => isSync(call, root)],
      ['its parent is synced', (call) => isSync(call, dirname(root))],
    ])
  })

  it('leaves every write and sync of the database to the writer', async (t) => {
    const here = install(t, FROM_SOURCE)
    for (const start of ['first', 'second']) {
      const { pid, calls } = await traceStart(t, here)
      assert.deepEqual(writesOf(calls, pid), [], start)
    }
  })

  it('after kill -9 has the log in the database, both synced, before it listens', async (t) => {
    const here = install(t, FROM_SOURCE)
    const killed = await here.serve()
    const ana = await signUp(killed.url, { id: 'ana' })
    await remoteClient(killed.url, ana).save('a', 'value-to-look-for')
    await killed.stop('SIGKILL')
    assert.ok(statSync(join(here.root, 'sync-node.db-wal')).size > 0)
    const { calls } = await traceStart(t, here)
    expectOrder(calls, [
      ['the log is synced', (call) => isSync(call, '/sync-node.db-wal')],
      [
        'the value goes into the database',
        (call) => isWrite(call, '/sync-node.db') && call.args.includes('value-to-look-for'),
      ],
      ['the database is synced', (call) => isSync(call, '/sync-node.db')],
      [
        'the log is emptied',
        ({ name, target, args }) =>
          name === 'ftruncate' && target.endsWith('/sync-node.db-wal') && / 0\) += 0$/.test(args),
      ],
      [
        'it says that it listens',
        ({ name, args }) => name === 'write' && args.includes('listens on http'),
      ],
    ])
    const again = await here.serve()
    const login = await post(again.url, '/auth', { id: 'ana', password: PASSWORD })
    assert.equal(login.status, 200)
    assert.equal(await (await remoteClient(again.url, ana).get('a')).text(), 'value-to-look-for')
  })
})
