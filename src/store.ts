// Owns stores: read, written, deleted and listed, each change guarded by its token.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { commit, sql, toBytes } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError, notFound, unauthorized } from './errors.ts'
import { isStoreKey, toStoreKey } from './key.ts'
import * as quota from './quota.ts'
import * as session from './session.ts'
import type { Session } from './session.ts'
import { unique } from './token.ts'
import * as value from './value.ts'
import type { Incoming } from './value.ts'
import { creation, removal, replacement } from './write.ts'

export type Permission = 'READ' | 'WRITE' | 'OWN'

export interface Store {
  key: string
  permission: Permission
  token: string
  meta: string | null
  size: number
  /** SHA-256 */
  digest: Uint8Array
  modified: number
  /** The file that holds the value, or null when `inline` does. */
  file: string | null
  inline: Uint8Array | null
}

export interface ListedStore {
  key: string
  permission: Permission
  token: string
  meta?: string
  size: number
  modified: number
}

/** What a write says about the version it changes. */
export type Condition =
  | { kind: 'none' }
  | { kind: 'new' }
  | { kind: 'any' }
  | { kind: 'match'; tokens: string[] }

export interface Written {
  key: string
  token: string
  isNew: boolean
  /** Bytes that count against the caller's quota. */
  used: number
}

const LIST_PAGE = 500
/** What a Store is made of: of its permission p and its row t. */
export const COLUMNS = `p.permission, t.store_token, t.store_meta, t.size, t.digest, t.modified, t.store_file`

// What a session may see of a store: one row while the session lives, NULLs without a permission.
const find = (more: { columns: string; join: string }): string => `
  SELECT ${COLUMNS} ${more.columns}
  FROM sync_session s
  LEFT JOIN held_permission p ON p.sync_account_id = s.id AND p.store_key = ?2
  LEFT JOIN sync_store t ON t.store_key = p.store_key
  ${more.join}
  WHERE s.token = ?1 AND s.expiration > ?3`

const FIND = find({ columns: ', NULL AS value', join: '' })
// In one statement, since a database server may be far away.
const FIND_TO_PUT = find({
  columns: `, NULL AS value, ${quota.USED_BY_LEAST} AS used,
    ${quota.isOwned('?2')} AND NOT EXISTS (
      SELECT 1 FROM account_permission WHERE sync_account_id = s.id AND store_key = ?2) AS lost`,
  join: '',
})
const FIND_WITH_VALUE = find({
  columns: ', d.value',
  join: 'LEFT JOIN store_data d ON d.id = t.store_data',
})

/** The store under a key, or null when the account has none there. Throws AUTH01. */
async function look(
  deps: Pick<Deps, 'database' | 'clock'>,
  self: Session,
  key: string,
  statement: string,
): Promise<{ store: Store | null; row: Record<string, unknown> }> {
  const storeKey = toStoreKey(key, self.keySalt)
  const { rows } = await deps.database.execute(
    sql(statement, [self.token, storeKey, deps.clock.now()]),
  )
  const [row] = rows
  if (row === undefined) throw unauthorized()
  return { store: row['permission'] === null ? null : toStore(storeKey, row), row }
}

/** A store from the row that selects COLUMNS, and `value` where that is wanted. */
export const toStore = (key: string, row: Record<string, unknown>): Store => ({
  key,
  permission: row['permission'] as Permission,
  token: String(row['store_token']),
  meta: row['store_meta'] as string | null,
  size: Number(row['size']),
  digest: toBytes(row['digest']),
  modified: Number(row['modified']),
  file: row['store_file'] as string | null,
  inline: (row['value'] ?? null) === null ? null : toBytes(row['value']),
})

/** The store under a key, its value too when that is small. Throws AUTH01, ERR01. */
export async function get(
  deps: Pick<Deps, 'database' | 'clock'>,
  self: Session,
  key: string,
): Promise<Store> {
  const { store } = await look(deps, self, key, FIND_WITH_VALUE)
  if (store === null) throw notFound()
  return store
}

/** Creates or replaces a store. When this resolves, the value survives a power cut. */
export async function put(
  deps: Deps,
  self: Session,
  key: string,
  wanted: { condition: Condition; meta: string | null; incoming: Incoming },
): Promise<Written> {
  const { condition, meta, incoming } = wanted
  let { before, room } = await mayPut(deps, self, key, condition)
  const received = await value.receive(deps, self.account, incoming, room)
  const token = unique(deps.random)
  const row = { key: toStoreKey(key, self.keySalt), token, meta, received }
  try {
    const results = await commit(
      deps.database,
      () => {
        received.upload?.checkAge()
        return [
          ...(before === null
            ? creation(deps, self, row)
            : replacement(deps, self, row, { condition, before })),
          quota.usedBy(self),
        ]
      },
      async () => {
        ;({ before, room } = await mayPut(deps, self, key, condition))
        if (received.size > room) throw quota.full()
      },
    )
    received.release()
    const used = Number(results.at(-1)?.rows[0]?.['used'])
    return { key: row.key, token, isNew: before === null, used }
  } catch (error) {
    // After an unknown outcome the row may be there, and would need its file.
    if (error instanceof SyncError && error.code === 'ERR04') received.release()
    else await received.discard()
    throw error
  }
}

/**
 * Throws AUTH01, ERR01, PERM01 or KEY01 in the protocol's order, or answers what is there, and how large
 * the value may become.
 */
async function mayPut(
  deps: Deps,
  self: Session,
  key: string,
  condition: Condition,
): Promise<{ before: Store | null; room: number }> {
  const { store, row } = await look(deps, self, key, FIND_TO_PUT)
  const room = quota.room(deps, Number(row['used'] ?? 0), store)
  if (store === null) {
    // Of a lost store the creator has no permission any more: nobody regains one by writing to its name.
    if (isStoreKey(key) || row['lost'] === 1) throw notFound()
    if (condition.kind === 'match' || condition.kind === 'any') throw changed(412)
    return { before: null, room }
  }
  if (store.permission === 'READ') throw notEnough()
  checkToken(condition, store)
  return { before: store, room }
}

function checkToken(condition: Condition, store: Store): void {
  if (condition.kind === 'none') throw changed(428, store)
  if (condition.kind === 'new') throw changed(412, store)
  if (condition.kind === 'match' && !condition.tokens.includes(store.token))
    throw changed(412, store)
}

export const notEnough = (): SyncError =>
  new SyncError('PERM01', 'Your permission on this store is not enough: ask one who OWNs it.')

function changed(status: 412 | 428, store?: Store): SyncError {
  const detail =
    status === 428
      ? 'The store exists: send the token it has, in X-Sync-Token or If-Match.'
      : 'The store is not in the state you named: read it, merge, and write with its token.'
  return new SyncError('KEY01', detail, {
    status,
    ...(store === undefined ? {} : { headers: versionHeaders(store) }),
  })
}

/** A SHA-256 as RFC 9530 writes it. */
export const toReprDigest = (digest: Uint8Array): string =>
  `sha-256=:${Buffer.from(digest).toString('base64')}:`

/** The headers that say which version of which store this is. */
export const versionHeaders = ({
  key,
  token,
  digest,
  meta,
}: Pick<Store, 'key' | 'token' | 'digest' | 'meta'>): Record<string, string> => ({
  'X-Sync-Key': key,
  'X-Sync-Token': token,
  ETag: `"${token}"`,
  'Repr-Digest': toReprDigest(digest),
  ...(meta === null ? {} : { 'X-Sync-Meta': meta }),
})

/** Deletes a store for everyone; answers the bytes that count against the caller's quota now. */
export async function remove(
  deps: Deps,
  self: Session,
  key: string,
  condition: Condition,
): Promise<{ key: string; used: number }> {
  let store = await mayRemove(deps, self, key, condition)
  const results = await commit(
    deps.database,
    () => [...removal(deps, self, { condition, before: store }), quota.usedBy(self)],
    async () => {
      store = await mayRemove(deps, self, key, condition)
    },
  )
  return { key: store.key, used: Number(results.at(-1)?.rows[0]?.['used']) }
}

async function mayRemove(
  deps: Deps,
  self: Session,
  key: string,
  condition: Condition,
): Promise<Store> {
  const { store } = await look(deps, self, key, FIND)
  if (store === null) throw notFound()
  if (store.permission !== 'OWN') throw notEnough()
  checkToken(condition, store)
  return store
}

/** All stores the account has a permission on, ordered by key, a page at a time. Throws AUTH01. */
export async function* list(
  deps: Pick<Deps, 'database' | 'clock'>,
  self: Session,
): AsyncGenerator<ListedStore[]> {
  for (let after = ''; ;) {
    const { rows } = await deps.database.execute(
      sql(
        `SELECT p.store_key, p.permission, t.store_token, t.store_meta, t.size, t.modified,
           p.permission = 'OWN' OR ${quota.isOwned('p.store_key')} AS held
         FROM account_permission p JOIN sync_store t ON t.store_key = p.store_key
         WHERE p.sync_account_id = ? AND p.store_key > ? AND ${session.ALIVE}
         ORDER BY p.store_key LIMIT ?`,
        [self.account, after, self.token, deps.clock.now(), LIST_PAGE],
      ),
    )
    // No rows: the end, or a session that ended meanwhile, whose list must not look whole.
    if (rows.length === 0) await session.check(deps, self)
    // What is left of deleted accounts is passed over here, not by SQL: however much that is, others
    // get their turn between pages.
    const held = rows.filter((row) => row['held'] === 1)
    yield held.map((row) => ({
      key: String(row['store_key']),
      permission: row['permission'] as Permission,
      token: String(row['store_token']),
      ...(row['store_meta'] === null ? {} : { meta: String(row['store_meta']) }),
      size: Number(row['size']),
      modified: Number(row['modified']),
    }))
    if (rows.length < LIST_PAGE) return
    after = String(rows.at(-1)?.['store_key'])
    await nextTurn()
  }
}
