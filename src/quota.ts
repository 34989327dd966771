// Owns quotas: a store counts in full against each account that OWNs it. The sums are kept by triggers
// of the schema, in the transaction of whatever changes them.
import { sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError } from './errors.ts'
import type { Session } from './session.ts'

/** SQL that selects the living accounts (a) with OWN (p) of the store given as a parameter. */
export const OWNERS = `FROM account_permission p JOIN sync_account a ON a.number = p.sync_account_id
  WHERE p.store_key = ? AND p.permission = 'OWN' AND a.dead = 0`

/** SQL that is true while somebody alive OWNs the store that the expression names: it lives as long. */
export const isOwned = (storeKey: string): string => `EXISTS (
  SELECT 1 FROM account_permission o JOIN sync_account a ON a.number = o.sync_account_id
  WHERE o.store_key = ${storeKey} AND o.permission = 'OWN' AND a.dead = 0)`

export const full = (): SyncError =>
  new SyncError('SIZE02', "The account's quota is full: delete something first.")

/** Selects as `used` the bytes of the stores that the account OWNs. */
export const usedBy = (self: Session): Statement =>
  sql('SELECT used FROM sync_account WHERE number = ?', [self.account])

export async function used({ database }: Pick<Deps, 'database'>, self: Session): Promise<number> {
  const { rows } = await database.execute(usedBy(self))
  return Number(rows[0]?.['used'])
}

/**
 * How large a value may become, in bytes: as large as it is, or until every OWN would be over quota.
 * `before` is what it replaces, or null for a new store.
 */
export async function room(
  { database, config }: Pick<Deps, 'database' | 'config'>,
  self: Session,
  before: { key: string; size: number } | null,
): Promise<number> {
  if (config.quota === null) return Number.POSITIVE_INFINITY
  const { rows } = await database.execute(
    before === null ? usedBy(self) : sql(`SELECT min(a.used) AS used ${OWNERS}`, [before.key]),
  )
  const size = before?.size ?? 0
  return Math.max(size, config.quota - Number(rows[0]?.['used'] ?? 0) + size)
}
