// Owns cursors: where an account's client stands in its feed, opaque, and of no use to anybody else or
// on another history.
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError } from './errors.ts'
import * as session from './session.ts'
import type { Session } from './session.ts'
import { fromBase32, toBase32 } from './token.ts'

export interface Position {
  /** All changes up to here were seen. */
  seq: number
  /** While a first sync runs: where it began; tombstones up to there are of stores it never saw. */
  began: number | null
}

const SEQ_BYTES = 6
const NONCE_AT = SEQ_BYTES
const BEGAN_AT = SEQ_BYTES + 4

/**
 * The nonce of the range of the history that a position lies in. A database that went back in time
 * starts a new range there, so it does not know positions beyond. Nothing was seen at 0: that is
 * right on every history.
 */
export const rangeOf = (seq: number): Statement =>
  sql(
    `SELECT coalesce((SELECT nonce FROM feed_start WHERE first_seq <= ?
       ORDER BY first_seq DESC LIMIT 1), 0) AS nonce`,
    [seq],
  )

/** One AES block under a key of this account alone: a plain sequence would tell how much others write. */
const keyOf = ({ keys }: Pick<Deps, 'keys'>, self: Session): Uint8Array =>
  createHmac('sha256', keys.cursor).update(self.keySalt).digest()

export type Sealer = (position: Position, nonce: number) => string

export function sealer(deps: Pick<Deps, 'keys'>, self: Session): Sealer {
  const key = keyOf(deps, self)
  return function seal({ seq, began }, nonce) {
    const block = Buffer.alloc(16)
    block.writeUIntBE(seq, 0, SEQ_BYTES)
    block.writeUInt32BE(nonce, NONCE_AT)
    block.writeUIntBE(began ?? 0, BEGAN_AT, SEQ_BYTES)
    const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false)
    return toBase32(Buffer.concat([cipher.update(block), cipher.final()]))
  }
}

/** The sequence whose range a cursor names: where a first sync began, else where it stands. */
export const anchorOf = ({ seq, began }: Position): number => began ?? seq

/** Throws AUTH01, and FEED01 for anything but a cursor of this account on this history. */
export async function open(
  deps: Pick<Deps, 'clock' | 'database' | 'keys'>,
  self: Session,
  cursor: string,
): Promise<Position> {
  const position = await find(deps, self, cursor)
  if (position !== null) return position
  await session.check(deps, self)
  throw new SyncError(
    'FEED01',
    'This cursor is not known here any more: start again without since.',
  )
}

async function find(
  deps: Pick<Deps, 'database' | 'keys'>,
  self: Session,
  cursor: string,
): Promise<Position | null> {
  const bytes = fromBase32(cursor)
  if (bytes === null) return null
  const cipher = createDecipheriv('aes-256-ecb', keyOf(deps, self), null).setAutoPadding(false)
  const block = Buffer.concat([cipher.update(bytes), cipher.final()])
  const position: Position = {
    seq: block.readUIntBE(0, SEQ_BYTES),
    began: block.readUIntBE(BEGAN_AT, SEQ_BYTES) || null,
  }
  const anchor = anchorOf(position)
  const [range, state] = await deps.database.batch(
    [
      rangeOf(anchor),
      sql('SELECT node.seq, a.forgotten_seq FROM node, sync_account a WHERE a.number = ?', [
        self.account,
      ]),
    ],
    'read',
  )
  const row = state?.rows[0]
  const isOurs =
    Number(range?.rows[0]?.['nonce']) === block.readUInt32BE(NONCE_AT) &&
    position.seq <= Number(row?.['seq']) &&
    anchor <= Number(row?.['seq'])
  return isOurs && anchor >= Number(row?.['forgotten_seq']) ? position : null
}
