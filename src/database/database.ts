// Owns what the rest of the server may ask of a database, and what its failures mean.
import { constants } from 'node:os'
import type { Client, InStatement } from '@libsql/client'
import { LibsqlBatchError, LibsqlError } from '@libsql/core/api'
import { SyncError, busy } from '../errors.ts'

/** A file on this machine or a libSQL server: the part of @libsql/client that all SQL goes through. */
export type Database = Pick<Client, 'execute' | 'batch' | 'close'>
export type Statement = Exclude<InStatement, string>

export interface OpenDatabase extends Database {
  closed: Promise<void>
  /** Asks whether another process has written since; onChange hears it. */
  look(): void
}

/** The code of a write whose COMMIT failed in a way that leaves it open whether it happened. */
export const UNKNOWN_OUTCOME = 'UNKNOWN_OUTCOME'

/** The code of what did not get to a database server, or of a read that got no answer: nothing happened. */
export const UNREACHABLE = 'UNREACHABLE'

export const sql = (text: string, args: Statement['args'] = []): Statement => ({
  sql: text,
  args,
})

/** A guard: aborts the batch that it stands in unless `condition` is true. */
export const require = (condition: string, args: Statement['args'] = []): Statement =>
  sql(`INSERT INTO require SELECT (${condition})`, args)

/** A guard: the statement before this one changed exactly `count` rows. */
export const requireChanges = (count = 1): Statement =>
  sql('INSERT INTO require SELECT changes() = ?', [count])

const MAX_ATTEMPTS = 3

/**
 * Commits a guarded batch. When a guard aborts it, `explain` finds the cause in the protocol's
 * order and throws it (`failedAt` is the index of the statement that aborted); when it finds none, somebody else's write came between and the batch runs
 * again.
 */
export async function commit(
  database: Database,
  statements: () => Statement[],
  explain: (failedAt: number | undefined) => Promise<void>,
): Promise<Awaited<ReturnType<Database['batch']>>> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await database.batch(statements(), 'write')
    } catch (error) {
      if (!isPrecondition(error)) throw refusal(error)
      await explain(error instanceof LibsqlBatchError ? error.statementIndex : undefined)
      if (attempt === MAX_ATTEMPTS) throw busy(error)
    }
  }
}

/** A guard, or two that make one thing at once. Any other constraint is a fault of ours. */
function isPrecondition(error: unknown): boolean {
  return error instanceof LibsqlError && /precondition|UNIQUE constraint failed/.test(error.message)
}

/** What a failure of the database means to the client; what it cannot mean stays what it is. */
export function refusal(error: unknown): unknown {
  if (!(error instanceof LibsqlError)) return error
  switch (error.code) {
    case 'SQLITE_FULL':
      return diskFull(error)
    case 'SQLITE_BUSY':
    case 'SQLITE_LOCKED':
    case 'SQLITE_READONLY':
    case 'SQLITE_CANTOPEN':
    case 'SQLITE_IOERR':
    case UNREACHABLE:
      return busy(error)
    case UNKNOWN_OUTCOME:
      return new SyncError(
        'ERR04',
        'The database failed: the write may or may not have happened. Read the store before you go on.',
        { cause: error },
      )
    default:
      return error
  }
}

export const diskFull = (cause?: unknown): SyncError =>
  new SyncError('SIZE03', "The server's disk is full, and nothing happened. Tell its operator.", {
    cause,
  })

/** A call on a file failed for want of space, or of quota. */
export function isFull(error: unknown): boolean {
  const { errno = 0 } = error as NodeJS.ErrnoException
  // By number: libuv has no name for EDQUOT.
  return -errno === constants.errno.ENOSPC || -errno === constants.errno.EDQUOT
}

/** A BLOB as bytes, whichever database it came from. */
export const toBytes = (value: unknown): Uint8Array =>
  value instanceof ArrayBuffer ? new Uint8Array(value) : (value as Uint8Array)
