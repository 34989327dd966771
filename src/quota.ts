// Owns quotas: a store counts in full against each account that OWNs it. The sums are kept by triggers
// of the schema, in the transaction of whatever changes them.
import { sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError } from './errors.ts'
import type { Session } from './session.ts'

/** SQL that selects the living accounts (a) with OWN (o) of the store that the expression names. */
export const ownersOf = (
  storeKey: string,
): string => `FROM account_permission o JOIN sync_account a ON a.number = o.sync_account_id
  WHERE o.store_key = ${storeKey} AND o.permission = 'OWN' AND a.dead = 0`

/** SQL that is true while somebody alive OWNs the store that the expression names: it lives as long. */
export const isOwned = (storeKey: string): string => `EXISTS (SELECT 1 ${ownersOf(storeKey)})`

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
 * SQL: the bytes that count for a write by the account of session s to store ?2: of that OWN of it who
 * has the least; of the account itself, where it has no permission p on it and would create it.
 */
export const USED_BY_LEAST = `CASE WHEN p.permission IS NULL
  THEN (SELECT used FROM sync_account WHERE number = s.id)
  ELSE (SELECT min(a.used) ${ownersOf('?2')}) END`

/**
 * How large a value may become, in bytes: as large as it is, or until every OWN would be over quota.
 * `before` is what it replaces, or null for a new store.
 */
export function room(
  { config }: Pick<Deps, 'config'>,
  used: number,
  before: { size: number } | null,
): number {
  if (config.quota === null) return Number.POSITIVE_INFINITY
  const size = before?.size ?? 0
  return Math.max(size, config.quota - used + size)
}
