// Owns that doctor names what is wrong with an installation, and changes nothing in it but what it says.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import type { Finding } from '../src/doctor/finding.ts'
import { EXECUTABLE, install, type Installation } from './helpers/executable.ts'
import { expectStatus } from './helpers/expect.ts'
import { remoteClient, signUp } from './helpers/remote.ts'

const DAY_MS = 86_400_000
const LARGE = 100_000
/** What depends on the machine that the test runs on may be worth a warning there. */
const OF_MACHINE = ['clock', 'file system', 'memory', 'syncs']
const isRoot = process.getuid?.() === 0 || process.env['CI'] !== undefined

/** Runs doctor, and answers what it found; the exit code must say the same. */
async function examine(
  here: Installation,
  args: string[] = [],
  environment: Record<string, string> = {},
): Promise<Finding[]> {
  const ran = await here.run(['doctor', '--json', ...args], environment)
  const found = JSON.parse(ran.stdout) as Finding[]
  const isBad = found.some(({ level }) => level === 'problem')
  assert.equal(ran.code, isBad ? 1 : 0, ran.stderr)
  return found
}

const problemsOf = (found: Finding[]): Finding[] => found.filter(({ level }) => level === 'problem')

/** The only thing that is wrong is what `check` found; answers its line and what it names. */
function onlyProblem(found: Finding[], check: string): string {
  const problems = problemsOf(found)
  assert.deepEqual(
    problems.map((one) => one.check),
    [check],
    JSON.stringify(problems),
  )
  const [{ text, items = [] }] = problems as [Finding]
  return [text, ...items].join('\n')
}

function expectHealthy(found: Finding[]): void {
  const wrong = found.filter(
    ({ check, level }) =>
      level === 'problem' || (level === 'warning' && !OF_MACHINE.includes(check)),
  )
  assert.deepEqual(wrong, [])
}

/** An installation with a small and a large value of ana, whose server has stopped. */
async function withData(t: TestContext) {
  const here = install(t)
  const server = await here.serve()
  const opened = await signUp(server.url, { id: 'ana' })
  const ana = remoteClient(server.url, opened)
  const small = await ana.save('small', 's'.repeat(2000))
  const large = await ana.save('large', 'l'.repeat(LARGE))
  await server.stop()
  const [file = ''] = readdirSync(join(here.root, 'blobs'))
  return { here, user: opened.user, small, large, file: join(here.root, 'blobs', file) }
}

/** Writes into the stopped server's database. */
function plant(here: Installation, ...statements: string[]): void {
  const database = new DatabaseSync(join(here.root, 'sync-node.db'), {
    enableForeignKeyConstraints: false,
    defensive: false,
  })
  for (const statement of statements) database.exec(statement)
  database.close()
}

function flipByte(path: string): void {
  const bytes = readFileSync(path)
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(path, bytes)
}

/**
 * Everything that can be seen of a folder. SQLite's index of the log is nobody's data: it makes and
 * removes it as it likes.
 */
function snapshot(root: string): Record<string, unknown> {
  const names = readdirSync(root, { recursive: true }) as string[]
  return Object.fromEntries(
    names.toSorted().map((name) => {
      const { mode, uid, size, mtimeMs } = lstatSync(join(root, name))
      const isFile = lstatSync(join(root, name)).isFile()
      if (!isFile || name.endsWith('-shm')) return [name, { mode, uid }]
      return [
        name,
        { mode, uid, size, mtimeMs, hash: hash('sha256', readFileSync(join(root, name))) },
      ]
    }),
  )
}

/** Runs doctor on a folder that it must leave as it is. */
async function examineUntouched(here: Installation, ...args: string[]): Promise<Finding[]> {
  const before = snapshot(here.root)
  const found = await examine(here, args)
  assert.deepEqual(snapshot(here.root), before)
  return found
}

describe('sync-node doctor, where all is well', () => {
  it('says so line by line with exit code 0, and leaves all as it is', async (t) => {
    const { here } = await withData(t)
    expectHealthy(await examineUntouched(here))
    expectHealthy(await examineUntouched(here, '--deep'))
    const { code, stdout, stderr } = await here.run(['doctor'])
    assert.equal(code, 0, stderr)
    assert.match(stderr, new RegExp(`^Data: ${here.root}\nNothing is wrong`))
    for (const line of stdout.trimEnd().split('\n')) {
      assert.match(line, /^(?:ok {5}|warning|problem) {2}[a-z ]+: \S/)
    }
    assert.match(stdout, /^ok {7}values: 2 values \(99\.6 KiB\), all there$/m)
  })

  it('says so beside a running server, whose process and answers it finds', async (t) => {
    const { here } = await withData(t)
    const { url } = await here.serve()
    const { port } = new URL(url)
    const found = await examine(here, ['--deep'], { PORT: port })
    expectHealthy(found)
    const text = (check: string) => found.find((one) => one.check === check)?.text ?? ''
    assert.match(text('server'), /runs and is well/)
    assert.match(text('open files'), /^the server may open/)
  })

  it('reads what a killed server left in its log, and leaves it there', async (t) => {
    const here = install(t)
    const server = await here.serve()
    const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
    await ana.save('small', 'x'.repeat(2000))
    await server.stop('SIGKILL')
    const found = await examineUntouched(here, '--deep')
    expectHealthy(found)
    assert.match(found.find(({ check }) => check === 'values')?.text ?? '', /^1 value/)
    assert.match(found.find(({ check }) => check === 'log')?.text ?? '', /next start/)
  })
})

describe('sync-node doctor names', () => {
  it('a folder and a secret that others can read', async (t) => {
    const { here } = await withData(t)
    chmodSync(here.root, 0o755)
    assert.match(onlyProblem(await examineUntouched(here), 'rights'), /chmod 700/)
    chmodSync(here.root, 0o700)
    chmodSync(join(here.root, 'secret'), 0o644)
    assert.match(onlyProblem(await examineUntouched(here), 'rights'), /chmod 600 .*secret/)
  })

  const asRoot = { skip: isRoot ? false : 'only root can give files away' }

  it('files of another user, as a start by root leaves them', asRoot, async (t) => {
    const { here, file } = await withData(t)
    chownSync(file, 12_345, 12_345)
    assert.match(onlyProblem(await examineUntouched(here), 'rights'), /chown -R 0:0 .*\nblobs\//)
  })

  it('folders and secrets that its owner cannot read', asRoot, async (t) => {
    const { here } = await withData(t)
    chmodSync(here.folder, 0o755)
    spawnSync('chown', ['-R', '54321:54321', here.root])
    for (const name of ['blobs', 'secret', 'sync-node.db']) chownSync(join(here.root, name), 0, 0)
    const found = problemsOf(await examine(here))
    assert.match(found.find(({ check }) => check === 'rights')?.items?.join() ?? '', /blobs,secret/)
  })

  it('that it is run as somebody to whom the data does not belong', asRoot, async (t) => {
    const { here } = await withData(t)
    chmodSync(here.folder, 0o755)
    const other = install(t, ['setpriv', '--reuid=54321', '--clear-groups', ...EXECUTABLE])
    const found = await examine(other, [], { STATIC_ROOT: here.root })
    assert.match(onlyProblem(found, 'rights'), /belongs to user 0/)
    chmodSync(here.folder, 0o700)
    const hidden = await examine(other, [], { STATIC_ROOT: here.root })
    assert.match(onlyProblem(hidden, 'rights'), /EACCES/)
  })

  it('a secret that is missing, empty, or another', async (t) => {
    const { here } = await withData(t)
    const secret = join(here.root, 'secret')
    writeFileSync(secret, `${'A'.repeat(43)}\n`)
    assert.match(onlyProblem(await examineUntouched(here), 'secret'), /not the one this data/)
    writeFileSync(secret, '')
    assert.match(onlyProblem(await examineUntouched(here), 'secret'), /holds no secret/)
    rmSync(secret)
    assert.match(onlyProblem(await examineUntouched(here), 'secret'), /is missing/)
    const found = await examine(here, [], { SECRET_KEY: 'not the one that it was made with' })
    assert.match(onlyProblem(found, 'secret'), /^SECRET_KEY is not/)
  })

  it('wrong settings, each, and looks at the rest all the same', async (t) => {
    const { here } = await withData(t)
    const found = await examine(here, [], { PORT: 'x', QUOTA: 'much' })
    const texts = problemsOf(found).map(({ check, text }) => `${check} ${text}`)
    assert.equal(texts.length, 2)
    assert.match(texts.join('\n'), /^settings PORT is wrong/m)
    assert.match(texts.join('\n'), /^settings QUOTA is wrong/m)
    assert.ok(found.some(({ check }) => check === 'values'))
  })

  it('open registration on a public address', async (t) => {
    const { here } = await withData(t)
    const found = await examine(here, [], { PUBLIC_URL: 'https://sync.example.org' })
    const [one] = found.filter(({ check }) => check === 'registration')
    assert.equal(one?.level, 'warning')
    assert.match(one.text, /anyone who reaches https:\/\/sync\.example\.org/)
  })

  it('a folder that is not there, is empty, or has lost its database', async (t) => {
    const here = install(t)
    assert.match(onlyProblem(await examine(here), 'rights'), /is not there/)
    assert.ok(!existsSync(here.root))
    mkdirSync(here.root, { mode: 0o700 })
    assert.match(onlyProblem(await examineUntouched(here), 'database'), /holds no data/)
    mkdirSync(join(here.root, 'blobs'))
    assert.match(onlyProblem(await examineUntouched(here), 'database'), /but blobs is there/)
  })

  it('a server that does not answer where it should', async (t) => {
    const { here } = await withData(t)
    await here.serve()
    assert.match(
      onlyProblem(await examine(here, [], { PORT: '1' }), 'server'),
      /nothing answers at http/,
    )
  })

  it('too few open files, of the server that runs', async (t) => {
    const limited = ['sh', '-c', 'ulimit -n 300; exec "$0" "$@"', ...EXECUTABLE]
    const small = install(t, limited)
    const { url } = await small.serve()
    const text = /may open 300 files, so 44 connections/
    assert.match(onlyProblem(await examine(small), 'open files'), text)
    const here = install(t)
    const environment = { STATIC_ROOT: small.root, PORT: new URL(url).port }
    assert.match(onlyProblem(await examine(here, [], environment), 'open files'), text)
  })

  const shm = '/dev/shm'
  const isTmpfs = existsSync(shm) && statfsSync(shm).type === 0x01021994
  const onTmpfs = { skip: isTmpfs ? false : '/dev/shm is no memory disk here' }

  it('data on a memory disk', onTmpfs, async (t) => {
    const root = mkdtempSync(join(shm, 'sync-node-'))
    t.after(() => rmSync(root, { recursive: true }))
    const here = install(t)
    await (await here.serve({ STATIC_ROOT: root })).stop()
    const found = await examine(here, [], { STATIC_ROOT: root })
    assert.match(onlyProblem(found, 'file system'), /memory disk \(tmpfs\)/)
  })

  it('a clock that is behind the data, or far ahead of it', async (t) => {
    const { here } = await withData(t)
    const setNewest = (ms: number) => plant(here, `UPDATE node SET newest = ${Date.now() + ms}`)
    setNewest(10 * DAY_MS)
    assert.match(onlyProblem(await examineUntouched(here), 'clock'), /10 days behind/)
    setNewest(-400 * DAY_MS)
    assert.match(onlyProblem(await examineUntouched(here), 'clock'), /400 days after/)
    setNewest(-3 * DAY_MS)
    expectHealthy(await examineUntouched(here))
    const { url } = await here.serve()
    const found = await examine(here, [], { PORT: new URL(url).port })
    assert.match(onlyProblem(found, 'clock'), /3 days ahead of the time that the server believes/)
  })

  it('files that a run which broke off has left', async (t) => {
    const { here } = await withData(t)
    writeFileSync(join(here.root, 'reserve.new'), 'half')
    const found = await examineUntouched(here)
    const [one] = found.filter(({ check }) => check === 'leftovers')
    assert.deepEqual([one?.level, one?.items], ['warning', ['reserve.new']])
  })
})

describe('sync-node doctor names of a database', () => {
  it('that it was cut short, overwritten, or damaged within', async (t) => {
    const { here } = await withData(t)
    const path = join(here.root, 'sync-node.db')
    const whole = readFileSync(path)
    const page = 4096
    for (const damage of [
      () => truncateSync(path, whole.length / 2),
      () => writeFileSync(path, Buffer.concat([Buffer.alloc(100, 'x'), whole.subarray(100)])),
      () => {
        const bytes = Buffer.from(whole)
        for (let at = page; at < bytes.length; at += page) bytes.fill('x', at, at + 200)
        writeFileSync(path, bytes)
      },
    ]) {
      writeFileSync(path, whole)
      damage()
      const found = problemsOf(await examineUntouched(here))
      const [first] = found.filter(({ check }) => check === 'database')
      assert.match(first?.text ?? '', /is damaged.*restore a backup/, JSON.stringify(found))
    }
  })

  it('that it does not say what it is', async (t) => {
    const { here } = await withData(t)
    plant(here, 'DELETE FROM node')
    const found = problemsOf(await examineUntouched(here))
    assert.ok(found.some(({ check, text }) => check === 'database' && /is gone/.test(text)))
  })

  it('that a restore did not come to its end', async (t) => {
    const { here } = await withData(t)
    writeFileSync(join(here.root, 'restoring'), '')
    assert.match(onlyProblem(await examineUntouched(here), 'restore'), /do it again/)
  })

  it('that a newer program wrote it', async (t) => {
    const { here } = await withData(t)
    plant(here, `INSERT INTO migration (number, name, checksum) VALUES (99, '0099-x.sql', 'x')`)
    assert.match(onlyProblem(await examineUntouched(here), 'schema'), /newer sync-node/)
  })

  it('what somebody changed of its tables, indexes and triggers', async (t) => {
    const { here } = await withData(t)
    plant(
      here,
      'DROP TRIGGER sync_store_removed',
      'DROP INDEX sync_session_id',
      'CREATE INDEX mine ON sync_store (size)',
    )
    assert.deepEqual(
      onlyProblem(await examineUntouched(here), 'schema')
        .split('\n')
        .slice(1)
        .toSorted(),
      [
        'index mine: added',
        'index sync_session_id: missing',
        'trigger sync_store_removed: missing',
      ],
    )
  })

  it('an index that does not fit its table, with --deep', async (t) => {
    const { here } = await withData(t)
    plant(
      here,
      'PRAGMA writable_schema = ON',
      `UPDATE sqlite_master SET sql = replace(sql, '(expiration)', '(used)')
       WHERE name = 'sync_session_expiration'`,
    )
    const ofDatabase = async (...args: string[]) =>
      problemsOf(await examineUntouched(here, ...args)).find(({ check }) => check === 'database')
    assert.equal(await ofDatabase(), undefined)
    const found = await ofDatabase('--deep')
    assert.match((found?.items ?? []).join(), /sync_session_expiration/)
  })

  it('rows that refer to what is not there', async (t) => {
    const { here } = await withData(t)
    plant(here, `INSERT INTO sync_session VALUES ('x', 999, 0, NULL, 0, 0)`)
    assert.match(onlyProblem(await examineUntouched(here), 'references'), /\nsync_session: 1 row/)
  })

  it('sums that are not those of what is stored', async (t) => {
    const { here, user } = await withData(t)
    plant(here, 'UPDATE sync_account SET used = used - 1', 'UPDATE node SET stores = 7')
    const named = onlyProblem(await examineUntouched(here), 'sums').split('\n')
    assert.ok(named.includes(`${user}: ${LARGE + 1999} bytes are counted, it owns ${LARGE + 2000}`))
    assert.ok(named.includes('node: stores is 7, and should be 2'))
  })
})

describe('sync-node doctor names of the values', () => {
  it('a damaged file and a damaged row, by store key and owner, with --deep', async (t) => {
    const { here, user, small, large, file } = await withData(t)
    flipByte(file)
    expectHealthy(await examineUntouched(here))
    const changed = 'its bytes are not those that were stored'
    assert.match(
      onlyProblem(await examineUntouched(here, '--deep'), 'values'),
      new RegExp(`^1 of 2 values .*\n${large.key}: ${changed} .*; of ${user}$`),
    )
    plant(here, `UPDATE store_data SET value = CAST('S' || substr(value, 2) AS BLOB)`)
    assert.match(
      onlyProblem(await examineUntouched(here, '--deep'), 'values'),
      new RegExp(`^${small.key}: ${changed}; of ${user}$`, 'm'),
    )
    const { stdout } = await here.run(['doctor', '--deep'])
    assert.match(stdout, new RegExp(`^problem  values: 2 of 2 .*\n {9}~`, 'm'))
  })

  it('a value that is missing or has another size, also without --deep', async (t) => {
    const { here, user, small, large, file } = await withData(t)
    truncateSync(file, LARGE - 1)
    plant(here, 'UPDATE store_data SET value = substr(value, 2)')
    const named = onlyProblem(await examineUntouched(here), 'values').split('\n')
    assert.match(
      named.find((line) => line.startsWith(large.key)) ?? '',
      /has 99999 bytes of 100000/,
    )
    assert.match(named.find((line) => line.startsWith(small.key)) ?? '', /has 1999 bytes of 2000/)
    rmSync(file)
    plant(here, 'DELETE FROM store_data')
    const missing = onlyProblem(await examineUntouched(here), 'values')
    assert.match(
      missing,
      new RegExp(`^${large.key}: its file blobs/.* is missing; of ${user}$`, 'm'),
    )
    assert.match(missing, new RegExp(`^${small.key}: its bytes are missing; of ${user}$`, 'm'))
  })

  it('each that is damaged, of more than fit on a page', async (t) => {
    const here = install(t)
    const server = await here.serve()
    const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
    const operations = Array.from({ length: 450 }, (_, i) => ({ put: `key ${i}`, data: 'AAAA' }))
    const body = JSON.stringify({ operations })
    await expectStatus(await ana.request('/batch', { method: 'POST', body }), 200)
    await server.stop()
    plant(here, `UPDATE store_data SET value = x'000001' WHERE id % 2 = 0`)
    const named = onlyProblem(await examineUntouched(here, '--deep'), 'values').split('\n')
    assert.match(named[0] ?? '', /^225 of 450 values/)
    assert.equal(new Set(named.slice(1)).size, 225)
  })

  it('files without a store, and moves them only when no server runs', async (t) => {
    const { here } = await withData(t)
    const { url, stop } = await here.serve()
    const environment = { PORT: new URL(url).port }
    const orphan = `1-${'0'.repeat(26)}`
    const path = join(here.root, 'blobs', orphan)
    writeFileSync(path, 'x'.repeat(2048), { mode: 0o600 })
    const ofThisStart = join(here.root, 'blobs', `2-${'0'.repeat(26)}`)
    writeFileSync(ofThisStart, 'an upload', { mode: 0o600 })
    const text = /^1 file \(2\.0 KiB\) in blobs\/ that no store names: they stay/
    assert.match(onlyProblem(await examine(here, [], environment), 'orphans'), text)
    assert.ok(existsSync(path))
    await stop()
    rmSync(ofThisStart)
    const moved = onlyProblem(await examine(here), 'orphans')
    assert.match(moved, /^1 file \(2\.0 KiB\).*: 1 went to trash\//)
    assert.ok(!existsSync(path))
    assert.ok(readdirSync(join(here.root, 'trash')).some((name) => name.endsWith(orphan)))
    expectHealthy(await examine(here))
  })

  it('files of a later time than the database, which stay', async (t) => {
    const { here } = await withData(t)
    const later = join(here.root, 'blobs', `7-${'0'.repeat(26)}`)
    writeFileSync(later, 'x', { mode: 0o600 })
    const found = await examineUntouched(here)
    const [one] = found.filter(({ check }) => check === 'orphans')
    assert.equal(one?.level, 'warning')
    assert.match(one.text, /^1 file .* may be older/)
  })

  it('no file without a store as long as the database is damaged', async (t) => {
    const { here, file } = await withData(t)
    plant(
      here,
      'PRAGMA writable_schema = ON',
      `UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'hold')
       WHERE name = 'sync_store_file'`,
    )
    plant(
      here,
      'UPDATE sync_store SET store_file = NULL, store_data = 1 WHERE store_file IS NOT NULL',
    )
    const problems = problemsOf(await examineUntouched(here))
    const textOf = (check: string) => problems.find((one) => one.check === check)?.text ?? ''
    assert.match(textOf('database'), /damaged/)
    assert.match(textOf('orphans'), /^1 file .*: they stay/)
    assert.ok(existsSync(file))
  })
})

describe('sync-node doctor', () => {
  it('takes --deep only for the folder', async (t) => {
    const { code, stdout } = await install(t).run(['doctor', 'https://localhost', '--deep'])
    assert.deepEqual([code, stdout], [2, ''])
  })

  const hasScript =
    spawnSync('script', ['--version']).status === 0 || process.env['CI'] !== undefined
  const withTerminal = { skip: hasScript ? false : 'script is not installed' }

  it('shows on a terminal how far it has come', withTerminal, async (t) => {
    const { here } = await withData(t)
    const [program = ''] = EXECUTABLE
    const { stdout } = spawnSync('script', ['-qec', `${program} doctor --deep`, '/dev/null'], {
      env: { PATH: process.env['PATH'], STATIC_ROOT: here.root, HOST: 'localhost', PORT: '0' },
      encoding: 'utf8',
      timeout: 30_000,
    })
    assert.match(stdout, /\[#*\.*\] values: .* of 99\.6 KiB/)
    assert.match(stdout, /ok {7}values: 2 values/)
  })
})
