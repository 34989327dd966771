// Owns cursors: where an account's client stands in its feed, opaque, and of no use to anybody else or
// on another history.
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError, unauthorized } from './errors.ts'
import * as session from './session.ts'
import type { Session } from './session.ts'
import { fromBase32, toBase32 } from './token.ts'

export interface Position {
  /** All changes up to here were seen. */
  seq: number
  /** While a first sync runs: where it began; tombstones up to there are of stores it never saw. */
  began: number | null
  /** Of the range of the history that it lies in, as it was known when the position was reached. */
  nonce: number
}

const SEQ_BYTES = 6
const NONCE_AT = SEQ_BYTES
const BEGAN_AT = SEQ_BYTES + 4

/**
 * SQL: the nonce of the range of the history that a sequence lies in. A database that went back in time
 * starts a new range there, so it does not know positions beyond. Nothing was seen at 0: that is right
 * on every history.
 */
export const rangeAt = (seq: string): string => `coalesce((
  SELECT nonce FROM feed_start WHERE first_seq <= ${seq} ORDER BY first_seq DESC LIMIT 1), 0)`

/** What names the range of a position: where a first sync began, else where it stands. */
const anchorOf = ({ seq, began }: Position): number => Math.max(seq, began ?? 0)

const STANDING = `SELECT node.seq, a.forgotten_seq, ${rangeAt('?2')} AS nonce,
    (SELECT min(first_seq) FROM feed_start WHERE first_seq > ?2) AS next_start,
    ${session.aliveAt('?3', '?4')} AS alive,
    EXISTS (SELECT 1 FROM account_permission WHERE sync_account_id = ?1 AND change_seq > ?5)
      OR EXISTS (SELECT 1 FROM tombstone WHERE sync_account_id = ?1 AND change_seq > ?5) AS news
  FROM node, sync_account a WHERE a.number = ?1`

/** Selects how it stands with going on from a position, for `check`, and whether anything comes after it. */
export const standing = (self: Session, position: Position, now: number): Statement =>
  sql(STANDING, [self.account, anchorOf(position), self.token, now, position.seq])

/** Throws AUTH01, and FEED01 unless the account may go on from there, by the row that `standing` selects. */
export function check(position: Position, row: Record<string, unknown> | undefined): void {
  if (row?.['alive'] !== 1) throw unauthorized()
  const anchor = anchorOf(position)
  const isKnown =
    row['nonce'] === position.nonce &&
    anchor <= Number(row['seq']) &&
    anchor >= Number(row['forgotten_seq'])
  if (!isKnown) throw unknown()
}

// Of the sessions that are remembered: each poll needs its key twice.
const accountKeys = new WeakMap<Session, Uint8Array>()

/** One AES block under a key of this account alone: a plain sequence would tell how much others write. */
function keyOf({ keys }: Pick<Deps, 'keys'>, self: Session): Uint8Array {
  let key = accountKeys.get(self)
  if (key === undefined) {
    key = createHmac('sha256', keys.cursor).update(self.keySalt).digest()
    accountKeys.set(self, key)
  }
  return key
}

/** Makes an account's cursors of positions. */
export function sealer(deps: Pick<Deps, 'keys'>, self: Session): (position: Position) => string {
  const key = keyOf(deps, self)
  return function seal({ seq, began, nonce }) {
    const block = Buffer.alloc(16)
    block.writeUIntBE(seq, 0, SEQ_BYTES)
    block.writeUInt32BE(nonce, NONCE_AT)
    block.writeUIntBE(began ?? 0, BEGAN_AT, SEQ_BYTES)
    const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false)
    return toBase32(Buffer.concat([cipher.update(block), cipher.final()]))
  }
}

type CursorDeps = Pick<Deps, 'clock' | 'database' | 'keys'>

/** The position of a cursor, if it is one of this account on this history. Throws AUTH01, FEED01. */
export async function open(deps: CursorDeps, self: Session, cursor: string): Promise<Position> {
  const position = await read(deps, self, cursor)
  const { rows } = await deps.database.execute(standing(self, position, deps.clock.now()))
  check(position, rows[0])
  return position
}

/** The same for who reads on from it at once, which finds out whether it is known. */
export async function read(deps: CursorDeps, self: Session, cursor: string): Promise<Position> {
  const bytes = fromBase32(cursor)
  if (bytes === null) {
    await session.check(deps, self)
    throw unknown()
  }
  const decipher = createDecipheriv('aes-256-ecb', keyOf(deps, self), null).setAutoPadding(false)
  const block = Buffer.concat([decipher.update(bytes), decipher.final()])
  return {
    seq: block.readUIntBE(0, SEQ_BYTES),
    began: block.readUIntBE(BEGAN_AT, SEQ_BYTES) || null,
    nonce: block.readUInt32BE(NONCE_AT),
  }
}

const unknown = (): SyncError =>
  new SyncError('FEED01', 'This cursor is not known here any more: start again without since.')
