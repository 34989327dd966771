// Owns what the operator may do with accounts without being logged in as them. Their names are not
// known here: whoever names one names it by its id, or by its handle.
import { removal } from './account.ts'
import { refusal, requireChanges, sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { resolveHandle } from './handle.ts'

export interface AccountSummary {
  user: string
  disabled: boolean
  /** Bytes of the stores that it OWNs. */
  used: number
  /** Stores that it has a permission on, and how many of them it OWNs. */
  stores: number
  owned: number
  sessions: number
  /** When a session was last used, to the day; null without one. */
  lastUsed: number | null
}

export interface AccountSession {
  token: string
  device: string | null
  created: number
  used: number
  expiration: number
}

type OperatorDeps = Pick<Deps, 'clock' | 'database' | 'keys' | 'random'>

const SUMMARY = `
  SELECT a.id, a.number, a.disabled, a.used, count(p.store_key) AS stores,
    count(p.store_key) FILTER (WHERE p.permission = 'OWN') AS owned,
    (SELECT count(*) FROM sync_session WHERE id = a.number AND expiration > ?1) AS sessions,
    (SELECT max(used) FROM sync_session WHERE id = a.number AND expiration > ?1) AS last_used
  FROM sync_account a LEFT JOIN held_permission p ON p.sync_account_id = a.number
  WHERE a.dead = 0`

const toSummary = (row: Record<string, unknown>): AccountSummary => ({
  user: String(row['id']),
  disabled: row['disabled'] === 1,
  used: Number(row['used']),
  stores: Number(row['stores']),
  owned: Number(row['owned']),
  sessions: Number(row['sessions']),
  lastUsed: row['last_used'] === null ? null : Number(row['last_used']),
})

/** All accounts, in the order in which they were made. */
export async function listAccounts({ clock, database }: OperatorDeps): Promise<AccountSummary[]> {
  const { rows } = await database.execute(
    sql(`${SUMMARY} GROUP BY a.number ORDER BY a.number`, [clock.now()]),
  )
  return rows.map(toSummary)
}

/** The account with this id or handle, or undefined. */
export async function findAccount(
  deps: OperatorDeps,
  user: string,
): Promise<AccountSummary | undefined> {
  const { rows } = await deps.database.execute(
    sql(`${SUMMARY} AND a.id = ?2 GROUP BY a.number`, [
      deps.clock.now(),
      resolveHandle(deps, user),
    ]),
  )
  return rows[0] && toSummary(rows[0])
}

/** The sessions of an account, the last used first. */
export async function listSessions(
  { clock, database }: OperatorDeps,
  { user }: Pick<AccountSummary, 'user'>,
): Promise<AccountSession[]> {
  const { rows } = await database.execute(
    sql(
      `SELECT s.token, s.device, s.created, s.used, s.expiration
       FROM sync_session s JOIN sync_account a ON a.number = s.id
       WHERE a.id = ? AND s.expiration > ? ORDER BY s.used DESC, s.created DESC`,
      [user, clock.now()],
    ),
  )
  return rows.map((row) => ({
    token: String(row['token']),
    device: row['device'] === null ? null : String(row['device']),
    created: Number(row['created']),
    used: Number(row['used']),
    expiration: Number(row['expiration']),
  }))
}

const END_ALL = 'DELETE FROM sync_session WHERE id = (SELECT number FROM sync_account WHERE id = ?)'

/** Ends one session of an account, or all; answers how many ended. */
export async function endSessions(
  { database }: OperatorDeps,
  { user }: Pick<AccountSummary, 'user'>,
  token?: string,
): Promise<number> {
  const [result] = await write(database, [
    token === undefined ? sql(END_ALL, [user]) : sql(`${END_ALL} AND token = ?`, [user, token]),
  ])
  return result?.rowsAffected ?? 0
}

/** Ends all sessions and reset tokens, and lets nobody log in; what is stored and shared stays. */
export async function disable(
  { database }: OperatorDeps,
  { user }: Pick<AccountSummary, 'user'>,
): Promise<void> {
  await write(database, [
    sql('UPDATE sync_account SET disabled = 1 WHERE id = ? AND dead = 0', [user]),
    requireChanges(),
    sql(END_ALL, [user]),
    sql(
      'DELETE FROM password_reset_token WHERE id = (SELECT number FROM sync_account WHERE id = ?)',
      [user],
    ),
  ])
}

export async function enable(
  { database }: OperatorDeps,
  { user }: Pick<AccountSummary, 'user'>,
): Promise<void> {
  await write(database, [
    sql('UPDATE sync_account SET disabled = 0 WHERE id = ? AND dead = 0', [user]),
    requireChanges(),
  ])
}

/** Deletes the account at once for everyone to see; the server's housekeeping removes its rows. */
export async function remove(
  deps: OperatorDeps,
  { user }: Pick<AccountSummary, 'user'>,
): Promise<void> {
  const { rows } = await deps.database.execute(
    sql('SELECT number FROM sync_account WHERE id = ? AND dead = 0', [user]),
  )
  await write(deps.database, removal(deps, Number(rows[0]?.['number'])))
}

function write(database: Deps['database'], statements: Statement[]) {
  return database.batch(statements, 'write').catch((error: unknown) => {
    throw refusal(error)
  })
}
