// Owns permissions: who may read, write or own a store, granted and revoked by those who OWN it.
import { TimeSpan } from 'oslo'
import { commit, require, requireChanges, sql } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError, malformed } from './errors.ts'
import { resolveHandle } from './handle.ts'
import type { Limit } from './limit.ts'
import { isOwned } from './quota.ts'
import type { Session } from './session.ts'
import * as store from './store.ts'
import type { Permission, Store } from './store.ts'

export interface Grant {
  /** An account id or a handle. */
  user: string
  permission: Permission
}

export interface Member {
  user: string
  permission: Permission
  current: boolean
}

const MAX_MEMBERS = 1000
const NEW_ACQUAINTANCES: Limit = {
  name: 'new acquaintance',
  count: 30,
  windowMs: new TimeSpan(1, 'h').milliseconds(),
}

// Guards a batch: (session token, now, store key) has a permission on the store.
const holds = (which: string): string => `EXISTS (
  SELECT 1 FROM sync_session s JOIN held_permission p ON p.sync_account_id = s.id
  WHERE s.token = ? AND s.expiration > ? AND p.store_key = ? ${which})`
const HOLDS = holds('')
const OWNS = holds(`AND p.permission = 'OWN'`)

// Guards a batch: somebody alive still OWNs the store.
const IS_OWNED = isOwned('?')

// Guards a batch: (grants as JSON, store key, quota) nobody would OWN more than fits. Else two accounts
// could store without end: one writes, hands over, and leaves.
const HAS_ROOM = `NOT EXISTS (
  SELECT 1 FROM json_each(?1) g JOIN sync_account a ON a.id = g.value ->> 'user'
  JOIN sync_store t ON t.store_key = ?2
  WHERE g.value ->> 'permission' = 'OWN' AND t.size > 0 AND a.used + t.size > ?3
  AND NOT EXISTS (
    SELECT 1 FROM account_permission p
    WHERE p.sync_account_id = a.number AND p.store_key = ?2 AND p.permission = 'OWN'))`

const MEMBERS = `account_permission p JOIN sync_account a ON a.number = p.sync_account_id
  WHERE p.store_key = ? AND a.dead = 0`

/** Everyone with a permission on the store. Throws AUTH01, ERR01. */
export async function list(deps: Deps, self: Session, key: string): Promise<Member[]> {
  const found = await store.get(deps, self, key)
  const { rows } = await deps.database.execute(
    sql(`SELECT a.id, a.number, p.permission FROM ${MEMBERS} ORDER BY a.id`, [found.key]),
  )
  return rows.map((row) => ({
    user: String(row['id']),
    permission: row['permission'] as Permission,
    current: row['number'] === self.account,
  }))
}

/**
 * Adds or changes those named, all or nothing; answers them with their handles, in the order given.
 * Throws AUTH01, ERR01, PERM01, PERM02, REQ01, RATE01, SIZE01, SIZE02, SIZE03.
 */
export async function put(
  deps: Deps,
  self: Session,
  key: string,
  grants: Grant[],
): Promise<{ user: string; permission: Permission }[]> {
  const { database, clock } = deps
  const found = await owned(deps, self, key)
  const wanted = grants.map(({ user, permission }) => ({
    user: resolveHandle(deps, user),
    permission,
  }))
  const handles = new Set(wanted.map(({ user }) => user))
  if (handles.size < wanted.length) throw malformed('A user is named once.')
  deps.space.check(0)
  await greet(deps, self, [...handles])
  const json = JSON.stringify(wanted)
  const room = [json, found.key, deps.config.quota ?? Number.MAX_SAFE_INTEGER]
  await commit(
    database,
    () => [
      require(OWNS, [self.token, clock.now(), found.key]),
      require(HAS_ROOM, room),
      sql(
        `INSERT INTO account_permission (sync_account_id, store_key, permission)
         SELECT a.number, ?2, g.value ->> 'permission'
         FROM json_each(?1) g JOIN sync_account a ON a.id = g.value ->> 'user'
         WHERE a.dead = 0 ORDER BY g.key
         ON CONFLICT DO UPDATE SET permission = excluded.permission`,
        [json, found.key],
      ),
      requireChanges(wanted.length),
      require(IS_OWNED, [found.key]),
      require(`SELECT count(*) <= ${MAX_MEMBERS} FROM ${MEMBERS}`, [found.key]),
      sql(
        `INSERT OR IGNORE INTO account_grant (sync_account_id, grantee)
         SELECT ?1, a.number FROM json_each(?2) g JOIN sync_account a ON a.id = g.value ->> 'user'`,
        [self.account, json],
      ),
    ],
    async () => {
      await owned(deps, self, key)
      await greet(deps, self, [...handles], 0)
      await explainMembers(deps, found, wanted)
      const { rows } = await database.execute(sql(`SELECT ${HAS_ROOM} AS fits`, room))
      if (rows[0]?.['fits'] === 0) throw crowded()
    },
  )
  return wanted
}

/** The store, if this account OWNs it. Throws AUTH01, ERR01, PERM01. */
async function owned(deps: Deps, self: Session, key: string): Promise<Store> {
  const found = await store.get(deps, self, key)
  if (found.permission !== 'OWN') throw store.notEnough()
  return found
}

/**
 * Throws ERR01 unless all are accounts. Those that this account has never granted to are rationed,
 * known or not alike: otherwise grants would tell who is registered.
 */
async function greet(
  { database, limiter }: Deps,
  self: Session,
  handles: string[],
  cost = 1,
): Promise<void> {
  const { rows } = await database.execute(
    sql(
      `SELECT a.id, a.number = ?1 OR g.grantee IS NOT NULL AS known
       FROM json_each(?2) h JOIN sync_account a ON a.id = h.value AND a.dead = 0
       LEFT JOIN account_grant g ON g.sync_account_id = ?1 AND g.grantee = a.number`,
      [self.account, JSON.stringify(handles)],
    ),
  )
  const known = rows.filter((row) => row['known'] === 1).length
  limiter.take(NEW_ACQUAINTANCES, String(self.account), (handles.length - known) * cost)
  if (rows.length < handles.length) throw unknownUser()
}

const unknownUser = (): SyncError =>
  new SyncError('ERR01', 'One of the users is not known here: ask for their handle.')

async function explainMembers(
  { database }: Deps,
  found: Store,
  wanted: { user: string; permission: Permission }[],
): Promise<void> {
  const { rows } = await database.execute(
    sql(`SELECT a.id, p.permission FROM ${MEMBERS}`, [found.key]),
  )
  const after = new Map(rows.map((row) => [String(row['id']), String(row['permission'])]))
  // Without any OWN it was deleted a moment ago: the next attempt finds that.
  if (![...after.values()].includes('OWN')) return
  for (const { user, permission } of wanted) after.set(user, permission)
  if (![...after.values()].includes('OWN')) throw ownerless()
  if (after.size > MAX_MEMBERS) {
    throw new SyncError('SIZE01', `A store has at most ${MAX_MEMBERS} members.`)
  }
}

const crowded = (): SyncError =>
  new SyncError('SIZE02', 'It does not fit into the quota of one of those who would OWN it.')

const ownerless = (): SyncError =>
  new SyncError('PERM02', 'A store needs an OWN: give that to somebody else first, or delete it.')

/**
 * Takes the permission of those named; an account may always name itself alone. Users without one
 * are ignored. Throws AUTH01, ERR01, PERM01, PERM02.
 */
export async function remove(
  deps: Deps,
  self: Session,
  key: string,
  users: string[],
): Promise<void> {
  const { database, clock } = deps
  const found = await store.get(deps, self, key)
  const handles = JSON.stringify(users.map((user) => resolveHandle(deps, user)))
  const isLeaving = await isOnlySelf(deps, self, handles)
  if (found.permission !== 'OWN' && !isLeaving) throw store.notEnough()
  await commit(
    database,
    () => [
      require(isLeaving ? HOLDS : OWNS, [self.token, clock.now(), found.key]),
      sql(
        `DELETE FROM account_permission WHERE store_key = ? AND sync_account_id IN (
           SELECT a.number FROM json_each(?) h JOIN sync_account a ON a.id = h.value)`,
        [found.key, handles],
      ),
      require(IS_OWNED, [found.key]),
    ],
    async () => {
      const now = await store.get(deps, self, key)
      if (now.permission !== 'OWN' && !isLeaving) throw store.notEnough()
      const { rows } = await database.execute(
        sql(
          `SELECT a.id IN (SELECT value FROM json_each(?)) AS leaves
           FROM ${MEMBERS} AND p.permission = 'OWN' ORDER BY 1 LIMIT 1`,
          [handles, found.key],
        ),
      )
      // Without any it was deleted a moment ago: the next attempt finds that.
      if (rows[0]?.['leaves'] === 1) throw ownerless()
    },
  )
}

async function isOnlySelf({ database }: Deps, self: Session, handles: string): Promise<boolean> {
  const { rows } = await database.execute(
    sql(
      `SELECT count(*) AS others FROM json_each(?) h
       WHERE h.value <> (SELECT id FROM sync_account WHERE number = ?)`,
      [handles, self.account],
    ),
  )
  return rows[0]?.['others'] === 0
}
