// Owns the row that says what the data is: made with the schema, of one secret, counted at each start.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { guardedClock, type TimeSource } from './clock.ts'
import { sql, type Database } from './database/database.ts'
import { checkSchema, isFresh, migrate, nextSchema } from './database/migrate.ts'
import type { Deps } from './deps.ts'
import { StartError } from './errors.ts'
import { commitDateMs, version } from './packed.ts'
import { randomBytes, unique } from './token.ts'
import { keepCopy } from './upgrade.ts'

/** Brings the schema to this program's (a command only looks), and compares the secret. Throws StartError, Refusal. */
export async function prepare(
  deps: Pick<Deps, 'config' | 'database' | 'log' | 'space'>,
  options: { check: string; time: TimeSource; isServer: boolean },
): Promise<void> {
  const { config, database, log } = deps
  const { check, time, isServer } = options
  const isFile = config.database === null
  const isNew = await isFresh(database)
  if (!isNew) await checkSecret(database, check)
  else if (isFile && existsSync(join(config.root, 'blobs'))) {
    throw new StartError(
      `sync-node.db in ${config.root} is empty, but values are there: restore a backup.`,
    )
  }
  if (!isServer) return checkSchema(database)
  const next = await nextSchema(database)
  if (isFile && !isNew && next !== null) {
    log.info(`the data is upgraded to schema ${next}: \`sync-node rollback\` goes back, for 7 days`)
    const { newest } = await read(database)
    await keepCopy({ ...deps, clock: guardedClock(time, commitDateMs, newest) }, next)
  }
  const newest = Math.max(time.wall(), commitDateMs)
  await migrate(database, [
    sql(
      `INSERT INTO node
         (one, id, schema, start, newest, secret_check, is_clean, seq, account_number)
       VALUES (1, ?, 0, 0, ?, ?, 1, 0, 0)`,
      [unique(randomBytes), newest, check],
    ),
  ])
  // Another node may have been first, with another secret.
  if (isNew) await checkSecret(database, check)
}

async function checkSecret(database: Database, check: string): Promise<void> {
  const { rows } = await database.execute('SELECT secret_check FROM node')
  if (rows[0]?.['secret_check'] === check) return
  throw new StartError(
    'The secret is not the one this data was made with: restore the file secret, or set SECRET_KEY.',
  )
}

export interface NodeRow {
  /** The number of this start, which no other has. */
  start: number
  newest: number
  wasClean: boolean
}

const ROW = sql('SELECT start + 1 AS start, newest, is_clean FROM node')

const toNodeRow = (row: Record<string, unknown> | undefined): NodeRow => ({
  start: Number(row?.['start']),
  newest: Number(row?.['newest']),
  wasClean: row?.['is_clean'] === 1,
})

export async function read(database: Database): Promise<NodeRow> {
  return toNodeRow((await database.execute(ROW)).rows[0])
}

/** A server's start counts, and begins a new range of the history. */
export async function countStart(database: Database): Promise<NodeRow> {
  const nonce = Buffer.from(randomBytes(4)).readUInt32BE()
  const [found] = await database.batch(
    [
      ROW,
      sql('UPDATE node SET start = start + 1, is_clean = 0, version = ?', [version]),
      sql('INSERT OR REPLACE INTO feed_start SELECT seq + 1, ? FROM node', [nonce]),
    ],
    'write',
  )
  return toNodeRow(found?.rows[0])
}
