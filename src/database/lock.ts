// Owns the lock of a data folder: an SQLite transaction that never ends. The kernel frees it with the
// process, however that ends.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { resultCode } from './sqlite.ts'

const FILE = 'lock'

export interface Lock {
  close(): void
}

/** The same, but makes no file: undefined where none is, as no server has run there. */
export const lockIfThere = (root: string): Lock | 'taken' | undefined =>
  existsSync(join(root, FILE)) ? lock(root) : undefined

export function lock(root: string): Lock | 'taken' {
  const database = new DatabaseSync(join(root, FILE), { timeout: 0 })
  try {
    // No journal beside it: on a full disk there would be no room for one.
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    return database
  } catch (error) {
    database.close()
    if (resultCode(error) === 'SQLITE_BUSY') return 'taken'
    throw error
  }
}
