// Owns the statements of a write to a store, each guarded by its own conditions: they stand in one
// batch, and happen all or not at all.
import { require, requireChanges, sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import * as quota from './quota.ts'
import * as session from './session.ts'
import type { Session } from './session.ts'
import type { Condition, Store } from './store.ts'
import type { Received } from './value.ts'

// Guards a write in its own statement: (session token, now) may write to sync_store.
const MAY = (permissions: string): string => `EXISTS (
  SELECT 1 FROM sync_session s JOIN held_permission p ON p.sync_account_id = s.id
  WHERE s.token = ? AND s.expiration > ? AND p.store_key = sync_store.store_key
    AND p.permission IN (${permissions}))`

const QUOTA_OF_NEW = 'SELECT ? = 0 OR used <= ? FROM sync_account WHERE number = ?'
const QUOTA_OF_GROWTH = `SELECT ?2 <= t.size OR EXISTS (
    SELECT 1 ${quota.ownersOf('?1')} AND a.used - t.size + ?2 <= ?3)
  FROM sync_store t WHERE t.store_key = ?1`

const QUOTA_GUARDS = [QUOTA_OF_NEW, QUOTA_OF_GROWTH].map((guard) => require(guard).sql)

/** True for the guard that keeps a write within the quota. */
export const isQuotaGuard = (statement: Statement | undefined): boolean =>
  statement !== undefined && QUOTA_GUARDS.includes(statement.sql)

/** A store as it will be. */
export interface Row {
  key: string
  token: string
  meta: string | null
  received: Pick<Received, 'inline' | 'upload' | 'size' | 'digest'>
}

/** Makes a store that the account OWNs, unless there is one, or its session has ended. */
export function creation(
  deps: Deps,
  self: Session,
  { key, token, meta, received }: Row,
): Statement[] {
  const { clock, config } = deps
  const { inline, upload, size, digest } = received
  const isDead = `NOT ${quota.isOwned('?1')}`
  return [
    // What a dead account left under this name does not exist, but may still be there.
    sql(`DELETE FROM sync_store WHERE store_key = ?1 AND ${isDead}`, [key]),
    ...(inline === undefined ? [] : [sql('INSERT INTO store_data (value) VALUES (?)', [inline])]),
    sql(
      `INSERT INTO sync_store
         (store_key, store_file, store_data, store_token, store_meta, size, digest, modified)
       SELECT ?, ?, ${inline === undefined ? 'NULL' : 'last_insert_rowid()'}, ?, ?, ?, ?, ?
       WHERE ${session.ALIVE}`,
      [key, upload?.name ?? null, token, meta, size, digest, clock.wall(), self.token, clock.now()],
    ),
    requireChanges(),
    sql(
      `INSERT INTO account_permission (sync_account_id, store_key, permission) VALUES (?, ?, 'OWN')`,
      [self.account, key],
    ),
    ...(config.quota === null ? [] : [require(QUOTA_OF_NEW, [size, config.quota, self.account])]),
  ]
}

/** Replaces value and meta, while `condition` and the permission hold. */
export function replacement(
  { clock, config }: Deps,
  self: Session,
  { key, token, meta, received }: Row,
  { condition, before }: { condition: Condition; before: Store },
): Statement[] {
  const { inline, upload, size, digest } = received
  // With a token the row is known to be as it was seen, and a small value can stay where it is.
  const isInPlace = condition.kind === 'match' && inline !== undefined && before.file === null
  const data = inline === undefined ? 'NULL' : isInPlace ? 'store_data' : 'last_insert_rowid()'
  const isMatch = condition.kind === 'match' ? 'store_token = ?' : '?'
  return [
    ...(config.quota === null ? [] : [require(QUOTA_OF_GROWTH, [key, size, config.quota])]),
    ...(inline === undefined || isInPlace
      ? []
      : [sql('INSERT INTO store_data (value) VALUES (?)', [inline])]),
    sql(
      `UPDATE sync_store SET store_file = ?, store_data = ${data}, store_token = ?, store_meta = ?,
         size = ?, digest = ?, modified = ?
       WHERE store_key = ? AND ${isMatch} AND ${MAY(`'WRITE', 'OWN'`)}`,
      [
        upload?.name ?? null,
        token,
        meta,
        size,
        digest,
        clock.wall(),
        key,
        condition.kind === 'match' ? before.token : 1,
        self.token,
        clock.now(),
      ],
    ),
    requireChanges(),
    ...(isInPlace
      ? [
          sql(
            'UPDATE store_data SET value = ? WHERE id = (SELECT store_data FROM sync_store WHERE store_key = ?)',
            [inline as Uint8Array, key],
          ),
        ]
      : []),
  ]
}

/** Deletes a store for everyone, while `condition` and the permission hold. */
export const removal = (
  { clock }: Pick<Deps, 'clock'>,
  self: Session,
  { condition, before }: { condition: Condition; before: Store },
): Statement[] => [
  sql(
    `DELETE FROM sync_store
     WHERE store_key = ? AND ${condition.kind === 'match' ? 'store_token = ?' : '?'}
       AND ${MAY(`'OWN'`)}`,
    [before.key, condition.kind === 'match' ? before.token : 1, self.token, clock.now()],
  ),
  requireChanges(),
]
