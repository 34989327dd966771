// Owns invitations: how one is made, found and spent.
import { TimeSpan } from 'oslo'
import { requireChanges, sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import * as token from './token.ts'

const LIFE_MS = new TimeSpan(7, 'd').milliseconds()

/** Makes an invitation, good once and for a week; answers its secret. */
export async function issue({
  database,
  clock,
  random,
}: Pick<Deps, 'database' | 'clock' | 'random'>): Promise<string> {
  const { secret, digest } = token.issue(random)
  await database.execute(
    sql('INSERT INTO invitation (token, expiration) VALUES (?, ?)', [
      digest,
      clock.now() + LIFE_MS,
    ]),
  )
  return secret
}

export async function find(
  { database, clock }: Pick<Deps, 'database' | 'clock'>,
  secret: string,
): Promise<boolean> {
  const { rows } = await database.execute(
    sql('SELECT 1 FROM invitation WHERE token = ? AND expiration > ?', [
      token.digest(secret),
      clock.now(),
    ]),
  )
  return rows.length > 0
}

/** The statements that spend one, or abort the caller's batch. */
export const spend = ({ clock }: Pick<Deps, 'clock'>, secret: string): Statement[] => [
  sql('DELETE FROM invitation WHERE token = ? AND expiration > ?', [
    token.digest(secret),
    clock.now(),
  ]),
  requireChanges(),
]
