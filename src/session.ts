// Owns sessions: how one is opened, found, renewed and ended.
import { LRUCache } from 'lru-cache'
import { TimeSpan } from 'oslo'
import { requireChanges, sql, toBytes, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError, notFound, unauthorized } from './errors.ts'
import * as token from './token.ts'

/** What can never change of a session, and so may be remembered. */
export interface Session {
  /** SHA-256 of the bearer token, base64url: the session's handle. */
  token: string
  /** sync_account.number */
  account: number
  keySalt: Uint8Array
}

/** What a client is given when a session opens. */
export interface OpenedSession {
  token: string
  expiration: number
  user: string
}

export interface ListedSession {
  token: string
  /** The account's handle. */
  user: string
  expiration: number
  device?: string
  created: number
  used: number
  current: boolean
}

const IDLE_MS = new TimeSpan(90, 'd').milliseconds()
const LIFE_MS = new TimeSpan(365, 'd').milliseconds()
const RENEW_MS = new TimeSpan(1, 'd').milliseconds()
const FRESH_MS = new TimeSpan(10, 'm').milliseconds()
const MAX_PER_ACCOUNT = 100

/** SQL that is true while a session lives, given as expressions of its token and of now. */
export const aliveAt = (token: string, now: string): string =>
  `EXISTS (SELECT 1 FROM sync_session WHERE token = ${token} AND expiration > ${now})`

/** The same, with both as parameters. */
export const ALIVE = aliveAt('?', '?')

/** The statements that open a session for the account that `where` selects, in the caller's batch. */
export function open(
  { clock, random }: Pick<Deps, 'clock' | 'random'>,
  account: { handle: string; where?: string; args?: string[]; device: string | undefined },
): { opened: OpenedSession; statements: Statement[] } {
  const { secret, digest } = token.issue(random)
  const now = clock.now()
  const { handle, where = '1', args = [], device = null } = account
  return {
    opened: { token: secret, expiration: now + IDLE_MS, user: handle },
    statements: [
      sql(
        `INSERT INTO sync_session (token, id, expiration, device, created, used)
         SELECT ?, number, ?, ?, ?, ? FROM sync_account
         WHERE id = ? AND dead = 0 AND disabled = 0 AND (${where})`,
        [digest, now + IDLE_MS, device, now, now, handle, ...args],
      ),
      requireChanges(),
      sql(
        `DELETE FROM sync_session WHERE token IN (
           SELECT s.token FROM sync_session s JOIN sync_account a ON a.number = s.id
           WHERE a.id = ? ORDER BY s.used DESC, s.created DESC LIMIT -1 OFFSET ?)`,
        [handle, MAX_PER_ACCOUNT],
      ),
    ],
  }
}

export type SessionFinder = (bearer: string) => Promise<Session>

/**
 * Answers who a bearer token belongs to, or throws AUTH01. Only what cannot change is remembered:
 * whether the session still lives is asked with each statement that acts for it.
 */
export function finder(deps: Pick<Deps, 'database' | 'clock'>): SessionFinder {
  const known = new LRUCache<string, { session: Session; used: number }>({ max: 10_000 })
  return async function find(bearer) {
    const digest = token.digest(bearer)
    let entry = known.get(digest)
    if (entry === undefined) {
      entry = await load(deps, digest)
      known.set(digest, entry)
    }
    const now = deps.clock.now()
    if (now - entry.used >= RENEW_MS) {
      entry.used = now
      renew(deps, entry.session)
    }
    return entry.session
  }
}

async function load(
  { database, clock }: Pick<Deps, 'database' | 'clock'>,
  digest: string,
): Promise<{ session: Session; used: number }> {
  const { rows } = await database.execute(
    sql(
      `SELECT a.number, a.key_salt, s.used
       FROM sync_session s JOIN sync_account a ON a.number = s.id
       WHERE s.token = ? AND s.expiration > ?`,
      [digest, clock.now()],
    ),
  )
  const [row] = rows
  if (row === undefined) throw unauthorized()
  const session = {
    token: digest,
    account: Number(row['number']),
    keySalt: toBytes(row['key_salt']),
  }
  return { session, used: Number(row['used']) }
}

/** Throws AUTH01 unless the session lives. */
export async function check(
  { database, clock }: Pick<Deps, 'database' | 'clock'>,
  session: Session,
): Promise<void> {
  const { rows } = await database.execute(
    sql(`SELECT ${ALIVE} AS alive`, [session.token, clock.now()]),
  )
  if (rows[0]?.['alive'] !== 1) throw unauthorized()
}

/** Prolongs a session that was last used more than a day ago. Nobody waits for it. */
function renew({ database, clock }: Pick<Deps, 'database' | 'clock'>, session: Session): void {
  const statement = sql(
    `UPDATE sync_session SET used = ?1, expiration = min(?1 + ?2, created + ?3)
     WHERE token = ?4 AND expiration > ?1 AND used < ?1`,
    [clock.now(), IDLE_MS, LIFE_MS, session.token],
  )
  // A disk that refuses is told to whoever writes; this is tried again tomorrow.
  database.batch([statement], 'write').catch(() => undefined)
}

export async function list(
  { database, clock }: Pick<Deps, 'database' | 'clock'>,
  session: Session,
): Promise<ListedSession[]> {
  const { rows } = await database.execute(
    sql(
      `SELECT s.token, a.id AS user, s.expiration, s.device, s.created, s.used
       FROM sync_session s JOIN sync_account a ON a.number = s.id
       WHERE s.id = (SELECT id FROM sync_session WHERE token = ?1 AND expiration > ?2)
         AND s.expiration > ?2 ORDER BY s.created, s.token`,
      [session.token, clock.now()],
    ),
  )
  if (rows.length === 0) throw unauthorized()
  return rows.map((row) => ({
    token: String(row['token']),
    user: String(row['user']),
    expiration: Number(row['expiration']),
    ...(row['device'] === null ? {} : { device: String(row['device']) }),
    created: Number(row['created']),
    used: Number(row['used']),
    current: row['token'] === session.token,
  }))
}

/** Ends the session `handle` of the same account (its own too), or throws ERR01. */
export async function end(
  deps: Pick<Deps, 'database' | 'clock'>,
  session: Session,
  handle: string,
): Promise<void> {
  const now = deps.clock.now()
  const result = await deps.database.execute(
    sql(
      `DELETE FROM sync_session WHERE token = ?1 AND expiration > ?2 AND id = (
         SELECT id FROM sync_session WHERE token = ?3 AND expiration > ?2)`,
      [handle, now, session.token],
    ),
  )
  if (result.rowsAffected === 1) return
  await check(deps, session)
  throw notFound()
}

/** SQL that is true while a session lives and was opened in the last ten minutes. */
export const FRESH =
  'EXISTS (SELECT 1 FROM sync_session WHERE token = ? AND expiration > ? AND created > ?)'

export const freshArgs = (session: Session, now: number): (string | number)[] => [
  session.token,
  now,
  now - FRESH_MS,
]

/** Throws AUTH01 unless the session lives, AUTH03 unless it was opened in the last ten minutes. */
export async function checkFresh(
  deps: Pick<Deps, 'database' | 'clock'>,
  session: Session,
): Promise<void> {
  await check(deps, session)
  const { rows } = await deps.database.execute(
    sql(`SELECT ${FRESH} AS fresh`, freshArgs(session, deps.clock.now())),
  )
  if (rows[0]?.['fresh'] !== 1) {
    throw new SyncError(
      'AUTH03',
      'Log in again first: this needs a session younger than 10 minutes.',
    )
  }
}
