// Owns data that would take too long to make by the API: rows written into the database of a stopped server.
import { hash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { toStoreKey } from '../../src/key.ts'

const YEAR_MS = 365 * 24 * 3600 * 1000

export interface Account {
  number: number
  bearer: string
  keySalt: Buffer
}

/** The name of an account's store. */
export const nameOf = (one: number): string => `store-${one}`

/** The token that a store has until it is written to. */
export const firstToken = (key: string): string => hash('sha256', key).slice(0, 26)

export interface Filled {
  /** A new account with a session. */
  account(): Account
  /** An account's stores, to be called once for it; of `size` bytes each. Answers their keys. */
  stores(account: Account, count: number, size?: number): string[]
  share(key: string, accounts: Account[]): void
}

/** Calls `fill` within one transaction on the database of a server that is stopped. */
export function fillDatabase<T>(root: string, fill: (filled: Filled) => T): T {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  // Each page is written once: no log, and no journal.
  database.exec('PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000')
  database.exec('BEGIN IMMEDIATE')
  const filled = fill(filler(database))
  database.exec('COMMIT; PRAGMA journal_mode = WAL')
  database.close()
  return filled
}

function filler(database: DatabaseSync): Filled {
  const prepare = (text: string) => database.prepare(text)
  const nextAccount = prepare(
    'UPDATE node SET account_number = account_number + 1 RETURNING account_number',
  )
  const account = prepare(
    "INSERT INTO sync_account (id, number, password, key_salt) VALUES (?, ?, '', ?)",
  )
  const session = prepare(
    'INSERT INTO sync_session (token, id, expiration, created, used) VALUES (?, ?, ?, ?, ?)',
  )
  const data = prepare('INSERT INTO store_data (value) VALUES (?)')
  const store = prepare(
    `INSERT INTO sync_store (store_key, store_data, store_token, store_meta, size, digest, modified)
     VALUES (?, ?, ?, 'bm90ZXM', ?, ?, ?)`,
  )
  const permission = prepare(
    'INSERT INTO account_permission (sync_account_id, store_key, permission) VALUES (?, ?, ?)',
  )
  const handle = (): string => `~${randomBytes(32).toString('base64url')}`
  const now = Date.now()
  return {
    account() {
      const number = Number(nextAccount.get()?.['account_number'])
      const bearer = randomBytes(32).toString('base64url')
      const keySalt = randomBytes(32)
      account.run(handle(), number, keySalt)
      session.run(hash('sha256', bearer, 'base64url'), number, now + YEAR_MS / 4, now, now)
      return { number, bearer, keySalt }
    },
    stores({ number, keySalt }, count, size = 100) {
      const value = randomBytes(size)
      const digest = hash('sha256', value, 'buffer')
      return Array.from({ length: count }, (_, one) => {
        const key = toStoreKey(nameOf(one), keySalt)
        const { lastInsertRowid } = data.run(value)
        store.run(key, lastInsertRowid, firstToken(key), size, digest, now)
        permission.run(number, key, 'OWN')
        return key
      })
    },
    share(key, accounts) {
      for (const { number } of accounts) permission.run(number, key, 'READ')
    },
  }
}
