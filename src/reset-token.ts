// Owns password reset tokens: at most one an account, mailed or printed, good once.
import { randomInt } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { TimeSpan } from 'oslo'
import { requireChanges, sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError } from './errors.ts'
import type { Limit } from './limit.ts'
import { exists, normalizeId, toHandle } from './handle.ts'
import * as token from './token.ts'

const MAILED_MS = new TimeSpan(1, 'h').milliseconds()
const KEEP_MS = new TimeSpan(15, 'm').milliseconds()
const MAILS: Limit = { name: 'reset mail', count: 3, windowMs: new TimeSpan(1, 'd').milliseconds() }

/** How long a token that the command line prints is good. */
export const PRINTED_MS = {
  reset: new TimeSpan(1, 'h').milliseconds(),
  newAccount: new TimeSpan(7, 'd').milliseconds(),
}

export const wrong = (): SyncError =>
  new SyncError('AUTH02', 'The reset token is wrong, spent or expired: ask for another.')

/** Mails a token to the id, if it is an account's and a mail is due. Says nothing either way. */
export async function mail(deps: Deps, id: string): Promise<void> {
  const { database, clock, random, limiter, mailer } = deps
  if (mailer === null) return
  await pause(randomInt(mailer.maxDelayMs + 1), undefined, { ref: false })
  const handle = toHandle(deps, id)
  if (!(await exists(deps, handle))) return
  const { secret, digest } = token.issue(random)
  const now = clock.now()
  limiter.take(MAILS, handle)
  const { rowsAffected } = await database.execute(
    sql(
      `INSERT INTO password_reset_token (id, token, expiration, created, printed)
       SELECT number, ?2, ?3, ?4, 0 FROM sync_account WHERE id = ?1 AND dead = 0 AND disabled = 0
       ON CONFLICT (id) DO UPDATE
       SET token = excluded.token, expiration = excluded.expiration, created = excluded.created,
         printed = 0
       WHERE expiration <= ?4 OR (printed = 0 AND created <= ?5)`,
      [handle, digest, now + MAILED_MS, now, now - KEEP_MS],
    ),
  )
  if (rowsAffected === 0) return limiter.refund(MAILS, handle)
  await mailer.sendReset(normalizeId(id), secret)
}

/** Makes the token that the command line prints for an account; the statement guards that it is there. */
export function print(
  { clock, random }: Pick<Deps, 'clock' | 'random'>,
  handle: string,
  lifeMs: number,
): { secret: string; statements: Statement[] } {
  const { secret, digest } = token.issue(random)
  const now = clock.now()
  return {
    secret,
    statements: [
      sql(
        `INSERT OR REPLACE INTO password_reset_token (id, token, expiration, created, printed)
         SELECT number, ?, ?, ?, 1 FROM sync_account WHERE id = ? AND dead = 0`,
        [digest, now + lifeMs, now, handle],
      ),
      requireChanges(),
    ],
  }
}

export async function find(
  { database, clock }: Pick<Deps, 'database' | 'clock'>,
  secret: string,
): Promise<{ account: number; handle: string } | undefined> {
  const { rows } = await database.execute(
    sql(
      `SELECT a.number, a.id FROM password_reset_token t JOIN sync_account a ON a.number = t.id
       WHERE t.token = ? AND t.expiration > ? AND a.dead = 0`,
      [token.digest(secret), clock.now()],
    ),
  )
  const [row] = rows
  return row && { account: Number(row['number']), handle: String(row['id']) }
}

/** The statements that spend one, or abort the caller's batch. */
export const spend = ({ clock }: Pick<Deps, 'clock'>, secret: string): Statement[] => [
  sql('DELETE FROM password_reset_token WHERE token = ? AND expiration > ?', [
    token.digest(secret),
    clock.now(),
  ]),
  requireChanges(),
]
