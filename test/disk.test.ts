import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  statfsSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, temporaryFolder, type TestNode } from './helpers/node.ts'

const MIB = 1024 * 1024
const RESERVE = 16 * MIB
const HUGE = 2 ** 60

/** A node with an account and two values, started again with a floor that no disk reaches. */
async function belowFloor(t: TestContext): Promise<{ node: TestNode; ana: Client; token: string }> {
  const before = await startNode(t)
  const first = await before.signUp('ana')
  await before.signUp('ben')
  const { token } = await first.save('small', 'small value')
  await first.save('large', randomBytes(100_000))
  await before.stop()
  const node = await startNode(t, {}, { root: before.root, floorBytes: HUGE })
  return { node, ana: await node.logIn('ana'), token }
}

async function health({ url }: TestNode): Promise<unknown> {
  const response = await fetch(`${url}/health`)
  const { database, disk, code } = (await response.json()) as Record<string, unknown>
  return {
    status: response.status,
    type: response.headers.get('content-type'),
    database,
    disk,
    code,
  }
}

const WELL = { status: 200, type: 'application/json', database: 'ok', disk: 'ok', code: undefined }
const FULL = {
  status: 500,
  type: 'application/problem+json',
  database: 'ok',
  disk: 'full',
  code: 'ERR02',
}

describe('below the floor of free disk', () => {
  it('no value is taken, be it small, large, empty, new or a replacement', async (t) => {
    const { node, ana, token } = await belowFloor(t)
    for (const [key, size, headers] of [
      ['new', 0, {}],
      ['new', 10, {}],
      ['new', 1_000_000, {}],
      ['small', 5, { 'X-Sync-Token': token }],
      ['large', 5, { 'X-Sync-Token': '*' }],
    ] as const) {
      await expectProblem(await ana.put(key, randomBytes(size), headers), 'SIZE03', 507)
    }
    assert.equal(await (await ana.get('small')).text(), 'small value')
    await expectStatus(await ana.get('new'), 404)
    assert.equal(readdirSync(join(node.root, 'blobs')).length, 1)
    assert.deepEqual(node.fatal, [])
  })

  it('no account is made, but everything that reads, ends or frees goes on', async (t) => {
    const { node, ana, token } = await belowFloor(t)
    await assert.rejects(node.signUp('eve'), /SIZE03/)
    assert.equal((await ana.list()).length, 2)
    await expectStatus(await ana.get('large'), 200)
    await expectStatus(await ana.head('small'), 200)
    const phone = await node.logIn('ana', { device: 'phone' })
    await expectStatus(await phone.request('/auth', { method: 'DELETE' }), 204)
    await expectStatus(await ana.delete('small', token), 204)
    const body = JSON.stringify({ operations: [{ delete: 'large', token: '*' }] })
    await expectStatus(await ana.request('/batch', { method: 'POST', body }), 200)
    await node.running.housekeep()
    await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
    await node.logIn('ben')
  })

  it('/health says so, and writes are not what it says it by', async (t) => {
    const { node } = await belowFloor(t)
    assert.deepEqual(await health(node), FULL)
    await node.stop()
    const after = await startNode(t, {}, { root: node.root })
    assert.deepEqual(await health(after), WELL)
  })

  it('a value that would end below it is refused before it is sent', async (t) => {
    const { bavail, bsize } = statfsSync(temporaryFolder(t))
    const free = bavail * bsize
    const node = await startNode(
      t,
      { MAX_VALUE_SIZE: '100T', QUOTA: 'none' },
      { floorBytes: free / 2 },
    )
    const ana = await node.signUp('ana')
    await expectStatus(await ana.put('a', 'small'), 201)
    const { request } = await import('node:http')
    const status = await new Promise((resolve, reject) => {
      const put = request(`${node.url}/store/b`, {
        method: 'PUT',
        headers: { ...ana.headers, 'Content-Length': Math.floor(free), Expect: '100-continue' },
      })
      put.once('continue', () => resolve('continue'))
      put.once('response', ({ statusCode }) => resolve(statusCode))
      put.once('error', reject)
      t.after(() => put.destroy())
      put.flushHeaders()
    })
    assert.equal(status, 507)
  })
})

const reserve = ({ root }: TestNode) => statSync(join(root, 'reserve'), { throwIfNoEntry: false })

describe('the reserve', () => {
  it('is made in the background, 16 MiB that no file system can leave out', async (t) => {
    const node = await startNode(t)
    assert.equal(reserve(node), undefined)
    await node.running.housekeep()
    const made = reserve(node)
    assert.equal(made?.size, RESERVE)
    assert.ok(made.blocks * 512 >= RESERVE, 'not sparse')
    assert.equal(made.mode & 0o777, 0o600)
    await node.running.housekeep()
    assert.equal(reserve(node)?.ino, made.ino, 'and made once')
    assert.ok(!existsSync(join(node.root, 'reserve.new')))
  })

  it('is not made where there is no room for it', async (t) => {
    const node = await startNode(t, {}, { floorBytes: HUGE })
    await node.running.housekeep()
    assert.equal(reserve(node), undefined)
  })
})

function run(...command: [string, ...string[]]): void {
  execFileSync(command[0], command.slice(1), { stdio: 'pipe' })
}

/** A node on a disk of its own, which `make` prepares; skips the test where nothing can be mounted. */
async function startOnDisk(
  t: TestContext,
  make: (folder: string) => string[],
  { environment = {}, floorBytes = 1 } = {},
): Promise<TestNode | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'sync-node-disk-'))
  const disk = join(folder, 'disk')
  let node: TestNode | undefined
  let isMounted = false
  t.after(async () => {
    await node?.stop()
    if (isMounted) run('umount', '-l', disk)
    rmSync(folder, { recursive: true })
  })
  try {
    if (process.getuid?.() !== 0) throw new Error('only root can')
    mkdirSync(disk)
    run('mount', ...make(folder), disk)
    isMounted = true
  } catch (error) {
    if (process.env['CI'] !== undefined) throw error
    t.skip(`NOT TESTED: nothing can be mounted here: ${(error as Error).message}`)
    return undefined
  }
  node = await startNode(t, environment, { root: join(disk, 'data'), floorBytes })
  return node
}

const tmpfs = (size: string) => () => ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs']

function ext4(folder: string): string[] {
  const image = join(folder, 'image')
  closeSync(openSync(image, 'w'))
  truncateSync(image, 64 * MIB)
  run('mkfs.ext4', '-q', '-F', '-m', '0', image)
  return ['-o', 'loop', image]
}

/** Fills the disk to its last block; answers how to free it again. */
function fill(root: string): () => void {
  const path = join(root, '..', 'filler')
  const file = openSync(path, 'a')
  for (let bytes = MIB; bytes >= 1; bytes = Math.floor(bytes / 2)) {
    try {
      for (;;) writeSync(file, Buffer.alloc(bytes, 1))
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
    }
  }
  closeSync(file)
  return () => rmSync(path)
}

describe('a disk that something else fills to the last block', () => {
  const FLOOR = 18 * MIB // above the reserve: what that frees is not for values
  const disks = { tmpfs: tmpfs('48m'), ext4 }

  for (const [name, make] of Object.entries(disks)) {
    it(`refuses values, and takes logins and deletions: ${name}`, async (t) => {
      const node = await startOnDisk(t, make, { floorBytes: FLOOR })
      if (node === undefined) return
      const ana = await node.signUp('ana')
      const small = await ana.save('small', 'value')
      const large = await ana.save('large', randomBytes(200_000))
      await node.running.housekeep()
      assert.equal(reserve(node)?.size, RESERVE)
      const free = fill(node.root)
      node.advance(1000) // the disk is looked at five times a second
      await expectFull(node, ana)
      const phone = await node.logIn('ana')
      assert.equal(reserve(node), undefined, 'the reserve was given up for that')
      await expectFull(node, phone)
      await expectStatus(await phone.get('large'), 200)
      await expectStatus(await phone.delete('small', small.token), 204)
      await expectStatus(await phone.delete('large', large.token), 204)
      free()
      await expectRecovered(node, ana)
    })

    it(`can be started on, and recovers: ${name}`, async (t) => {
      const node = await startOnDisk(t, make, { floorBytes: FLOOR })
      if (node === undefined) return
      const { root } = node
      const ana = await node.signUp('ana')
      await ana.save('a', 'value')
      await node.running.housekeep()
      await node.stop()
      const free = fill(root)
      await node.restart()
      assert.equal(await (await ana.get('a')).text(), 'value')
      const phone = await node.logIn('ana')
      await expectProblem(await phone.put('b', 'value'), 'SIZE03', 507)
      await node.restart()
      await node.logIn('ana')
      free()
      node.advance(1000)
      await expectStatus(await phone.put('b', 'value'), 201)
      assert.deepEqual(node.fatal, [])
    })

    it(`that runs full during a write tells the client, and nothing happened: ${name}`, async (t) => {
      const node = await startOnDisk(t, make, { environment: { QUOTA: 'none' } })
      if (node === undefined) return
      const { root } = node
      // Nobody looks at the floor: the file system and SQLite are the first to notice.
      node.running.deps.space.check = () => undefined
      const ana = await node.signUp('ana')
      await ana.save('a', 'value')
      const free = fill(root)
      for (const size of [1_000_000, 16_000]) {
        const { status, index } = await putUntilRefused(ana, size)
        assert.equal(status, 507, `${size} bytes`)
        await expectStatus(await ana.get(`k${size}-${index}`), 404)
        assert.deepEqual(node.fatal, [], 'the process stays up')
      }
      assert.equal(await (await ana.get('a')).text(), 'value')
      free()
      await expectStatus(await ana.put('b', randomBytes(100_000)), 201)
    })
  }
})

async function expectFull(node: TestNode, client: Client): Promise<void> {
  for (const size of [10, 100_000]) {
    await expectProblem(await client.put('new', randomBytes(size)), 'SIZE03', 507)
  }
  assert.deepEqual(await health(node), FULL)
}

async function expectRecovered(node: TestNode, client: Client): Promise<void> {
  node.advance(1000)
  await expectStatus(await client.put('new', randomBytes(100_000)), 201)
  assert.deepEqual(await health(node), WELL)
  await node.running.housekeep()
  assert.equal(reserve(node)?.size, RESERVE, 'there is a reserve again')
  assert.deepEqual(node.fatal, [])
}

async function putUntilRefused(ana: Client, size: number) {
  for (let index = 0; index < 2000; index++) {
    const { status } = await ana.put(`k${size}-${index}`, randomBytes(size))
    if (status !== 201) return { status, index }
  }
  throw new Error('the disk did not run full')
}

describe('a disk that became read-only', () => {
  it('refuses writes as ERR05, and reads go on', async (t) => {
    const node = await startOnDisk(t, ext4)
    if (node === undefined) return
    const { root } = node
    const ana = await node.signUp('ana')
    const { token } = await ana.save('a', 'value')
    await ana.save('large', randomBytes(100_000))
    try {
      // As after an I/O error: `remount,ro` alone is refused while files are open.
      run('mount', '-o', 'remount,abort', join(root, '..'))
    } catch (error) {
      if (process.env['CI'] !== undefined) throw error
      t.skip(`NOT TESTED: nothing can be made read-only here: ${(error as Error).message}`)
      return
    }
    for (const size of [10, 100_000]) {
      await expectProblem(await ana.put('b', randomBytes(size)), 'ERR05', 503)
    }
    const refused = await ana.put('a', 'next', { 'X-Sync-Token': token })
    assert.ok(refused.headers.has('retry-after'))
    await expectProblem(refused, 'ERR05', 503)
    await expectProblem(await ana.delete('a', token), 'ERR05', 503)
    assert.equal(await (await ana.get('a')).text(), 'value')
    assert.equal((await (await ana.get('large')).arrayBuffer()).byteLength, 100_000)
    assert.equal((await ana.list()).length, 2)
    assert.deepEqual(node.fatal, [], 'the process stays up')
  })
})
