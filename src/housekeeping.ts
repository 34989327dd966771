// Owns what is done in the background, a little at a time: what expired, what was superseded, what a
// deleted account left. No transaction of it touches more than 1,000 rows.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { TimeSpan } from 'oslo'
import { Away } from './blobs/calls.ts'
import * as copies from './copies.ts'
import { sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import * as lease from './lease.ts'
import { isOwned } from './quota.ts'

const SLICE = 500
const TOMBSTONE_MS = new TimeSpan(180, 'd').milliseconds()
const VACUUM_PAGES = 500
const COLLECT_MS = new TimeSpan(10, 'm').milliseconds()
const SWEEP_MS = new TimeSpan(24, 'h').milliseconds()

type HousekeepingDeps = Pick<Deps, 'blobs' | 'clock' | 'config' | 'database' | 'log' | 'space'>

export interface Housekeeping {
  /** Does all that is due, as it is done each minute; does not start twice at once. */
  run(): Promise<void>
  /** Removes what deleted accounts left, which is how others hear of it; where there is none it costs nothing. */
  bury(): Promise<void>
  /** Resolves when a running round has come to its next pause. */
  stop(): Promise<void>
}

export function housekeeping(deps: HousekeepingDeps): Housekeeping {
  let isStopped = false
  let running: Promise<void> | undefined
  let burial: Promise<void> | undefined
  const isDue = (): boolean => !isStopped

  const bury = (): Promise<void> => {
    burial ??= buryDead(deps, isDue).finally(() => {
      burial = undefined
    })
    return burial
  }

  async function round(): Promise<void> {
    try {
      const isFile = deps.config.database === null
      for (const expired of EXPIRED) await inSlices(deps, expired, isDue)
      if (isFile) await copies.clean(deps)
      await forgetTombstones(deps, isDue)
      await bury()
      if (!deps.blobs.isShared) await tidy(deps, isDue)
      if (isFile) await giveSpaceBack(deps, isDue)
      await deps.space.keepReserve()
      if (deps.space.isLow()) deps.log.warn('the disk is nearly full: values are refused')
      // Last, as a bucket may be away.
      if (deps.blobs.isShared) await tidyShared(deps, isDue)
    } catch (error) {
      // Of a bucket that is away, the log tells once.
      if (error instanceof Away) return
      deps.log.warn({ err: error }, 'housekeeping had to stop; it goes on in a minute')
    } finally {
      await keepTime(deps).catch(() => undefined) // a disk that refuses was told of above
    }
  }

  return {
    run() {
      running ??= round().finally(() => {
        running = undefined
      })
      return running
    },
    // A disk that refuses is told of by the round.
    bury: () => bury().catch(() => undefined),
    async stop() {
      isStopped = true
      await Promise.allSettled([running, burial])
    },
  }
}

/**
 * Writes down the newest time that is believed, so that a clock set back is noticed. Last in a round:
 * what was superseded since the one before bears that one's time, and has its grace from now on.
 */
async function keepTime({ database, clock }: HousekeepingDeps): Promise<void> {
  await database.execute(sql('UPDATE node SET newest = max(newest, ?)', [clock.now()]))
}

const EXPIRED = [
  `DELETE FROM sync_session WHERE token IN (
     SELECT token FROM sync_session WHERE expiration <= ? LIMIT ${SLICE})`,
  `DELETE FROM password_reset_token WHERE id IN (
     SELECT id FROM password_reset_token WHERE expiration <= ? LIMIT ${SLICE})`,
  `DELETE FROM invitation WHERE token IN (
     SELECT token FROM invitation WHERE expiration <= ? LIMIT ${SLICE})`,
  `DELETE FROM hold WHERE id IN (SELECT id FROM hold WHERE until <= ? LIMIT ${SLICE})`,
]

async function inSlices(
  { database, clock }: HousekeepingDeps,
  statement: string,
  isDue: () => boolean,
): Promise<void> {
  while (isDue()) {
    const { rowsAffected } = await database.execute(sql(statement, [clock.now()]))
    if (rowsAffected < SLICE) return
  }
}

/** Tombstones go after 180 days; the account remembers up to where, for its older cursors. */
async function forgetTombstones(
  { database, clock }: HousekeepingDeps,
  isDue: () => boolean,
): Promise<void> {
  const oldest = `SELECT sync_account_id, store_key, change_seq FROM tombstone WHERE since <= ?
    ORDER BY since, sync_account_id, store_key LIMIT ${SLICE}`
  while (isDue()) {
    const before = clock.now() - TOMBSTONE_MS
    const results = await database.batch(
      [
        sql(
          `UPDATE sync_account SET forgotten_seq = max(forgotten_seq, o.seq)
           FROM (SELECT sync_account_id, max(change_seq) AS seq FROM (${oldest}) GROUP BY 1) o
           WHERE number = o.sync_account_id`,
          [before],
        ),
        sql(
          `DELETE FROM tombstone WHERE (sync_account_id, store_key) IN (
             SELECT sync_account_id, store_key FROM (${oldest}))`,
          [before],
        ),
      ],
      'write',
    )
    if ((results[1]?.rowsAffected ?? 0) < SLICE) return
  }
}

/** Removes what deleted accounts left: others' permissions on their stores, the stores, themselves. */
async function buryDead({ database }: HousekeepingDeps, isDue: () => boolean): Promise<void> {
  const dead = await database.execute(sql('SELECT number FROM sync_account WHERE dead = 1'))
  for (const row of dead.rows) {
    const number = Number(row['number'])
    await takeFromOthers(database, number, isDue)
    while (isDue() && !(await burySlice(database, number)));
  }
}

/** First what others see, so that they soon hear of it, however much there is besides. */
async function takeFromOthers(
  database: Deps['database'],
  number: number,
  isDue: () => boolean,
): Promise<void> {
  for (let after = ''; isDue();) {
    const { rows } = await database.execute(
      sql(
        `SELECT s.store_key, EXISTS (SELECT 1 FROM account_permission o
             WHERE o.store_key = s.store_key AND o.sync_account_id <> s.sync_account_id)
           AND NOT ${isOwned('s.store_key')} AS taken
         FROM account_permission s WHERE s.sync_account_id = ? AND s.store_key > ?
         ORDER BY s.store_key LIMIT ${SLICE}`,
        [number, after],
      ),
    )
    if (rows.length === 0) return
    after = String(rows.at(-1)?.['store_key'])
    const taken = rows.filter((row) => row['taken'] === 1)
    const keys = JSON.stringify(taken.map((row) => row['store_key']))
    while (isDue() && taken.length > 0 && (await revokeSlice(database, number, keys)) > 0);
    await nextTurn()
  }
}

/** Answers how many. Asks with each whether the store is dead: whoever had its name first may use it again. */
async function revokeSlice(
  database: Deps['database'],
  number: number,
  keys: string,
): Promise<number> {
  return write(
    database,
    sql(
      `DELETE FROM account_permission WHERE (sync_account_id, store_key) IN (
         SELECT p.sync_account_id, p.store_key FROM account_permission p
         WHERE p.store_key IN (SELECT value FROM json_each(?1)) AND p.sync_account_id <> ?2
           AND NOT ${isOwned('p.store_key')}
         LIMIT 150)`,
      [keys, number],
    ),
  )
}

/** Answers how many rows the first has changed. */
async function write(database: Deps['database'], ...statements: Statement[]): Promise<number> {
  const results = await database.batch(statements, 'write')
  return results[0]?.rowsAffected ?? 0
}

async function burySlice(database: Deps['database'], number: number): Promise<boolean> {
  const { rows } = await database.execute(
    sql(
      // Of its stores, those that no living account OWNs: nobody sees them any more, or ever will.
      `SELECT s.store_key, NOT ${isOwned('s.store_key')} AS dead
       FROM account_permission s WHERE s.sync_account_id = ? ORDER BY s.store_key LIMIT 50`,
      [number],
    ),
  )
  if (rows.length > 0) {
    const keys = JSON.stringify(rows.map((row) => row['store_key']))
    const dead = JSON.stringify(
      rows.filter((row) => row['dead'] === 1).map((row) => row['store_key']),
    )
    if ((await revokeSlice(database, number, dead)) > 0) return false
    await write(
      database,
      sql(
        `DELETE FROM sync_store WHERE store_key IN (SELECT value FROM json_each(?))
           AND NOT ${isOwned('sync_store.store_key')}`,
        [dead],
      ),
      sql(
        `DELETE FROM account_permission
         WHERE sync_account_id = ? AND store_key IN (SELECT value FROM json_each(?))`,
        [number, keys],
      ),
    )
    return false
  }
  for (const statement of [
    `DELETE FROM tombstone WHERE sync_account_id = ?1 AND store_key IN (
       SELECT store_key FROM tombstone WHERE sync_account_id = ?1 LIMIT ${SLICE})`,
    `DELETE FROM account_grant WHERE (sync_account_id, grantee) IN (
       SELECT sync_account_id, grantee FROM account_grant
       WHERE sync_account_id = ?1 OR grantee = ?1 LIMIT ${SLICE})`,
  ]) {
    if ((await write(database, sql(statement, [number]))) > 0) return false
  }
  await write(database, sql('DELETE FROM sync_account WHERE number = ? AND dead = 1', [number]))
  return true
}

/** What is in this server's own folder. */
async function tidy(deps: HousekeepingDeps, isDue: () => boolean): Promise<void> {
  await collectGarbage(deps, isDue)
  await deps.blobs.tidy(deps.clock.now())
}

/** The same where other nodes do it too: one at a time, and once a day what takes long lists. */
async function tidyShared(deps: HousekeepingDeps, isDue: () => boolean): Promise<void> {
  const { blobs, clock, log } = deps
  const until = await lease.take(deps, 'garbage', COLLECT_MS)
  if (until !== null) {
    try {
      await collectGarbage(deps, () => isDue() && clock.now() < until)
    } finally {
      await lease.release(deps, 'garbage', until)
    }
  }
  const next = await lease.take(deps, 'sweep', SWEEP_MS)
  if (next === null) return
  try {
    const removed = await sweep(deps)
    if (removed > 0) log.warn({ removed }, 'values that no store names left the bucket')
    await blobs.tidy(clock.now())
  } catch (error) {
    await lease.release(deps, 'sweep', next) // else it is not given back: it ends when the next is due
    throw error
  }
}

/**
 * Removes superseded files once nobody can be about to open them, and no copy of the database needs
 * them. A hold that has run out still counts: its copy goes first, in the next round.
 */
async function collectGarbage(
  { blobs, database }: HousekeepingDeps,
  isDue: () => boolean,
): Promise<void> {
  while (isDue()) {
    const { rows } = await database.execute(
      sql(
        `SELECT store_file FROM blob_garbage
         WHERE since <= (SELECT newest FROM node) - ?
           AND NOT EXISTS (SELECT 1 FROM hold WHERE NOT ${lease.LEASES}) LIMIT ${SLICE}`,
        [blobs.graceMs],
      ),
    )
    const files = rows.map((row) => String(row['store_file']))
    if (files.length > 0) {
      await blobs.remove(files)
      await database.execute(
        sql('DELETE FROM blob_garbage WHERE store_file IN (SELECT value FROM json_each(?))', [
          JSON.stringify(files),
        ]),
      )
    }
    if (files.length < SLICE) return
  }
}

/** Gives pages that deletions freed back to the file system. */
async function giveSpaceBack({ database }: HousekeepingDeps, isDue: () => boolean): Promise<void> {
  while (isDue()) {
    const { rows } = await database.execute('PRAGMA freelist_count')
    // Some are kept: the next writes need pages again.
    if (Number(rows[0]?.['freelist_count']) < 4 * VACUUM_PAGES) return
    await database.batch([sql(`PRAGMA incremental_vacuum(${VACUUM_PAGES})`)], 'write')
  }
}

/** Sets aside what others have written and no row names: their writer died before its commit. */
export async function sweep(deps: HousekeepingDeps): Promise<number> {
  let moved = 0
  for await (const file of unnamed(deps)) {
    if (await deps.blobs.setAside(file, deps.clock.now())) moved++
  }
  return moved
}

/** The same at a start, which alone uses its folder; in a bucket it has its time. */
export async function sweepAtStart(deps: HousekeepingDeps): Promise<void> {
  if (deps.blobs.isShared) return
  try {
    const moved = await sweep(deps)
    if (moved === 0) return
    deps.log.warn({ files: moved }, 'unfinished uploads of an earlier run went to trash/')
  } catch (error) {
    deps.log.warn({ err: error }, 'unfinished uploads stay where they are')
  }
}

/** What others have written that no row names. */
export async function* unnamed({
  blobs,
  database,
}: Pick<Deps, 'blobs' | 'database'>): AsyncGenerator<string> {
  for await (const slice of inSlicesOf(blobs.listEarlier())) {
    const { rows } = await database.execute(
      sql(
        `SELECT f.value AS file FROM json_each(?) f
         WHERE NOT EXISTS (SELECT 1 FROM sync_store WHERE store_file = f.value)
           AND NOT EXISTS (SELECT 1 FROM blob_garbage WHERE store_file = f.value)`,
        [JSON.stringify(slice)],
      ),
    )
    for (const { file } of rows) yield String(file)
  }
}

async function* inSlicesOf(pages: AsyncIterable<string[]>): AsyncGenerator<string[]> {
  for await (const page of pages) {
    for (let i = 0; i < page.length; i += SLICE) yield page.slice(i, i + SLICE)
  }
}
