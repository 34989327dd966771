import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { hash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { sweep } from '../src/housekeeping.ts'
import { StartError } from '../src/errors.ts'
import { mountSmall } from './helpers/backups.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { install, type Installation } from './helpers/executable.ts'
import { expectStatus } from './helpers/expect.ts'
import { startNode, temporaryFolder, type TestNode } from './helpers/node.ts'
import { startReal } from './helpers/real.ts'
import { remoteClient, signUp } from './helpers/remote.ts'
import { openWire, type Wire } from './helpers/wire.ts'

const MOUNT = 'mount'
const LARGE = 100_000
const HOUR = 3_600_000
const DAY = 24 * HOUR

const main = join(import.meta.dirname, '../src/main.ts')
const fromSource = (t: TestContext): Installation => install(t, [process.execPath, main])

const list = (root: string, folder: string): string[] => readdirSync(join(root, folder))

/** Every file and folder below, with what is in it, but for SQLite's index of the log: it is nobody's data. */
function photograph(root: string): Record<string, string> {
  const all = readdirSync(root, { recursive: true }) as string[]
  const names = all.filter((name) => !name.endsWith('-shm'))
  return Object.fromEntries(names.sort().map((name) => [name, contentOf(join(root, name))]))
}

function contentOf(path: string): string {
  try {
    return statSync(path).isDirectory() ? 'folder' : hash('sha256', readFileSync(path))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'just gone'
    throw error
  }
}

/** A folder with an account, a small value and a large one, and no server. */
async function withData(
  t: TestContext,
  environment = {},
): Promise<{ node: TestNode; ana: Client }> {
  const node = await startNode(t, environment)
  const ana = await node.signUp('ana')
  await ana.save('small', 'small value')
  await ana.save('large', randomBytes(LARGE))
  await node.stop()
  return { node, ana }
}

async function expectWhole(ana: Client): Promise<void> {
  assert.equal(await (await ana.get('small')).text(), 'small value')
  const large = await expectStatus(await ana.get('large'), 200)
  assert.equal((await large.arrayBuffer()).byteLength, LARGE)
}

/** A start on this folder is refused in one line, and changes nothing. */
async function expectRefused(node: TestNode, says: RegExp, environment = {}): Promise<void> {
  const before = photograph(node.root)
  await assert.rejects(node.restart(environment), (error: Error) => {
    assert.ok(error instanceof StartError, `not a StartError: ${error.stack}`)
    assert.match(error.message, says)
    assert.doesNotMatch(error.message, /\n/)
    return true
  })
  // A thread that had the database open may still be closing it.
  await eventually(() => photograph(node.root), before)
}

describe('a second server on the same folder', () => {
  it('is refused at once in the same process, and harms nothing', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', 'value')
    await assert.rejects(
      startNode(t, {}, { root: node.root }),
      (error: Error) => error instanceof StartError && /in use by another/.test(error.message),
    )
    await expectStatus(await ana.put('b', 'value'), 201)
    await node.restart()
    assert.equal(await (await ana.get('a')).text(), 'value')
  })

  it('is refused in another process, with exit code 1 and one line', async (t) => {
    const installed = fromSource(t)
    const server = await installed.serve()
    const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
    const refuse = async () => {
      const before = photograph(installed.root)
      const second = await installed.run(['serve'])
      assert.equal(second.code, 1)
      assert.match(second.stderr, /^sync-node: [^\n]* is in use by another sync-node[^\n]*\n$/)
      return { before, after: photograph(installed.root) }
    }
    const first = await refuse()
    // On a slow machine the first server's first housekeeping comes meanwhile, and makes the reserve.
    const isDisturbed = 'reserve' in first.after && !('reserve' in first.before)
    const { before, after } = isDisturbed ? await refuse() : first
    assert.deepEqual(after, before)
    await expectStatus(await ana.put('a', 'value'), 201)
  })

  it('may start when the first was killed', async (t) => {
    const installed = fromSource(t)
    for (let i = 0; i < 3; i++) {
      const server = await installed.serve()
      assert.deepEqual(await server.stop('SIGKILL'), { code: null, signal: 'SIGKILL' })
    }
  })
})

describe('a port in use', () => {
  it('ends the start with code 1 and one line, and leaves the folder free', async (t) => {
    const taken = createServer().listen(0, '127.0.0.1')
    t.after(() => taken.close())
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    const installed = fromSource(t)
    const { code, stderr } = await endsInTime(
      installed.run(['serve'], { HOST: '127.0.0.1', PORT: String(port) }),
    )
    assert.equal(code, 1)
    assert.match(stderr, /^sync-node: [^\n]*EADDRINUSE[^\n]*\n$/)
    await installed.serve()
  })
})

describe('a folder on a disk that is for reading only', () => {
  it('ends the start with one line that says so, whether the folder is there or not', async (t) => {
    const disk = mountSmall(t)
    if (disk === undefined) return
    mkdirSync(join(disk, 'there'))
    execFileSync(MOUNT, ['-o', 'remount,ro', disk])
    for (const name of ['there', 'new', 'new/in it']) {
      const root = join(disk, name)
      const { code, stderr } = await endsInTime(fromSource(t).run(['serve'], { STATIC_ROOT: root }))
      assert.equal(code, 1)
      assert.match(stderr, /^sync-node: STATIC_ROOT cannot be used: [^\n]*: EROFS: [^\n]*\n$/)
    }
  })
})

async function endsInTime<T>(work: Promise<T>): Promise<T> {
  const late = AbortSignal.timeout(60_000)
  const given = new Promise<never>((_, reject) => {
    late.addEventListener('abort', () => reject(new Error('the process does not end')))
  })
  return Promise.race([work, given])
}

describe('a start without all its data', () => {
  const losses: [string, (root: string) => void, RegExp][] = [
    ['no secret', (root) => rmSync(join(root, 'secret')), /secret is missing/],
    ['no database', (root) => rmSync(join(root, 'sync-node.db')), /missing.*restore a backup/],
    ['an empty database', (root) => truncateSync(join(root, 'sync-node.db')), /restore a backup/],
    [
      'another secret',
      (root) => writeFileSync(join(root, 'secret'), `${'s'.repeat(43)}\n`),
      /not the one/,
    ],
    ['an empty secret', (root) => writeFileSync(join(root, 'secret'), ''), /secret/],
    [
      'a database that is none',
      (root) => writeFileSync(join(root, 'sync-node.db'), randomBytes(50_000)),
      /damaged.*restore a backup/,
    ],
    [
      'a database of a few words',
      (root) => writeFileSync(join(root, 'sync-node.db'), 'once there was data here\n'),
      /damaged.*restore a backup/,
    ],
    [
      'a database cut to its first page',
      (root) => truncateSync(join(root, 'sync-node.db'), 4096),
      /damaged.*restore a backup/,
    ],
    [
      'a database cut within its first page',
      (root) => truncateSync(join(root, 'sync-node.db'), 1000),
      /damaged.*restore a backup/,
    ],
    [
      'no secret and no database',
      (root) => {
        rmSync(join(root, 'secret'))
        rmSync(join(root, 'sync-node.db'))
      },
      /missing/,
    ],
  ]
  for (const [name, lose, says] of losses) {
    it(`is refused, and makes nothing new: ${name}`, async (t) => {
      const { node } = await withData(t)
      lose(node.root)
      await expectRefused(node, says)
      await expectRefused(node, says) // nor did the first try change what the second finds
    })
  }

  it('is refused by another process in one line', async (t) => {
    const { node } = await withData(t)
    rmSync(join(node.root, 'sync-node.db'))
    const before = photograph(node.root)
    const { code, stderr } = await fromSource(t).run(['serve'], { STATIC_ROOT: node.root })
    assert.equal(code, 1)
    assert.match(stderr, /^sync-node: [^\n]*\n$/)
    assert.deepEqual(photograph(node.root), before)
  })

  it('works again when what was missing is back', async (t) => {
    const { node, ana } = await withData(t)
    for (const name of ['secret', 'sync-node.db']) {
      const bytes = readFileSync(join(node.root, name))
      rmSync(join(node.root, name))
      await expectRefused(node, /missing/)
      writeFileSync(join(node.root, name), bytes)
    }
    await node.restart()
    await expectWhole(ana)
  })
})

describe('SECRET_KEY', () => {
  const SECRET_KEY = 'a secret of the operator, forty characters'

  it('takes the place of the file, which is never made', async (t) => {
    const { node, ana } = await withData(t, { SECRET_KEY })
    assert.ok(!existsSync(join(node.root, 'secret')))
    await node.restart({ SECRET_KEY })
    await expectWhole(ana)
    await node.logIn('ana')
    await node.stop()
    await expectRefused(node, /secret is missing/)
    await expectRefused(node, /not the one/, { SECRET_KEY: `${SECRET_KEY}!` })
  })

  it('may be what the file held', async (t) => {
    const { node } = await withData(t)
    const secret = readFileSync(join(node.root, 'secret'), 'utf8').trim()
    rmSync(join(node.root, 'secret'))
    await node.restart({ SECRET_KEY: secret })
    await node.logIn('ana')
  })

  it('that differs from the file is refused', async (t) => {
    const { node } = await withData(t)
    await expectRefused(node, /not the one/, { SECRET_KEY })
  })
})

describe('the schema', () => {
  const changes: [string, string, RegExp][] = [
    ['newer', `INSERT INTO migration VALUES (9999, '9999-later.sql', 'x')`, /newer sync-node/],
    ['of another text', `UPDATE migration SET checksum = 'x'`, /another migration 1/],
  ]
  for (const [name, statement, says] of changes) {
    it(`that is ${name} is refused`, async (t) => {
      const node = await startNode(t)
      await node.running.deps.database.execute(statement)
      await node.stop()
      await expectRefused(node, says)
    })
  }
})

describe('the folder', () => {
  it('is for its owner alone, with all that is in it', async (t) => {
    const installed = fromSource(t)
    const server = await installed.serve()
    const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
    await ana.save('small', 'v')
    await ana.save('large', randomBytes(LARGE))
    // By the first housekeeping, after five seconds, where there is room.
    await eventually(() => list(installed.root, '.').includes('reserve'), true)
    assert.equal(statSync(installed.root).mode & 0o777, 0o700)
    const names = readdirSync(installed.root, { recursive: true }) as string[]
    for (const name of ['lock', 'secret', 'sync-node.db', 'sync-node.db-wal', 'reserve']) {
      assert.ok(names.includes(name), name)
    }
    for (const name of names) {
      const stat = statSync(join(installed.root, name))
      assert.equal(stat.mode & 0o777, stat.isDirectory() ? 0o700 : 0o600, name)
    }
  })

  it('may be there already, empty', async (t) => {
    const root = join(temporaryFolder(t), 'data')
    mkdirSync(root)
    const node = await startNode(t, {}, { root })
    await node.signUp('ana')
  })
})

describe('after kill -9', () => {
  it('what was answered is there: from the WAL, and in files', async (t) => {
    const installed = fromSource(t)
    const server = await installed.serve()
    const opened = await signUp(server.url, { id: 'ana' })
    const ana = remoteClient(server.url, opened)
    const large = randomBytes(LARGE)
    await ana.save('small', 'small value')
    await ana.save('large', large)
    await server.stop('SIGKILL')
    assert.ok(statSync(join(installed.root, 'sync-node.db-wal')).size > 0)
    const again = remoteClient((await installed.serve()).url, opened)
    assert.equal(await (await again.get('small')).text(), 'small value')
    assert.ok(Buffer.from(await (await again.get('large')).arrayBuffer()).equals(large))
  })

  it('what was unfinished goes to trash/, and from there after a week', async (t) => {
    const installed = fromSource(t)
    const server = await installed.serve()
    const { token, user } = await signUp(server.url, { id: 'ana' })
    await beginUpload(t, { port: Number(new URL(server.url).port), token, root: installed.root })
    await remoteClient(server.url, { token, user }).save('kept', randomBytes(LARGE))
    await server.stop('SIGKILL')
    const node = await startNode(t, {}, { root: installed.root })
    await eventually(() => list(node.root, 'trash').length, 1)
    assert.equal(list(node.root, 'blobs').length, 1)
    await expectKeptFor(node, 7 * DAY, () => list(node.root, 'trash').length)
    const kept = await remoteClient(node.url, { token, user }).get('kept')
    assert.equal((await kept.arrayBuffer()).byteLength, LARGE)
  })
})

/** Begins an upload, and resolves when its file is there. */
async function beginUpload(
  t: TestContext,
  { port, token, root }: { port: number; token: string; root: string },
) {
  const before = list(root, 'blobs').length
  const wire = await openWire(t, port)
  wire.send(
    `PUT /store/cut HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Length: 500000\r\n\r\n`,
    randomBytes(LARGE),
  )
  await eventually(() => list(root, 'blobs').length, before + 1)
  return wire
}

/** What is due by the time that a round writes down goes in the round after it. */
async function housekeepTwice({ running }: TestNode): Promise<void> {
  await running.housekeep()
  await running.housekeep()
}

/** `count` is 1 until `ms` have passed, and 0 when they have. */
async function expectKeptFor(node: TestNode, ms: number, count: () => number): Promise<void> {
  node.advance(ms - HOUR / 60)
  await node.running.housekeep()
  assert.equal(count(), 1, 'not yet')
  node.advance(HOUR / 30)
  await housekeepTwice(node)
  assert.equal(count(), 0)
}

describe('files that no row names', () => {
  it('are left alone while their upload lives', async (t) => {
    const { node, ana } = await withData(t)
    await node.restart()
    const wire = await beginUpload(t, { port: node.port, token: ana.token, root: node.root })
    assert.equal(await sweep(node.running.deps), 0)
    node.advance(30 * DAY)
    await node.running.housekeep()
    assert.equal(await sweep(node.running.deps), 0)
    wire.send(randomBytes(500_000 - LARGE))
    assert.equal((await wire.answer())?.status, 201)
    assert.equal((await (await ana.get('cut')).arrayBuffer()).byteLength, 500_000)
    assert.deepEqual(list(node.root, 'trash'), [])
  })

  it('are set aside by the next start only, and nothing else is', async (t) => {
    const { node, ana } = await withData(t)
    const name = list(node.root, 'blobs')[0] as string
    const left = name.replace(/-.*/, `-${'0'.repeat(26)}`)
    writeFileSync(join(node.root, 'blobs', left), 'left over')
    writeFileSync(join(node.root, 'blobs', 'of-somebody-else'), 'not ours to move')
    await node.restart()
    await eventually(() => list(node.root, 'trash').length, 1)
    assert.match(list(node.root, 'trash')[0] as string, new RegExp(`-${left}$`))
    assert.deepEqual(list(node.root, 'blobs').sort(), [name, 'of-somebody-else'].sort())
    await expectWhole(ana)
  })
})

describe('a superseded file', () => {
  const GRACE = 5 * 60_000

  async function supersede(t: TestContext) {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const { token } = await ana.save('a', randomBytes(LARGE))
    await node.running.housekeep()
    await ana.save('a', 'small', { 'X-Sync-Token': token })
    return { node, count: () => list(node.root, 'blobs').length }
  }

  it('is kept for the grace of those who are about to open it', async (t) => {
    const { node, count } = await supersede(t)
    await expectKeptFor(node, GRACE, count)
  })

  it('has that grace after a rest too', async (t) => {
    const { node, ana } = await withData(t)
    node.advance(20 * HOUR)
    await node.restart()
    await expectStatus(await ana.put('large', 'small', { 'X-Sync-Token': '*' }), 204)
    await node.running.housekeep()
    assert.equal(list(node.root, 'blobs').length, 1)
  })

  it('is kept while a backup holds it', async (t) => {
    const { node, count } = await supersede(t)
    const until = node.running.deps.clock.now() + DAY
    await node.running.deps.database.execute({
      sql: `INSERT INTO hold (id, until) VALUES ('backup', ?)`,
      args: [until],
    })
    await expectKeptFor(node, DAY, count)
  })

  it('survives a restart on the list of what goes', async (t) => {
    const { node, count } = await supersede(t)
    await node.restart()
    assert.equal(await sweep(node.running.deps), 0)
    assert.equal(count(), 1)
    assert.deepEqual(list(node.root, 'trash'), [], 'nor did the start itself set it aside')
    node.advance(GRACE + 60_000)
    await housekeepTwice(node)
    assert.equal(count(), 0)
  })
})

describe('stop()', () => {
  const request = (method: string, path: string, { token }: Client, ...lines: string[]): string =>
    [
      `${method} ${path} HTTP/1.1`,
      'Host: a',
      `Authorization: Bearer ${token}`,
      ...lines,
      '\r\n',
    ].join('\r\n')

  it('lets a running upload end, and closes then', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const idle = await openWire(t, node.port)
    idle.send(request('GET', '/store', ana))
    assert.equal((await idle.answer())?.headers['connection'], 'keep-alive')
    const upload = await beginUpload(t, { port: node.port, token: ana.token, root: node.root })
    const stopped = node.stop()
    await idle.closed()
    await assert.rejects(fetch(`${node.url}/info`), 'no new connection is taken')
    upload.send(randomBytes(500_000 - LARGE))
    assert.equal((await upload.answer())?.status, 201)
    await upload.closed()
    await stopped
    await node.restart()
    assert.equal((await (await ana.get('cut')).arrayBuffer()).byteLength, 500_000)
  })

  it('lets a running download end', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const value = randomBytes(20_000_000)
    await ana.save('a', value)
    const wire = await openWire(t, node.port)
    wire.socket.pause()
    wire.send(request('GET', '/store/a', ana))
    await new Promise((resolve) => wire.socket.once('readable', resolve))
    const stopped = node.stop()
    wire.socket.resume()
    assert.ok((await wire.answer())?.body.equals(value))
    await stopped
  })

  it('waits for what clients began that are gone, and leaves nothing of it', async (t) => {
    for (let round = 0; round < 5; round++) {
      const node = await startReal(t)
      const { token } = await node.signUp('ana')
      const port = Number(new URL(node.url).port)
      const uploads: Wire[] = []
      for (let i = 0; i < 4; i++)
        uploads.push(await beginUpload(t, { port, token, root: node.root }))
      for (const { socket } of uploads) socket.destroy()
      await node.stop()
      assert.deepEqual(list(node.root, 'blobs'), [])
      const faults = node.log.filter((line) => (JSON.parse(line) as { level: number }).level >= 40)
      assert.deepEqual(faults, [])
    }
  })

  it('cuts what does not end in ten seconds', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const upload = await beginUpload(t, { port: node.port, token: ana.token, root: node.root })
    const { setTimeout } = globalThis
    const hurried = (call: () => void, ms: number): unknown =>
      setTimeout(call, ms === 10_000 ? 0 : ms)
    t.mock.method(globalThis, 'setTimeout', hurried as typeof setTimeout)
    const stopped = node.stop()
    await upload.closed()
    await stopped
    t.mock.restoreAll()
    await node.restart()
    await expectStatus(await ana.get('cut'), 404)
    assert.deepEqual(list(node.root, 'blobs'), [])
  })

  it('empties the WAL and ends with code 0 by SIGTERM and SIGINT', async (t) => {
    const installed = fromSource(t)
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const server = await installed.serve()
      await signUp(server.url, { id: signal })
      assert.deepEqual(await server.stop(signal), { code: 0, signal: null })
      assert.ok(!existsSync(join(installed.root, 'sync-node.db-wal')))
    }
  })
})
