// Owns the feed of changes: what an account can read, by the order in which it last changed.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql, toBytes } from './database/database.ts'
import type { Deps } from './deps.ts'
import { check, rangeAt, standing, type Position } from './cursor.ts'
import { isOwned } from './quota.ts'
import * as session from './session.ts'
import type { Session } from './session.ts'
import type { ListedStore, Permission } from './store.ts'
import { isIntact } from './value.ts'

type Change = (ListedStore & { data?: string }) | { key: string; deleted: true }

interface Entry {
  change: Change
  /** Where a client stands that has seen this entry. */
  position: Position
}

/** A part of a page: as much as is held for one reader at once. */
export interface Part {
  entries: Entry[]
  /** Where a client stands that has seen it; what seals it stands in the part's range. */
  position: Position
  more: boolean
  /** Up to where the history went when this was read. */
  end: number
}

interface PartOptions {
  limit: number
  withData: boolean
  /** Reads no further: later parts of a page end where its first one did, or a key could stand twice. */
  end?: number | undefined
}

type FeedDeps = Pick<Deps, 'clock' | 'database' | 'keys' | 'log'>

// What a reader who takes nothing keeps in memory: so many entries, without and with their values.
const PART = 100
const PART_WITH_DATA = 16

// Two index scans, merged: the cost is that of the rows that are returned. A store whose OWNs are all
// dead is deleted for everyone, though its rows are still there.
const partQuery = (
  { columns, join }: { columns: string; join: string },
  nonceAt: (seq: string) => string,
): string => `
  SELECT p.change_seq, p.store_key, p.permission, t.store_token, t.store_meta, t.size, t.modified,
    t.digest ${columns}, p.permission <> 'OWN' AND NOT ${isOwned('p.store_key')} AS deleted
    ${nonceAt('p.change_seq')}
  FROM account_permission p JOIN sync_store t ON t.store_key = p.store_key ${join}
  WHERE p.sync_account_id = ?1 AND p.change_seq > ?2 AND p.change_seq <= ?7 AND ${ALIVE}
  UNION ALL
  SELECT change_seq, store_key, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1 ${nonceAt('change_seq')}
  FROM tombstone
  WHERE sync_account_id = ?1 AND change_seq > max(?2, ?3) AND change_seq <= ?7 AND ${ALIVE}
  ORDER BY change_seq LIMIT ?6`

const ALIVE = session.aliveAt('?4', '?5')
const WITHOUT_DATA = { columns: ', NULL AS value', join: '' }
const WITH_DATA = {
  columns: ', d.value',
  join: 'LEFT JOIN store_data d ON d.id = t.store_data',
}
const known = (): string => ''
const sought = (seq: string): string => `, ${rangeAt(`max(${seq}, ?3)`)} AS nonce`
// Most parts lie in one range of the history: its nonce is known, and not sought for each row.
const QUERY = partQuery(WITHOUT_DATA, known)
const QUERY_WITH_DATA = partQuery(WITH_DATA, known)
const QUERY_OVER_STARTS = partQuery(WITHOUT_DATA, sought)
const QUERY_WITH_DATA_OVER_STARTS = partQuery(WITH_DATA, sought)

/** Where a first sync begins. */
export async function beginning({ database }: Pick<Deps, 'database'>): Promise<Position> {
  const { rows } = await database.execute(`SELECT seq, ${rangeAt('seq')} AS nonce FROM node`)
  return { seq: 0, began: Number(rows[0]?.['seq']) || null, nonce: Number(rows[0]?.['nonce']) }
}

/** A part with nothing in it, or undefined when there is something: most polls cost no more than this. */
export async function nothing(
  { clock, database }: Pick<Deps, 'clock' | 'database'>,
  self: Session,
  since: Position,
): Promise<Part | undefined> {
  const { rows } = await database.execute(standing(self, since, clock.now()))
  check(since, rows[0])
  return rows[0]?.['news'] === 0
    ? { entries: [], position: atEnd(since, since), more: false, end: Number(rows[0]['seq']) }
    : undefined
}

/** The changes after a position, as many as one part holds. Throws AUTH01, FEED01. */
export async function part(
  deps: FeedDeps,
  self: Session,
  since: Position,
  { limit, withData, end = Number.MAX_SAFE_INTEGER }: PartOptions,
): Promise<Part> {
  const began = since.began ?? 0
  const asked = Math.min(withData ? PART_WITH_DATA : PART, limit)
  const ask = async (query: string) => {
    const now = deps.clock.now()
    const args = [self.account, since.seq, began, self.token, now, asked, end]
    const [found, state] = await deps.database.batch(
      [sql(query, args), standing(self, since, now)],
      'read',
    )
    check(since, state?.rows[0])
    return { rows: found?.rows ?? [], state: state?.rows[0] }
  }
  let { rows, state } = await ask(withData ? QUERY_WITH_DATA : QUERY)
  const nextStart = Number(state?.['next_start'] ?? Number.POSITIVE_INFINITY)
  if (nextStart <= Number(rows.at(-1)?.['change_seq'])) {
    ;({ rows, state } = await ask(withData ? QUERY_WITH_DATA_OVER_STARTS : QUERY_OVER_STARTS))
  }
  const entries = rows.map((row) => ({
    change: toChange(deps, row),
    position: advance(since, row),
  }))
  const last = entries.at(-1)?.position ?? since
  const more = rows.length === asked
  // Who reads on may have nothing to write, and so nothing to wait for: others get their turn here.
  if (more) await nextTurn()
  return {
    // A first sync has nothing to delete of what was gone before it began.
    entries: entries.filter(
      ({ change, position }) => !('deleted' in change) || position.seq > began,
    ),
    position: more ? last : atEnd(since, last),
    more,
    end: Math.min(end, Number(state?.['seq'])),
  }
}

/** At the end whatever began is done. */
const atEnd = ({ began }: Position, last: Position): Position => ({
  ...last,
  seq: Math.max(last.seq, began ?? 0),
  began: null,
})

function advance({ began, nonce }: Position, row: Record<string, unknown>): Position {
  const seq = Number(row['change_seq'])
  return {
    seq,
    began: began !== null && seq < began ? began : null,
    nonce: Number(row['nonce'] ?? nonce),
  }
}

function toChange({ log }: Pick<Deps, 'log'>, row: Record<string, unknown>): Change {
  const key = String(row['store_key'])
  if (row['deleted'] === 1) return { key, deleted: true }
  const value = row['value'] === null ? null : toBytes(row['value'])
  const isWhole = value !== null && isIntact(value, toBytes(row['digest']))
  if (value !== null && !isWhole) log.error('a value in the database is damaged')
  return {
    key,
    permission: row['permission'] as Permission,
    token: String(row['store_token']),
    ...(row['store_meta'] === null ? {} : { meta: String(row['store_meta']) }),
    size: Number(row['size']),
    modified: Number(row['modified']),
    ...(isWhole ? { data: Buffer.from(value).toString('base64') } : {}),
  }
}
