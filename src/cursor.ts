// Owns cursors: where an account's client stands in its feed, opaque, and of no use to anybody else or
// on another history.
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { sql } from './database/database.ts'
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

/**
 * SQL that is true while account ?1 may go on from a position of this history: ?2 is its sequence, ?3
 * where a first sync began or 0, ?4 its nonce. What names its range is where a first sync began, else
 * where it stands.
 */
export const KNOWN = `${rangeAt('max(?2, ?3)')} = ?4
  AND max(?2, ?3) >= (SELECT forgotten_seq FROM sync_account WHERE number = ?1)
  AND max(?2, ?3) <= (SELECT seq FROM node)`

export const knownArgs = (
  { account }: Pick<Session, 'account'>,
  { seq, began, nonce }: Position,
): number[] => [account, seq, began ?? 0, nonce]

/** One AES block under a key of this account alone: a plain sequence would tell how much others write. */
const keyOf = ({ keys }: Pick<Deps, 'keys'>, self: Session): Uint8Array =>
  createHmac('sha256', keys.cursor).update(self.keySalt).digest()

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
  await check(deps, self, position)
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

/** Throws AUTH01, and FEED01 unless the account may go on from there. */
export async function check(
  { clock, database }: Pick<Deps, 'clock' | 'database'>,
  self: Session,
  position: Position,
): Promise<void> {
  const { rows } = await database.execute(
    sql(`SELECT ${session.aliveAt('?5', '?6')} AS alive, ${KNOWN} AS known`, [
      ...knownArgs(self, position),
      self.token,
      clock.now(),
    ]),
  )
  if (rows[0]?.['alive'] !== 1) throw unauthorized()
  if (rows[0]?.['known'] !== 1) throw unknown()
}

const unknown = (): SyncError =>
  new SyncError('FEED01', 'This cursor is not known here any more: start again without since.')
