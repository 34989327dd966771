// Proves what a server does that has its large values in a bucket: on a store of another make, which
// checks signatures, and on one that fails as it is told.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { openBucket } from '../src/blobs/bucket.ts'
import type { Place } from '../src/blobs/calls.ts'
import { openMemory } from '../src/memory.ts'
import { startUpload as startParts } from '../src/blobs/upload.ts'
import { readConfig } from '../src/config.ts'
import { StartError, SyncError } from '../src/errors.ts'
import { startBucket, type FakeBucket, type Fault } from './helpers/bucket.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { install, type Installation } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { holdBack } from './helpers/held.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { remoteClient, signUp } from './helpers/remote.ts'
import { rows } from './helpers/rows.ts'
import { skip, startSwift } from './helpers/swift.ts'
import { startUpload } from './helpers/upload.ts'
import { openWire } from './helpers/wire.ts'

const KIB = 1024
const MIB = KIB * KIB
const PART = 8 * MIB
const LARGE = 100_000
const HOUR = 3_600_000
const DAY = 24 * HOUR
const SIZES = [16 * KIB + 1, PART - 1, PART, PART + 1, 2 * PART + 5]

interface Here {
  node: TestNode
  bucket: FakeBucket
  ana: Client
}

async function start(t: TestContext, options?: Parameters<typeof startBucket>[1]): Promise<Here> {
  const bucket = await startBucket(t, options)
  const node = await startNode(t, bucket.environment)
  return { node, bucket, ana: await node.signUp('ana') }
}

async function expectValue(self: Client, key: string, value: Buffer): Promise<void> {
  const read = await expectStatus(await self.get(key), 200)
  assert.ok(Buffer.from(await read.arrayBuffer()).equals(value), `${key} has other bytes`)
}

const keyOf = (bucket: FakeBucket, size: number): string =>
  bucket.values().find((key) => bucket.objects.get(key)?.bytes.length === size) ?? ''

/** Restores into an empty bucket, in the place of a server that nobody used, killed again and again. */
async function restoreElsewhere(
  t: TestContext,
  { here, ana, values }: { here: Installation; ana: Client; values: Record<string, Buffer> },
): Promise<void> {
  const other = await startBucket(t)
  const there = { ...other.environment, STATIC_ROOT: join(here.folder, 'elsewhere') }
  await (await here.serve(there)).stop()
  for (let calls = 1; ; calls += 2) {
    let left = calls
    const child = here.launch(['restore', 'made.tar.zst'], there)
    other.fault = () => {
      if (--left > 0) return undefined
      child.signal('SIGKILL')
      return 'hang'
    }
    const { code, signal } = await child.ended
    if (signal === null) {
      assert.equal(code, 0, child.output().stderr)
      assert.ok(calls > 5)
      break
    }
  }
  other.fault = null
  assert.deepEqual(readdirSync(there.STATIC_ROOT).sort(), ['lock', 'secret', 'sync-node.db'])
  assert.equal(other.values().length, 2)
  const server = await here.serve(there)
  const again = remoteClient(server.url, { token: ana.token, user: ana.user })
  for (const [name, value] of Object.entries(values)) await expectValue(again, name, value)
  const found = await here.run(['doctor', '--deep'], there)
  assert.match(found.stdout, /^ok +values: 2 values .*each byte as it was stored$/m)
  await server.stop()
}

/** The first call that matches fails, or so many; the others are done. */
function failing(pattern: RegExp, fault: Fault, times = Infinity): FakeBucket['fault'] {
  let left = times
  return (call) => (pattern.test(call) && left-- > 0 ? fault : undefined)
}

const health = async ({ url }: TestNode) =>
  (await (await fetch(`${url}/health`)).json()) as { values: string; database: string }

async function refusalOf(t: TestContext, environment: Record<string, string>, root?: string) {
  const started = startNode(t, environment, root === undefined ? {} : { root })
  const error = await started.then(
    () => assert.fail('it starts'),
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof StartError, String(error))
  assert.match(error.message, /^[^\n]{1,250}$/)
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) {
    assert.ok(!error.message.includes(environment[name] ?? 'none'), 'no secret is echoed')
  }
  return error.message
}

// Most of it is waiting.
describe('A server', { concurrency: 3 }, () => {
  describe('Large values in a bucket', () => {
    it('come back as they were, whole and in ranges, and nothing of them is on the disk', async (t) => {
      const { node, bucket, ana } = await start(t)
      for (const size of SIZES) {
        const value = randomBytes(size)
        await ana.save('a', value, { 'X-Sync-Token': '*' }).catch(() => ana.save('a', value))
        await expectValue(ana, 'a', value)
        for (const [from, to] of [
          [0, 0],
          [size - 1, size - 1],
          [size >> 1, size - 2],
        ] as const) {
          const part = await expectStatus(await ana.get('a', { Range: `bytes=${from}-${to}` }), 206)
          assert.ok(Buffer.from(await part.arrayBuffer()).equals(value.subarray(from, to + 1)))
        }
        assert.equal((await ana.head('a')).headers.get('content-length'), String(size))
      }
      await ana.save('small', randomBytes(16 * KIB))
      assert.equal(bucket.values().length, SIZES.length, 'small ones are rows')
      assert.ok(bucket.values().every((key) => key.startsWith('of/ana/1-')))
      assert.equal(bucket.uploads.size, 0)
      const there = ['blobs', 'trash'].filter((name) => existsSync(join(node.root, name)))
      assert.deepEqual(there, [])
      const log = readFileSync(join(node.root, 'sync-node.db-wal'))
      assert.ok(log.length < PART, 'nor in the database')
    })

    it('are never written twice under one name', async (t) => {
      const { bucket, ana } = await start(t)
      const value = randomBytes(LARGE)
      const { token } = await ana.save('a', value)
      await ana.save('a', value, { 'X-Sync-Token': token })
      const puts = bucket.calls.filter((call) => call.startsWith('PUT 1-'))
      assert.deepEqual([puts.length, new Set(puts).size], [2, 2])
    })

    it('leave nothing behind when their upload is cut, refused or loses the race', async (t) => {
      const { node, bucket, ana } = await start(t)
      const { token } = await ana.save('a', 'old value')
      const cut = startUpload(node, ana, 'a', { 'X-Sync-Token': token })
      cut.write(Buffer.alloc(PART + 1))
      await eventually(() => [...bucket.uploads.values()][0]?.parts.size, 1)
      cut.abort()
      await eventually(() => bucket.uploads.size, 0)
      const digest = { 'X-Sync-Token': token, 'Content-Digest': `sha-256=:${'A'.repeat(43)}=:` }
      await expectProblem(await ana.put('a', randomBytes(PART + 1), digest), 'REQ01', 400)
      const headers = { 'X-Sync-Token': token }
      const late = await holdBack(node.url, ana, { key: 'a', value: 'x'.repeat(LARGE), headers })
      const later = startUpload(node, ana, 'a', headers)
      later.write(Buffer.alloc(PART + 1))
      await eventually(() => [...bucket.uploads.values()][0]?.parts.size, 1)
      await ana.save('a', 'new value', headers)
      assert.equal((await late.finish()).status, 412)
      later.end()
      assert.equal((await later.answer).status, 412)
      const puts = bucket.calls.filter((call) =>
        /^(?:PUT|POST) \S+-\w{26}(?: uploadId)?$/.test(call),
      )
      assert.equal(new Set(puts).size, 2, 'both were there')
      await eventually(() => [bucket.values(), bucket.uploads.size], [[], 0])
      assert.equal(await (await ana.get('a')).text(), 'new value')
    })

    it('are read again from the row when their object went meanwhile', async (t) => {
      const { node, bucket, ana } = await start(t)
      const { token } = await ana.save('a', randomBytes(LARGE))
      const next = randomBytes(LARGE)
      const { blobs } = node.running.deps
      const { read } = blobs
      let asked = 0
      blobs.read = async (name, part) => {
        if (++asked === 1) {
          await ana.save('a', next, { 'X-Sync-Token': token })
          bucket.objects.delete(`of/ana/${name}`)
        }
        return read(name, part)
      }
      await expectValue(ana, 'a', next)
      assert.equal(asked, 2)
    })
  })

  describe('A bucket that fails', () => {
    const PASSING: [name: string, fault: Fault][] = [
      ['is told to slow down', { status: 503, code: 'SlowDown' }],
      ['meets an error of its own', { status: 500, code: 'InternalError' }],
      ['is told it was too slow', { status: 400, code: 'RequestTimeout' }],
      ['loses its connection', 'cut'],
    ]
    for (const [name, fault] of PASSING) {
      it(`twice is not noticed by people: it ${name}`, async (t) => {
        const { node, bucket, ana } = await start(t)
        for (const [size, calls] of [
          [LARGE, [/^PUT/]],
          [PART + 1, fault === 'cut' ? [/ uploads/, /partNumber/, /POST \S+ uploadId/] : []],
        ] as const) {
          for (const call of calls) {
            const value = randomBytes(size)
            bucket.fault = failing(call, fault, 2)
            await expectStatus(await ana.put('a', value, { 'X-Sync-Token': '*' }), 412)
            const { token } = await ana.save('a', value)
            bucket.fault = failing(/^GET/, fault, 2)
            await expectValue(ana, 'a', value)
            bucket.fault = null
            await expectStatus(await ana.delete('a', token), 204)
          }
        }
        assert.equal((await health(node)).values, 'ok')
      })
    }

    it('while a value is read is asked for the rest of it', async (t) => {
      const { bucket, ana } = await start(t)
      const value = randomBytes(3 * MIB)
      await ana.save('a', value)
      bucket.fault = failing(/^GET/, 'half', 3)
      await expectValue(ana, 'a', value)
    })

    it('for good refuses what needs it by 503, and nothing else; it is told of, and heals', async (t) => {
      const { node, bucket, ana } = await start(t)
      const old = randomBytes(LARGE)
      const { token } = await ana.save('a', old)
      const { token: small } = await ana.save('small', 'value')
      bucket.goAway()
      const match = { 'X-Sync-Token': token }
      for (const refused of [
        await ana.put('a', randomBytes(LARGE), match),
        await ana.put('a', randomBytes(PART + 1), match),
        await ana.put('new', randomBytes(LARGE)),
        await ana.get('a'),
        await ana.get('a', { Range: 'bytes=0-9' }),
      ]) {
        assert.ok(refused.headers.has('retry-after'))
        await expectProblem(refused, 'ERR05', 503)
      }
      assert.equal((await ana.head('a')).status, 503)
      await ana.save('small', 'another', { 'X-Sync-Token': small })
      assert.equal(await (await ana.get('small')).text(), 'another')
      await expectStatus(await ana.get('a', { 'If-None-Match': `"${token}"` }), 304)
      assert.equal((await ana.list()).length, 2)
      const told = await node.request('/health')
      assert.equal(told.status, 500)
      assert.partialDeepStrictEqual(await told.json(), { values: 'unreachable', database: 'ok' })
      await node.running.housekeep()
      bucket.comeBack()
      await expectValue(ana, 'a', old)
      await ana.save('a', randomBytes(LARGE), match)
      assert.equal((await health(node)).values, 'ok')
    })

    it('recovers in the eyes of /health though nobody asks for a value', async (t) => {
      const { node, bucket, ana } = await start(t)
      await ana.save('a', randomBytes(LARGE))
      bucket.goAway()
      assert.equal((await ana.get('a')).status, 503)
      assert.equal((await health(node)).values, 'unreachable')
      bucket.comeBack()
      await eventually(async () => (await health(node)).values, 'ok')
    })

    it('by refusing the server is told from one that is away', async (t) => {
      const { node, bucket, ana } = await start(t)
      await ana.save('a', randomBytes(LARGE))
      bucket.fault = failing(/^GET/, { status: 403, code: 'AccessDenied' })
      await expectProblem(await ana.get('a'), 'ERR05', 503)
      assert.equal((await health(node)).values, 'refused')
      bucket.fault = null
      await expectStatus(await ana.get('a'), 200)
      assert.equal((await health(node)).values, 'ok')
    })

    it('at one value by its silence holds up no other, and is asked again', async (t) => {
      const { bucket, ana } = await start(t)
      const other = randomBytes(LARGE)
      await ana.save('never', randomBytes(LARGE))
      const [never = ''] = bucket.values()
      await ana.save('other', other)
      const silent = `GET ${basename(never)}`
      bucket.fault = (call) => (call === silent ? 'hang' : undefined)
      const waiting = ana.get('never')
      for (let i = 0; i < 20; i++) await expectValue(ana, 'other', other)
      await ana.save('third', randomBytes(PART + 1))
      await expectProblem(await waiting, 'ERR05', 503)
      assert.ok(bucket.calls.filter((call) => call === silent).length > 1)
    })

    it('when an upload in parts is completed may have done it: the answer alone was lost', async (t) => {
      const { bucket, ana } = await start(t)
      const value = randomBytes(PART + 1)
      bucket.fault = failing(/POST \S+ uploadId/, 'half', 1)
      await ana.save('a', value)
      await expectValue(ana, 'a', value)
    })

    it('after it has begun to answer an upload in parts is believed, when that comes as a 200', async (t) => {
      const { bucket, ana } = await start(t)
      const value = randomBytes(PART + 1)
      bucket.fault = failing(/POST \S+ uploadId/, { status: 200, code: 'InternalError' }, 2)
      await ana.save('a', value)
      await expectValue(ana, 'a', value)
    })

    it('by other bytes than were stored is noticed, and its last 64 KiB are held back', async (t) => {
      const { node, bucket, ana } = await start(t)
      const [small, large] = [65_537, 300_000]
      for (const size of [small, large]) {
        await ana.save(`v${size}`, randomBytes(size))
        const key = bucket.values().find((one) => bucket.objects.get(one)?.bytes.length === size)
        bucket.objects.set(key ?? '', { bytes: randomBytes(size), modified: Date.now() })
        const wire = await openWire(t, node.port)
        const head = `GET /store/v${size} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${ana.token}`
        wire.send(`${head}\r\n\r\n`)
        const answer = await wire.answer()
        assert.ok(!(answer?.isWhole ?? false))
        assert.ok(
          (answer?.body.length ?? 0) <= size - 64 * KIB,
          `${answer?.body.length} of ${size}`,
        )
        await expectProblem(await ana.get(`v${size}`), 'ERR02', 500)
      }
    })
  })

  describe('What is superseded or left over in a bucket', () => {
    const named = (node: TestNode) => rows(node, 'SELECT store_file FROM blob_garbage')

    it('stays for a day, so that a database that went back finds it', async (t) => {
      const { node, bucket, ana } = await start(t)
      const { token } = await ana.save('a', randomBytes(LARGE))
      await ana.save('a', 'small now', { 'X-Sync-Token': token })
      await node.running.housekeep()
      node.advance(23 * HOUR)
      await node.running.housekeep()
      await node.running.housekeep()
      assert.equal(bucket.values().length, 1)
      node.advance(2 * HOUR)
      await node.running.housekeep()
      await node.running.housekeep()
      assert.deepEqual([bucket.values(), await named(node)], [[], []])
    })

    it('is removed by one node at a time, and by another when that one is gone', async (t) => {
      const { node, bucket, ana } = await start(t)
      const { token } = await ana.save('a', randomBytes(LARGE))
      await ana.delete('a', token)
      node.advance(25 * HOUR)
      await node.running.housekeep()
      const until = node.running.deps.clock.now() + 10 * 60_000
      const { database } = node.running.deps
      await database.execute({
        sql: `INSERT OR REPLACE INTO hold (id, until) VALUES ('lease-garbage', ?)`,
        args: [until],
      })
      await node.running.housekeep()
      assert.equal(bucket.values().length, 1, 'another node is at it')
      node.advance(11 * 60_000)
      await node.running.housekeep()
      await node.running.housekeep()
      assert.deepEqual(bucket.values(), [])
    })

    it('goes a week after its writer died, by the clock of the bucket, and nothing else does', async (t) => {
      const { node, bucket, ana } = await start(t, { page: 2 })
      const value = randomBytes(LARGE)
      await ana.save('a', value)
      const stray = (n: number) => `of/ana/${n}-${'0'.repeat(26)}`
      const others = ['of/ana/!notes.txt', `of/bob/1-${'0'.repeat(26)}`]
      for (const key of [stray(0), stray(1), stray(2), ...others]) {
        bucket.objects.set(key, { bytes: randomBytes(9), modified: Date.now() })
      }
      bucket.uploads.set('left', { key: stray(3), begun: Date.now(), parts: new Map() })
      bucket.uploads.set('other', { key: 'of/ana/x', begun: Date.now(), parts: new Map() })
      const all = bucket.objects.size
      node.advance(30 * DAY)
      await node.running.housekeep()
      assert.equal(bucket.objects.size, all, 'by its own clock it is not due')
      bucket.advance(6 * DAY)
      node.advance(DAY)
      await node.running.housekeep()
      assert.deepEqual([bucket.objects.size, [...bucket.uploads.keys()]], [all, ['other']])
      bucket.advance(2 * DAY)
      node.advance(DAY)
      await node.running.housekeep()
      assert.equal(bucket.objects.size, all - 3)
      assert.ok(others.every((key) => bucket.objects.has(key)))
      await expectValue(await node.logIn('ana'), 'a', value)
    })

    it('is looked for once a day, for it takes long lists; again when that failed', async (t) => {
      const { node, bucket } = await start(t)
      const lists = () => bucket.calls.filter((call) => call === 'GET uploads').length
      bucket.fault = failing(/GET uploads/, { status: 403, code: 'AccessDenied' }, 1)
      await node.running.housekeep()
      await node.running.housekeep()
      assert.equal(lists(), 2)
      await node.running.housekeep()
      node.advance(25 * HOUR)
      await node.running.housekeep()
      assert.equal(lists(), 3)
    })

    it('is no upload that took longer than a day: that is refused', async (t) => {
      const { node, bucket, ana } = await start(t)
      const slow = startUpload(node, ana, 'a')
      slow.write(Buffer.alloc(PART + 1))
      await eventually(() => bucket.uploads.size, 1)
      node.advance(25 * HOUR)
      slow.end()
      assert.equal((await slow.answer).status, 503)
      await eventually(() => [bucket.values(), bucket.uploads.size], [[], 0])
    })
  })

  describe('A start with a bucket', () => {
    it('ends with one line when the bucket refuses it, is not there, or is in another region', async (t) => {
      const { environment } = await startBucket(t)
      const { BLOB_URL: url = '' } = environment
      for (const [wrong, says] of [
        [{ AWS_SECRET_ACCESS_KEY: 'wrong' }, /403 SignatureDoesNotMatch/],
        [{ AWS_ACCESS_KEY_ID: 'wrong' }, /403 InvalidAccessKeyId/],
        [{ BLOB_URL: url.replace('//values', '//nothing') }, /404 NoSuchBucket/],
        [{ BLOB_URL: url.replace('garage', 'elsewhere') }, /400 AuthorizationHeaderMalformed/],
      ] as const) {
        const line = await refusalOf(t, { ...environment, ...wrong })
        assert.match(line, says)
        assert.match(line, /BLOB_URL.*AWS_ACCESS_KEY_ID/)
      }
    })

    it('goes on without one that cannot be reached, and takes values when it can', async (t) => {
      const bucket = await startBucket(t)
      bucket.goAway()
      const node = await startNode(t, bucket.environment)
      const ana = await node.signUp('ana')
      await ana.save('small', 'value')
      assert.equal((await health(node)).values, 'unreachable')
      await expectProblem(await ana.put('a', randomBytes(LARGE)), 'ERR05', 503)
      bucket.comeBack()
      await ana.save('a', randomBytes(LARGE))
    })

    it('that was of other data takes nothing there, though it came up later', async (t) => {
      const { bucket, node: owner } = await start(t)
      await owner.stop()
      bucket.goAway()
      const node = await startNode(t, bucket.environment)
      const ana = await node.signUp('ana')
      bucket.comeBack()
      await expectProblem(await ana.put('a', randomBytes(LARGE)), 'ERR05', 503)
      bucket.advance(8 * DAY)
      await node.running.housekeep()
      assert.deepEqual([...bucket.objects.keys()], ['of/ana/sync-node'])
    })

    it('ends with one line at the values of other data, or at a bucket that has lost its own', async (t) => {
      const { bucket, node, ana } = await start(t)
      assert.match(await refusalOf(t, bucket.environment), /values of other data/)
      await ana.save('a', randomBytes(LARGE))
      await node.stop()
      const { environment } = await startBucket(t)
      assert.match(await refusalOf(t, environment, node.root), /without the values of this data/)
      await node.restart()
      assert.equal((await ana.get('a')).status, 200)
    })

    it('ends with one line where values lie on the disk, and the other way round', async (t) => {
      const { environment } = await startBucket(t)
      const onDisk = await startNode(t, { BLOB_URL: '' })
      const bob = await onDisk.signUp('bob')
      await bob.save('a', randomBytes(LARGE))
      await onDisk.stop()
      const before = readdirSync(onDisk.root).sort()
      assert.match(
        await refusalOf(t, environment, onDisk.root),
        /BLOB_URL is set, but values lie in/,
      )
      assert.deepEqual(readdirSync(onDisk.root).sort(), before)
      await onDisk.restart()
      await expectStatus(await bob.get('a'), 200)
      const { node, ana } = await start(t)
      await ana.save('a', randomBytes(LARGE))
      await node.stop()
      assert.match(await refusalOf(t, { BLOB_URL: '' }, node.root), /BLOB_URL is not set/)
      await node.restart()
      await expectStatus(await ana.get('a'), 200)
    })

    it('prints where it is, and no secret', async (t) => {
      const { environment, endpoint } = await startBucket(t)
      const here = install(t)
      const { stdout } = await here.run(['config', '--json'], environment)
      const printed = JSON.parse(stdout) as { name: string; value: string }[]
      const valueOf = (name: string) => printed.find((one) => one.name === name)?.value
      assert.equal(valueOf('BLOB_URL'), `s3://values/of/ana/?endpoint=${endpoint}&region=garage`)
      assert.deepEqual(
        [valueOf('AWS_ACCESS_KEY_ID'), valueOf('AWS_SECRET_ACCESS_KEY')],
        ['set', 'set'],
      )
      assert.ok(!stdout.includes(environment['AWS_SECRET_ACCESS_KEY'] ?? ''))
    })
  })

  describe('Credentials that end', () => {
    it('are signed with their session token, which is never printed', async (t) => {
      const sessionToken = randomBytes(200).toString('base64')
      const { node, bucket, ana } = await start(t, { sessionToken })
      const value = randomBytes(PART + 1)
      await ana.save('a', value)
      await expectValue(ana, 'a', value)
      await node.stop()
      for (const AWS_SESSION_TOKEN of ['', `${sessionToken}x`]) {
        const wrong = { ...bucket.environment, AWS_SESSION_TOKEN }
        assert.match(await refusalOf(t, wrong, node.root), /403 InvalidToken/)
      }
      const printed = await install(t).run(['config'], bucket.environment)
      assert.match(printed.stdout, /^AWS_SESSION_TOKEN +set +environment$/m)
      assert.ok(!printed.stdout.includes(sessionToken))
    })
  })

  describe('Commands on data with its values in a bucket', () => {
    it('back it up with them, restore that to the disk or to another place, and look for what is damaged', async (t) => {
      const bucket = await startBucket(t)
      const here = install(t)
      const server = await here.serve({ ...bucket.environment, LOG_LEVEL: 'trace' })
      const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
      const values = { a: randomBytes(LARGE), b: randomBytes(PART + 1) }
      for (const [key, value] of Object.entries(values)) await ana.save(key, value)
      const made = await here.run(['backup', 'made.tar.zst'], bucket.environment)
      assert.equal(made.code, 0, made.stderr)
      const found = await here.run(['doctor', '--deep'], bucket.environment)
      assert.match(found.stdout, /^ok +bucket: answers, and is of this data$/m)
      assert.match(found.stdout, /^ok +values: 2 values .*each byte as it was stored$/m)
      const [key = ''] = bucket.values()
      bucket.objects.delete(key)
      const damaged = await here.run(['doctor'], bucket.environment)
      assert.match(damaged.stdout, /^problem +values: 1 of 2 values/m)
      bucket.fault = () => ({ status: 403, code: 'AccessDenied' })
      assert.equal((await ana.get('b')).status, 503)
      bucket.fault = null
      await server.stop()
      const logged = JSON.stringify(server.output())
      assert.match(
        logged,
        /the bucket of BLOB_URL is refused.*answers 403 AccessDenied|answers 403 AccessDenied.*is refused/,
      )
      const secrets = [
        bucket.environment['AWS_ACCESS_KEY_ID'],
        bucket.environment['AWS_SECRET_ACCESS_KEY'],
      ]
      for (const secret of secrets)
        assert.ok(!logged.includes(secret ?? 'none'), 'it is in the log')
      const target = { STATIC_ROOT: join(here.folder, 'restored') }
      const refused = await here.run(['restore', 'made.tar.zst'], {
        ...bucket.environment,
        ...target,
      })
      assert.equal(refused.code, 1)
      assert.match(
        refused.stderr,
        /has values already: take another prefix, as nothing is overwritten/,
      )
      assert.deepEqual(readdirSync(here.folder).sort(), ['data', 'made.tar.zst'])
      assert.equal((await here.run(['restore', 'made.tar.zst'], target)).code, 0)
      const restored = await here.serve(target)
      const again = remoteClient(restored.url, { token: ana.token, user: ana.user } as never)
      for (const [name, value] of Object.entries(values)) await expectValue(again, name, value)
      await restored.stop()
      await restoreElsewhere(t, { here, ana, values })
      bucket.goAway()
      const away = await here.run(['doctor'], bucket.environment)
      assert.match(away.stdout, /^problem +bucket: cannot be reached/m)
    })
  })

  describe('The doctor of data with its values in a bucket', () => {
    it('asks for lists of them, and for none by itself', async (t) => {
      const { node, bucket, ana } = await start(t, { page: 20 })
      for (let i = 0; i < 50; i++) await ana.save(`v${i}`, randomBytes(16 * KIB + 1 + i))
      await ana.save('v0', 'small now', { 'X-Sync-Token': '*' })
      await node.stop()
      const look = async () => {
        const ran = await install(t).run(['doctor'], {
          ...bucket.environment,
          STATIC_ROOT: node.root,
        })
        return /^\w+ +values: .*$(?:\n +\S.*$)*/m.exec(ran.stdout)?.[0] ?? ran.stderr
      }
      bucket.calls.length = 0
      assert.match(await look(), /^ok +values: 50 values .*, all there$/)
      const calls = bucket.calls.filter((call) => !call.endsWith(' sync-node'))
      assert.ok(
        calls.length < 10 && calls.every((call) => call.startsWith('GET list-type')),
        calls.join(),
      )
      const named = keyOf(bucket, 16 * KIB + 1 + 7)
      bucket.objects.delete(named)
      const other = keyOf(bucket, 16 * KIB + 1 + 49)
      bucket.objects.set(other, { bytes: randomBytes(9), modified: Date.now() })
      const found = await look()
      assert.match(found, /^problem +values: 2 of 50 values/)
      assert.ok(found.includes(`blobs/${basename(named)} is missing`), found)
      assert.ok(found.includes(`blobs/${basename(other)} has 9 bytes of`), found)
    })
  })

  describe('Memory for uploads', () => {
    const small = { totalBytes: 30, reserveBytes: 10, evictMs: 20, refuseMs: 60 }

    it('is for so many bytes: others wait, the slowest makes way, and the last is refused', async () => {
      const memory = openMemory(small)
      const gone: string[] = []
      const sending = await memory.take(10, () => gone.push('sending'))
      sending.send()
      await memory.take(10, () => gone.push('slow'))
      const third = await memory.take(10, () => gone.push('third'))
      assert.deepEqual(gone, ['slow'])
      third.send()
      await assert.rejects(
        memory.take(10, () => gone.push('fourth')),
        (error: unknown) => error instanceof SyncError && error.code === 'ERR05',
      )
      const waiting = memory.take(20, () => gone.push('fifth'))
      third.release()
      third.release()
      sending.release()
      await waiting
      assert.deepEqual(gone, ['slow'])
    })

    it('is kept for one that has begun, so that all come to their end in turn', async () => {
      const memory = openMemory({ ...small, evictMs: 5000, refuseMs: 10_000 })
      const refuse = () => assert.fail('it is not slow')
      let ended = 0
      const upload = async (): Promise<void> => {
        const share = await memory.take(2, refuse)
        await share.grow(8)
        share.send()
        await nextTurn()
        share.release()
        ended++
      }
      await Promise.all(Array.from({ length: 200 }, upload))
      assert.equal(ended, 200)
    })

    it('of an upload that made way is not missed: it is refused, however much of it is there', async (t) => {
      const bucket = await startBucket(t)
      const { blobUrl } = readConfig(bucket.environment)
      const opened = openBucket(blobUrl as Place, () => undefined)
      t.after(() => opened.close())
      const memory = openMemory({ totalBytes: PART + MIB, reserveBytes: 0, evictMs: 20 })
      for (const size of [LARGE, PART + LARGE]) {
        const undone: Promise<void>[] = []
        const upload = startParts({
          bucket: opened,
          memory,
          name: 'slow',
          length: undefined,
          wall: Date.now,
          undo: (work) => undone.push(work),
        })
        await upload.write(randomBytes(size))
        const other = await memory.take(PART + MIB, () => undefined)
        await assert.rejects(upload.finish(), SyncError)
        await upload.discard()
        await Promise.all(undone)
        assert.deepEqual([bucket.objects.size, bucket.uploads.size], [0, 0])
        other.release()
      }
    })

    it('stays small while values of 300 MB go through', async (t) => {
      const bucket = await startBucket(t)
      const here = install(t)
      const server = await here.serve(bucket.environment)
      const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
      const memoryOf = (): number => {
        const status = readFileSync(`/proc/${server.pid}/status`, 'utf8')
        return Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]) / KIB
      }
      await ana.save('warm', randomBytes(PART + 1))
      await (await ana.get('warm')).arrayBuffer()
      const before = memoryOf()
      let most = before
      const timer = setInterval(() => (most = Math.max(most, memoryOf())), 50)
      await expectStatus(await ana.put('a', Buffer.alloc(300_000_000, 'x')), 201)
      const [read, written] = [await expectStatus(await ana.get('a'), 200), most]
      let bytes = 0
      for await (const chunk of read.body as AsyncIterable<Uint8Array>) bytes += chunk.length
      clearInterval(timer)
      assert.equal(bytes, 300_000_000)
      const grown = [written, most].map((mib) => Math.round(mib - before))
      t.diagnostic(`RssAnon of ${Math.round(before)} MiB grew by ${grown[0]} MiB, then ${grown[1]}`)
      assert.ok(most - before < 200, `${most - before} MiB`)
    })
  })

  describe('OpenStack Swift', { skip }, () => {
    it('keeps values of all sizes, lists what is left over, and refuses a wrong signature', async (t) => {
      const { environment, bucket } = await startSwift(t)
      const wrong = { ...environment, AWS_SECRET_ACCESS_KEY: 'wrong' }
      assert.match(await refusalOf(t, wrong), /403 SignatureDoesNotMatch/)
      const node = await startNode(t, environment)
      const ana = await node.signUp('ana')
      for (const size of [LARGE, PART, 2 * PART + 5]) {
        const value = randomBytes(size)
        await ana.save(`v${size}`, value)
        await expectValue(ana, `v${size}`, value)
        const part = await expectStatus(
          await ana.get(`v${size}`, { Range: 'bytes=70000-70009' }),
          206,
        )
        assert.ok(Buffer.from(await part.arrayBuffer()).equals(value.subarray(70_000, 70_010)))
        assert.equal((await ana.head(`v${size}`)).headers.get('content-length'), String(size))
      }
      const cut = startUpload(node, ana, 'cut')
      cut.write(Buffer.alloc(PART + 1))
      await eventually(async () => (await bucket.listUploads()).uploads.length, 1)
      const { now, uploads } = await bucket.listUploads()
      assert.ok(Math.abs(now - (uploads[0]?.modified ?? 0)) < HOUR)
      cut.abort()
      await eventually(async () => (await bucket.listUploads()).uploads.length, 0)
      const { token } = await ana.save('gone', randomBytes(LARGE))
      await expectStatus(await ana.delete('gone', token), 204)
      node.advance(25 * HOUR)
      for (let i = 0; i < 2; i++) await node.running.housekeep()
      const listed: string[] = []
      for await (const { objects } of bucket.list()) listed.push(...objects.map(({ name }) => name))
      assert.equal(listed.length, 4, 'three values and whose they are')
      await node.restart()
      await expectStatus(await ana.get(`v${PART}`), 200)
    })
  })
})
