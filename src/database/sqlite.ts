// Owns what every connection to an SQLite file has in common: settings, prepared statements, errors.
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { LibsqlError } from '@libsql/core/api'

// Primary result codes: https://www.sqlite.org/rescode.html
const RESULT_CODES: Record<number, string> = {
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  8: 'SQLITE_READONLY',
  10: 'SQLITE_IOERR',
  11: 'SQLITE_CORRUPT',
  13: 'SQLITE_FULL',
  14: 'SQLITE_CANTOPEN',
  19: 'SQLITE_CONSTRAINT',
  26: 'SQLITE_NOTADB',
}
export const SQLITE_IOERR_WRITE = 778

interface SqliteError extends Error {
  errcode: number
}

export const isSqliteError = (error: unknown): error is SqliteError =>
  error instanceof Error && typeof (error as { errcode?: unknown }).errcode === 'number'

/** The primary result code by name, or undefined for what SQLite did not say. */
export const resultCode = (error: unknown): string | undefined =>
  isSqliteError(error) ? (RESULT_CODES[error.errcode & 0xff] ?? 'SQLITE_ERROR') : undefined

/** The same failure as @libsql/client would throw it. */
export function toLibsqlError(error: unknown): unknown {
  const code = resultCode(error)
  return code === undefined ? error : new LibsqlError((error as Error).message, code)
}

type Row = Record<string, unknown>

export interface Connection {
  database: DatabaseSync
  /** A statement prepared once a connection. */
  prepare(sql: string): StatementSync
}

/** Opens a connection: the one that writes, or one that only reads. */
export function connect(
  path: string,
  { writes, busyTimeoutMs }: { writes: boolean; busyTimeoutMs: number },
): Connection {
  const database = new DatabaseSync(path, { timeout: busyTimeoutMs })
  if (writes) {
    // The first statement on a new file: it cannot be switched on later, and without it a full disk
    // never comes back. On an old file it would be a write for nothing.
    const { page_count: pages } = database.prepare('PRAGMA page_count').get() as Row
    if (pages === 0) database.exec('PRAGMA auto_vacuum = INCREMENTAL')
    database.exec('PRAGMA journal_mode = WAL')
  } else database.exec('PRAGMA query_only = ON')
  return settle(database)
}

/** What holds for every connection. */
export function settle(database: DatabaseSync): Connection {
  database.exec(`
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA foreign_keys = ON;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
  `)
  const statements = new Map<string, StatementSync>()
  return {
    database,
    prepare(sql) {
      let statement = statements.get(sql)
      if (statement === undefined) {
        statement = database.prepare(sql)
        statements.set(sql, statement)
      }
      return statement
    },
  }
}

/** What a checkpoint achieved: `busy` when a reader or writer kept it from emptying the WAL. */
export function checkpoint({ prepare }: Connection): { busy: boolean } {
  const row = prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number }
  return { busy: row.busy !== 0 }
}
