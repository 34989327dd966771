import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import { LibsqlError } from '@libsql/core/api'
import {
  require as guard,
  requireChanges,
  sql,
  toBytes,
  type Database,
} from '../src/database/database.ts'
import { UnusableDatabase, open } from '../src/database/embedded.ts'
import { temporaryFolder } from './helpers/node.ts'

// A promise that is never settled is a failure here, not a hang.
const LIMIT = { timeout: 120_000 }

interface Opened {
  path: string
  database: Database & { closed: Promise<void> }
  fatal: string[]
}

const SCHEMA = [
  'CREATE TABLE item (id INTEGER PRIMARY KEY, value BLOB) STRICT',
  'CREATE TABLE part (item INTEGER REFERENCES item (id)) STRICT',
  'CREATE VIEW require AS SELECT 1 AS ok',
  `CREATE TRIGGER require_ok INSTEAD OF INSERT ON require WHEN NEW.ok IS NOT 1
   BEGIN SELECT RAISE(ABORT, 'precondition'); END`,
]

async function openAt(t: TestContext, path: string): Promise<Opened> {
  const fatal: string[] = []
  const onFatal = (reason: string): void => void fatal.push(reason)
  const ignore = (): void => undefined
  const options = { path, checkpointFirst: false, onWarning: ignore, onChange: ignore }
  const database = await open({ ...options, onFatal })
  t.after(async () => {
    try {
      database.close()
    } catch {
      return // the test closed it
    }
    await database.closed
  })
  return { path, database, fatal }
}

async function openEmpty(t: TestContext): Promise<Opened> {
  const opened = await openAt(t, join(temporaryFolder(t), 'test.db'))
  await opened.database.batch(
    SCHEMA.map((statement) => sql(statement)),
    'write',
  )
  return opened
}

const insert = (id: number, value: Uint8Array | null = null) =>
  sql('INSERT INTO item (id, value) VALUES (?, ?)', [id, value])

async function ids({ execute }: Pick<Database, 'execute'>): Promise<number[]> {
  const { rows } = await execute('SELECT id FROM item ORDER BY id')
  return rows.map((row) => Number(row['id']))
}

/** The commits that stand in the WAL: https://www.sqlite.org/fileformat2.html#walformat */
function countCommits(path: string): number {
  const wal = readFileSync(`${path}-wal`)
  if (wal.length === 0) return 0
  const frameBytes = 24 + wal.readUInt32BE(8)
  const salt = wal.subarray(16, 24)
  let commits = 0
  for (let at = 32; at + frameBytes <= wal.length; at += frameBytes) {
    const isCurrent = wal.subarray(at + 8, at + 16).equals(salt)
    if (isCurrent && wal.readUInt32BE(at + 4) > 0) commits++
  }
  return commits
}

const code = (error: unknown): unknown => (error instanceof LibsqlError ? error.code : error)

describe('SQLite', LIMIT, () => {
  it('is the version whose bugs somebody has looked at', () => {
    assert.equal(
      process.versions['sqlite'],
      '3.53.4',
      'Another SQLite came with Node. Read its release notes, and https://www.sqlite.org/wal.html#walresetbug ' +
        'again: several connections write and checkpoint here. Then change this number.',
    )
  })

  it('syncs each commit, and checkpoints only when it is told to', async (t) => {
    const { database, path } = await openEmpty(t)
    const expected = {
      journal_mode: 'wal',
      synchronous: 2,
      foreign_keys: 1,
      wal_autocheckpoint: 0,
      auto_vacuum: 2,
    }
    // Once of the connection that reads, once of the one that writes.
    for (const mode of ['read', 'write'] as const) {
      const pragmas = Object.keys(expected).map((name) => sql(`PRAGMA ${name}`))
      const results = await database.batch(pragmas, mode)
      const found = results.map(({ rows }) => Object.values(rows[0] ?? {})[0])
      assert.deepEqual(found, Object.values(expected), mode)
    }
    assert.ok(countCommits(path) > 0)
  })
})

describe('a batch', LIMIT, () => {
  it('that fails in its middle or at its end writes nothing', async (t) => {
    const { database } = await openEmpty(t)
    const failures = [
      [insert(1), guard('SELECT 0')],
      [insert(1), guard('SELECT NULL')],
      [insert(1), sql('UPDATE item SET id = 5 WHERE id = 4'), requireChanges()],
      [insert(1), insert(1), insert(2)],
      [insert(1), sql('INSERT INTO part VALUES (77)')],
      [insert(1), sql('INSERT INTO nowhere VALUES (1)')],
      [insert(1), sql('not SQL')],
    ]
    for (const statements of failures) {
      await assert.rejects(database.batch(statements, 'write'), LibsqlError)
      assert.deepEqual(await ids(database), [])
    }
    await database.batch([insert(1), guard('SELECT count(*) = 1 FROM item')], 'write')
    assert.deepEqual(await ids(database), [1])
  })

  it('that fails takes none of its group with it', async (t) => {
    const { database, path } = await openEmpty(t)
    const before = countCommits(path)
    const busy = keepBusy(database)
    const batches = Array.from({ length: 40 }, (_, i) =>
      database.batch([insert(i + 1), guard('SELECT ?', [i % 4 === 0 ? 0 : 1])], 'write'),
    )
    const outcomes = await Promise.allSettled(batches)
    await busy
    const taken = outcomes.flatMap(({ status }, i) => (status === 'fulfilled' ? [i + 1] : []))
    assert.equal(taken.length, 30)
    assert.deepEqual(await ids(database), taken)
    assert.ok(countCommits(path) - before <= 5, 'they were one group, or nearly')
  })

  it('sees what the batches before it wrote, in the order in which they were given', async (t) => {
    const { database } = await openEmpty(t)
    const batches = Array.from({ length: 50 }, (_, i) =>
      database.batch([guard('SELECT count(*) = ? FROM item', [i]), insert(i)], 'write'),
    )
    await Promise.all(batches)
    assert.equal((await ids(database)).length, 50)
  })

  it('answers rows, changes and row ids, each statement its own', async (t) => {
    const { database } = await openEmpty(t)
    const results = await database.batch(
      [
        insert(7),
        sql('UPDATE item SET value = ? WHERE id = 7 RETURNING id, value', [new Uint8Array([1])]),
        sql('SELECT count(*) AS n FROM item'),
        sql('DELETE FROM item WHERE id > 100'),
      ],
      'write',
    )
    assert.deepEqual(
      results.map(({ rowsAffected }) => rowsAffected),
      [1, 1, 1, 0],
    )
    assert.equal(results[0]?.lastInsertRowid, 7n)
    assert.deepEqual([...toBytes(results[1]?.rows[0]?.['value'])], [1])
    assert.equal(results[2]?.rows[0]?.['n'], 1)
  })
})

/** Gives the writer something to do, so that what comes meanwhile waits for it together. */
const keepBusy = (database: Database): Promise<unknown> =>
  database.batch(
    [
      sql(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
           INSERT INTO part SELECT NULL FROM n WHERE i % 1000000 = 0`),
    ],
    'write',
  )

describe('many batches at once', LIMIT, () => {
  it('share a commit', async (t) => {
    const { database, path } = await openEmpty(t)
    const before = countCommits(path)
    const busy = keepBusy(database)
    await Promise.all(Array.from({ length: 60 }, (_, i) => database.batch([insert(i)], 'write')))
    await busy
    assert.equal((await ids(database)).length, 60)
    const commits = countCommits(path) - before
    assert.ok(commits <= 6, `61 batches took ${commits} commits`)
  })

  it('are each visible to reads as soon as they are answered', async (t) => {
    const { database } = await openEmpty(t)
    const look = async (i: number): Promise<boolean> => {
      await database.batch([insert(i)], 'write')
      const { rows } = await database.execute(sql('SELECT 1 FROM item WHERE id = ?', [i]))
      return rows.length === 1
    }
    for (let round = 0; round < 20; round++) {
      const seen = await Promise.all(Array.from({ length: 10 }, (_, i) => look(round * 10 + i)))
      assert.ok(seen.every(Boolean))
    }
  })

  it('may be more than a group takes, in number and in bytes', async (t) => {
    const { database } = await openEmpty(t)
    const value = randomBytes(100_000)
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => database.batch([insert(i, value)], 'write')),
    )
    const { rows } = await database.execute(
      'SELECT count(*) AS n, sum(length(value)) AS bytes FROM item',
    )
    assert.deepEqual({ ...rows[0] }, { n: 200, bytes: 200 * value.length })
  })
})

describe('a BLOB', LIMIT, () => {
  it('arrives as it was when it was given, be it a view into a larger buffer or not', async (t) => {
    const { database } = await openEmpty(t)
    const large = randomBytes(64 * 1024)
    const views: Uint8Array[] = [
      large.subarray(100, 200),
      new Uint8Array(large.buffer, large.byteOffset + 5, 10),
      Buffer.from('of the pool'),
      new Uint8Array(randomBytes(20_000)),
      large,
      new Uint8Array(0),
    ]
    const expected = views.map((view) => Buffer.from(view).toString('hex'))
    const writes = views.map((view, i) => database.batch([insert(i, view)], 'write'))
    for (const view of views) view.fill(0) // what is sent is a copy
    await Promise.all(writes)
    const { rows } = await database.execute('SELECT value FROM item ORDER BY id')
    assert.deepEqual(
      rows.map((row) => Buffer.from(toBytes(row['value'])).toString('hex')),
      expected,
    )
    for (const view of views)
      assert.equal(view.length, view.byteLength, 'and the caller keeps its own')
  })

  it('may be an ArrayBuffer, and stand beside every other type', async (t) => {
    const { database } = await openEmpty(t)
    const values = [null, 'text', 1.5, 2n ** 40n, true, new Date(5), new Uint8Array([1, 2]).buffer]
    for (const mode of ['read', 'write'] as const) {
      const [result] = await database.batch(
        [sql('SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f, ? AS g', values)],
        mode,
      )
      const found = Object.values(result?.rows[0] ?? {})
      assert.deepEqual(found.slice(0, 6), [null, 'text', 1.5, 2 ** 40, 1, 5])
      assert.deepEqual([...toBytes(found[6])], [1, 2])
    }
  })
})

describe('reads', LIMIT, () => {
  it('of one batch see one state', async (t) => {
    const { database } = await openEmpty(t)
    const count = sql('SELECT count(*) AS n FROM item')
    const slow =
      sql(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500000)
      SELECT max(i) FROM n`)
    for (let i = 0; i < 3; i++) {
      const write = database.batch([insert(i)], 'write')
      const [first, , second] = await database.batch([count, slow, count], 'read')
      assert.equal(first?.rows[0]?.['n'], second?.rows[0]?.['n'])
      await write
      assert.equal((await ids(database)).length, i + 1)
    }
  })

  it('cannot write, whatever they say they are', async (t) => {
    const { database } = await openEmpty(t)
    await assert.rejects(
      database.batch([insert(1)], 'read'),
      (error) => code(error) === 'SQLITE_READONLY',
    )
    assert.deepEqual(await ids(database), [])
    await database.batch([insert(1)], 'write')
  })

  it('that fail leave the next ones alone', async (t) => {
    const { database } = await openEmpty(t)
    for (const mode of ['read', 'deferred'] as const) {
      await assert.rejects(
        database.batch([sql('SELECT 1'), sql('SELECT nothing')], mode),
        LibsqlError,
      )
      assert.equal((await database.batch([sql('SELECT 1')], mode)).length, 1)
    }
  })
})

describe('a failure', LIMIT, () => {
  it('is a LibsqlError with the code that SQLite names', async (t) => {
    const { database, fatal } = await openEmpty(t)
    await database.batch([insert(1)], 'write')
    const failures: [string, () => Promise<unknown>][] = [
      ['SQLITE_CONSTRAINT', () => database.batch([insert(1)], 'write')],
      ['SQLITE_CONSTRAINT', () => database.batch([guard('SELECT 0')], 'write')],
      ['SQLITE_CONSTRAINT', () => database.execute(insert(1))],
      ['SQLITE_ERROR', () => database.execute('SELECT * FROM nowhere')],
      ['SQLITE_ERROR', () => database.execute('INSERT INTO nowhere VALUES (1)')],
      ['SQLITE_ERROR', () => database.batch([sql('not SQL')], 'write')],
    ]
    for (const [expected, fail] of failures) {
      await assert.rejects(fail(), (error) => code(error) === expected)
    }
    assert.deepEqual(fatal, [])
  })

  it('of the guards says which it was', async (t) => {
    const { database } = await openEmpty(t)
    await assert.rejects(database.batch([guard('SELECT 0')], 'write'), /precondition/)
    await database.batch([insert(1)], 'write')
    await assert.rejects(database.batch([insert(1)], 'write'), /UNIQUE constraint failed/)
  })

  it('is SQLITE_BUSY while another keeps the file locked, and then it goes on', async (t) => {
    const { database, path, fatal } = await openEmpty(t)
    const other = new DatabaseSync(path)
    t.after(() => other.close())
    other.exec('BEGIN IMMEDIATE')
    await assert.rejects(
      database.batch([insert(1)], 'write'),
      (error) => code(error) === 'SQLITE_BUSY',
    )
    assert.deepEqual(await ids(database), [], 'reads go on')
    other.exec('ROLLBACK')
    await database.batch([insert(1)], 'write')
    assert.deepEqual(fatal, [])
  })

  it('to open names what is wrong with the file', async (t) => {
    const folder = temporaryFolder(t)
    const path = join(folder, 'folder')
    mkdirSync(path)
    await assert.rejects(
      openAt(t, path),
      (error) => error instanceof UnusableDatabase && error.code === 'SQLITE_CANTOPEN',
    )
    await assert.rejects(openAt(t, import.meta.filename), { code: 'SQLITE_NOTADB' })
  })
})

describe('two that write', LIMIT, () => {
  it('from one process both land, and see each other', async (t) => {
    const first = await openEmpty(t)
    const second = await openAt(t, first.path)
    const write = ({ database }: Opened, from: number): Promise<unknown>[] =>
      Array.from({ length: 100 }, (_, i) => database.batch([insert(from + i)], 'write'))
    await Promise.all([...write(first, 0), ...write(second, 1000)])
    assert.equal((await ids(first.database)).length, 200)
    assert.deepEqual(await ids(second.database), await ids(first.database))
  })

  it('from two processes both land', async (t) => {
    const { database, path, fatal } = await openEmpty(t)
    const child = spawn(process.execPath, ['--input-type=module', '-e', OTHER_WRITER, path], {
      cwd: join(import.meta.dirname, '..'),
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    t.after(() => child.kill('SIGKILL'))
    const exited = once(child, 'exit', { signal: AbortSignal.timeout(60_000) })
    for (let i = 0; i < 150; i++) await database.batch([insert(i)], 'write')
    assert.deepEqual(await exited, [0, null])
    assert.equal((await ids(database)).length, 300)
    assert.deepEqual(fatal, [])
  })
})

const OTHER_WRITER = `
import { open } from './src/database/embedded.ts'
const fail = (reason) => { throw new Error(reason) }
const database = await open({ path: process.argv[1], checkpointFirst: false, onFatal: fail, onWarning: fail })
for (let i = 1000; i < 1150; i++) {
  await database.batch([{ sql: 'INSERT INTO item (id) VALUES (?)', args: [i] }], 'write')
}
database.close()
await database.closed
`

describe('to open', LIMIT, () => {
  it('and close a database that is whole writes nothing', async (t) => {
    const { database, path } = await openEmpty(t)
    database.close()
    await database.closed
    const before = readFileSync(path)
    const again = await openAt(t, path)
    assert.deepEqual(await ids(again.database), [])
    assert.equal(countCommits(path), 0, 'commits')
    again.database.close()
    await again.database.closed
    assert.ok(readFileSync(path).equals(before))
  })
})

describe('close()', LIMIT, () => {
  it('finishes what waits', async (t) => {
    const { database, path } = await openEmpty(t)
    const writes = Array.from({ length: 150 }, (_, i) => database.batch([insert(i)], 'write'))
    database.close()
    await database.closed
    assert.equal((await Promise.all(writes)).length, 150)
    const after = await openAt(t, path)
    assert.equal((await ids(after.database)).length, 150)
  })

  it('leaves no WAL behind', async (t) => {
    const { database, path } = await openEmpty(t)
    await database.batch([insert(1, randomBytes(100_000))], 'write')
    database.close()
    await database.closed
    assert.throws(() => readFileSync(`${path}-wal`), { code: 'ENOENT' })
    const alone = new DatabaseSync(path, { readOnly: true })
    t.after(() => alone.close())
    assert.equal(alone.prepare('SELECT count(*) AS n FROM item').get()?.['n'], 1)
  })
})
