// Owns account ids and handles: an id is kept only as its HMAC, and shown only as that.
import { createHmac } from 'node:crypto'
import { sql } from './database/database.ts'
import type { Deps } from './deps.ts'
import { unacceptable } from './password.ts'

const MAX_CHARACTERS = 320
const HANDLE = /^~[\w-]{43}$/

export const normalizeId = (id: string): string => id.normalize('NFKC').trim().toLowerCase()

/** How an account is shown: `~` and 43 base64url characters. */
export const toHandle = (deps: Pick<Deps, 'keys'>, id: string): string =>
  `~${createHmac('sha256', deps.keys.account).update(normalizeId(id)).digest('base64url')}`

/** The handle of a user given by account id or by handle. */
export const resolveHandle = (deps: Pick<Deps, 'keys'>, user: string): string =>
  HANDLE.test(user) ? user : toHandle(deps, user)

/** Throws ACCT02 unless `id` may name a new account; answers its handle. */
export function checkId(deps: Pick<Deps, 'keys'>, id: string): string {
  const normal = normalizeId(id)
  const { length } = [...normal]
  if (length < 1 || length > MAX_CHARACTERS || normal.startsWith('~')) {
    throw unacceptable(`An id has 1 to ${MAX_CHARACTERS} characters and does not start with ~.`)
  }
  return toHandle(deps, id)
}

export async function exists(
  { database }: Pick<Deps, 'database'>,
  handle: string,
): Promise<boolean> {
  const { rows } = await database.execute(
    sql('SELECT 1 FROM sync_account WHERE id = ? AND dead = 0', [handle]),
  )
  return rows.length > 0
}
