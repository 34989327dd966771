// Owns the lock of a data folder: an SQLite transaction that never ends. The kernel frees it with the
// process, however that ends.
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { resultCode } from './sqlite.ts'

export interface Lock {
  close(): void
}

export function lock(root: string): Lock | 'taken' {
  const database = new DatabaseSync(join(root, 'lock'), { timeout: 0 })
  try {
    database.exec('BEGIN EXCLUSIVE')
    return database
  } catch (error) {
    database.close()
    if (resultCode(error) === 'SQLITE_BUSY') return 'taken'
    throw error
  }
}
