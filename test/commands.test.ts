import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  EXECUTABLE,
  install,
  type Installation,
  type Ran,
  type Server,
} from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { busyWriters } from './helpers/load.ts'
import { PASSWORD } from './helpers/node.ts'
import { post, remoteClient, signUp, type Opened } from './helpers/remote.ts'

const SECRET = /^[\w-]{43}\n$/

/** The command did it: data alone on stdout, the folder named on stderr; answers the data. */
function expectData({ code, stdout, stderr }: Ran, here: Installation): string {
  assert.equal(code, 0, stderr)
  assert.match(stdout, SECRET)
  assert.ok(stderr.startsWith(`Data: ${here.root}\n`), stderr)
  assert.ok(!stderr.includes(stdout.trim()))
  return stdout.trim()
}

const STACK = /Unhandled|^ +at /m

describe('What a command prints', () => {
  for (const args of ['--help', 'version --json', 'account list', 'config']) {
    it(`can have no reader, and no room: ${args}`, async (t) => {
      const here = install(t)
      await (await here.serve()).stop()
      const run = (where: string) =>
        spawnSync('sh', ['-c', `'${EXECUTABLE[0]}' ${args} ${where}`], {
          cwd: here.folder,
          encoding: 'utf8',
        })
      const unread = run('| true')
      assert.doesNotMatch(unread.stderr, STACK)
      const full = run('>/dev/full')
      assert.equal(full.status, 1)
      assert.match(full.stderr, /^sync-node: stdout cannot be written: ENOSPC/m)
      assert.doesNotMatch(full.stderr, STACK)
    })
  }
})

async function startBusy(t: TestContext) {
  const here = install(t)
  const server = await here.serve()
  const ana = await signUp(server.url, { id: 'ana' })
  const load = busyWriters(() => remoteClient(server.url, ana))
  await load.reached(100)
  return { here, server, ana, load }
}

/** Every key holds the value last acknowledged, or one that was on its way when it all ended. */
async function expectAll(
  url: string,
  ana: Opened,
  expected: ReadonlyMap<string, number>,
): Promise<void> {
  const client = remoteClient(url, ana)
  for (const [key, least] of expected) {
    const read = await expectStatus(await client.get(key), 200)
    const found = Number(/^(\d+) /.exec(await read.text())?.[1])
    assert.ok(found === least || found === least + 1, `${key}: ${found}, acknowledged ${least}`)
  }
}

const setPassword = (url: string, token: string, password: string): Promise<Response> =>
  post(url, '/password', { token, password })

describe('Commands beside a busy server', () => {
  it('all succeed, and no acknowledged write is lost', async (t) => {
    const { here, server, ana, load } = await startBusy(t)
    const { url } = server
    await signUp(url, { id: 'ben' })
    const [added = '', invited = '', reset = ''] = (
      await Promise.all([
        here.run(['account', 'add', 'cem']),
        here.run(['invite']),
        here.run(['reset', 'ben']),
      ])
    ).map((ran) => expectData(ran, here))
    for (let round = 0; round < 5; round++) expectData(await here.run(['invite']), here)
    const acknowledged = await load.stop()
    assert.ok(load.failures.length === 0, load.failures.join())
    await expectAll(url, ana, acknowledged)
    await expectStatus(await setPassword(url, added, 'the first password of cem'), 204)
    await expectStatus(await setPassword(url, reset, 'another password of ben'), 204)
    await expectStatus(
      await post(url, '/auth', { id: 'cem', password: 'the first password of cem' }),
      200,
    )
    await expectProblem(await post(url, '/auth', { id: 'ben', password: PASSWORD }), 'AUTH02', 401)
    await restartWithInvitation(here, server, invited)
  })

  it('refuse with exit code 1 what cannot be', async (t) => {
    const { here, server, load } = await startBusy(t)
    for (const [args, says] of [
      [['reset', 'nobody'], 'no account'],
      [['account', 'add', 'ANA '], 'is an account'],
      [['account', 'add', '~ana'], 'id'],
    ] as const) {
      const { code, stdout, stderr } = await here.run([...args])
      assert.deepEqual([code, stdout], [1, ''])
      assert.match(stderr, new RegExp(`^Data: ${here.root}\nsync-node: .*${says}.*\n$`))
    }
    await load.stop()
    await server.stop()
  })

  it('have their writes seen by the server, and outlive its kill -9', async (t) => {
    const { here, server, ana, load } = await startBusy(t)
    const token = expectData(await here.run(['account', 'add', 'cem']), here)
    await server.stop('SIGKILL')
    const acknowledged = await load.stop()
    const { url } = await here.serve()
    await expectAll(url, ana, acknowledged)
    await expectStatus(await setPassword(url, token, PASSWORD), 204)
    await expectStatus(await post(url, '/auth', { id: 'cem', password: PASSWORD }), 200)
  })
})

async function restartWithInvitation(here: Installation, server: Server, invitation: string) {
  await server.stop()
  const { url } = await here.serve({ REGISTRATION: 'invite' })
  const dan = { id: 'dan', password: PASSWORD }
  await expectProblem(await post(url, '/account', dan), 'ACCT01', 403)
  await expectStatus(await post(url, '/account', { ...dan, invitation }), 200)
  await expectProblem(await post(url, '/account', { ...dan, id: 'eve', invitation }), 'ACCT01', 403)
}

const COMMANDS = [['account', 'add', 'ana'], ['invite'], ['reset', 'ana']]

/** Refused in one line that names `folder`; nothing was made in the installation but `left`. */
async function expectNothingMade(here: Installation, folder: string, left: string[]) {
  for (const args of COMMANDS) {
    const { code, stdout, stderr } = await here.run(args, { STATIC_ROOT: folder })
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, /^sync-node: [^\n]*\n$/)
    assert.ok(stderr.includes(folder), stderr)
    assert.deepEqual(readdirSync(here.folder, { recursive: true }), left)
  }
}

describe('Commands without data', () => {
  it('refuse a STATIC_ROOT that is not there', async (t) => {
    const here = install(t)
    await expectNothingMade(here, here.root, [])
    await expectNothingMade(here, join(here.root, 'deeper'), [])
  })

  it('refuse one that is empty, or holds something else', async (t) => {
    const here = install(t)
    mkdirSync(here.root)
    await expectNothingMade(here, here.root, ['data'])
    writeFileSync(join(here.root, 'photo.jpg'), 'a photo')
    await expectNothingMade(here, here.root, ['data', 'data/photo.jpg'])
  })

  it('refuse a folder without its secret, and a database that is empty', async (t) => {
    const here = install(t)
    await (await here.serve()).stop()
    rmSync(join(here.root, 'secret'))
    const left = readdirSync(here.folder, { recursive: true }) as string[]
    await expectNothingMade(here, here.root, left)
    writeFileSync(join(here.root, 'sync-node.db'), '')
    await expectNothingMade(here, here.root, left)
  })

  it('make no folder in data that lacks some', async (t) => {
    const here = install(t)
    await (await here.serve()).stop()
    for (const name of ['blobs', 'trash']) rmSync(join(here.root, name), { recursive: true })
    const left = readdirSync(here.root)
    expectData(await here.run(['invite']), here)
    assert.deepEqual(readdirSync(here.root), left)
  })
})

describe('A copy of the folder', () => {
  it('made by cp -r while it serves costs no acknowledged write, and opens', async (t) => {
    const { here, server, ana, load } = await startBusy(t)
    const copy = join(here.folder, 'copy')
    const before = new Map(load.acknowledged)
    copyFolder(here.root, copy)
    await load.reached(load.count() + 100)
    await server.stop('SIGKILL')
    const acknowledged = await load.stop()

    const again = await here.serve()
    await expectAll(again.url, ana, acknowledged)
    await again.stop()
    const copied = await here.serve({ STATIC_ROOT: copy })
    await expectAtLeast(copied.url, ana, before)
    await copied.stop()
    for (const root of [here.root, copy]) assert.deepEqual(integrityOf(root), ['ok'])
  })

  it('made by reading its files in the same process would cost writes: no code of ours does', () => {
    const folder = fileURLToPath(new URL('../src', import.meta.url))
    const files = (readdirSync(folder, { recursive: true }) as string[]).filter((name) =>
      /\.tsx?$/.test(name),
    )
    assert.ok(files.length > 40)
    const found = files.flatMap((name) =>
      opensOf(readFileSync(join(folder, name), 'utf8'), name.startsWith('database/')),
    )
    assert.deepEqual(found, [])
  })
})

/** Copies files one after the other: a state of the past, unless a checkpoint came between. */
function copyFolder(from: string, to: string): void {
  const walBytes = (): number => statSync(join(from, 'sync-node.db-wal')).size
  for (let tries = 0; tries < 10; tries++) {
    const before = walBytes()
    execFileSync('cp', ['-r', from, to])
    if (walBytes() >= before) return
    rmSync(to, { recursive: true })
  }
  assert.fail('a checkpoint came between each time')
}

/** No key is older than `before`; each writer's keys are as after one of its writes. */
async function expectAtLeast(url: string, ana: Opened, before: ReadonlyMap<string, number>) {
  const client = remoteClient(url, ana)
  const found = new Map<string, number[]>()
  for (const [key, least] of [...before].sort(([a], [b]) => a.localeCompare(b))) {
    const read = await expectStatus(await client.get(key), 200)
    const version = Number(/^(\d+) /.exec(await read.text())?.[1])
    assert.ok(version >= least, `${key}: ${version}, acknowledged ${least} before the copy`)
    const writer = key.split(' ')[1] as string
    found.set(writer, [...(found.get(writer) ?? []), version])
  }
  for (const [first = 0, ...rest] of found.values()) {
    const all = [first, ...rest, first - 1]
    assert.deepEqual(
      all,
      [...all].sort((a, b) => b - a),
    )
  }
  const health = await expectStatus(await client.request('/health'), 200)
  assert.deepEqual(await health.json(), { database: 'ok', disk: 'ok' })
}

function integrityOf(root: string): unknown[] {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  const rows = database.prepare('PRAGMA integrity_check').all()
  database.close()
  return rows.map((row) => row['integrity_check'])
}

const OPENS =
  /\b(?:open|openAsBlob|readFile|writeFile|appendFile|truncate|copyFile|cp|create(?:Read|Write)Stream)(?:Sync)?\(([^)]*)/g

/**
 * The calls in a source that open the database's files other than through SQLite. Within database/ a
 * `path` is the database's; elsewhere it is the name, or its constant, or what was made of these.
 */
function opensOf(source: string, isDatabase: boolean): string[] {
  const named = [...source.matchAll(/(\w+) = [^\n]*(?:sync-node\.db|\bDATABASE\b)/g)].map(
    ([, name]) => `\\b${name}\\b`,
  )
  const meant = new RegExp(
    [
      'sync-node\\.db',
      '\\bDATABASE\\b',
      '-(?:wal|shm)\\b',
      ...named,
      ...(isDatabase ? ['\\bpath\\b'] : []),
    ].join('|'),
  )
  const calls = [...source.matchAll(OPENS)].filter(([, args = '']) => meant.test(args))
  return calls.map(([call]) => call)
}
