// Owns the way back from an upgrade: the copy of the database from before, what would be lost by
// returning to it, and the return.
import { existsSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { TimeSpan } from 'oslo'
import * as copies from './copies.ts'
import { lock as takeLock } from './database/lock.ts'
import { connect } from './database/sqlite.ts'
import { replace } from './database/replace.ts'
import type { Deps } from './deps.ts'
import { Refusal } from './errors.ts'
import { syncFolder } from './folder.ts'
import { DATABASE } from './manifest.ts'

const KEPT_MS = new TimeSpan(7, 'd').milliseconds()
const BUSY_TIMEOUT_MS = 5000

/** Keeps the database as it is before it goes to `schema`, and the files it names. Throws Refusal. */
export async function keepCopy(
  deps: Pick<Deps, 'clock' | 'config' | 'database' | 'space'>,
  schema: number,
): Promise<void> {
  const { root } = deps.config
  const id = copies.upgradeHold(schema)
  await copies.checkRoom(deps)
  await copies.hold(deps, id, KEPT_MS)
  const kept = copies.pathOf(root, id)
  const unfinished = `${kept}.new`
  await rm(unfinished, { force: true })
  try {
    await copies.work({ name: 'copy', from: join(root, DATABASE), to: unfinished })
    await syncFile(unfinished)
    await rename(unfinished, kept)
    await syncFolder(root)
  } catch (error) {
    await rm(unfinished, { force: true })
    throw error
  }
}

async function syncFile(name: string): Promise<void> {
  const file = await open(name, 'r')
  await file.sync()
  await file.close()
}

export interface WayBack {
  /** When the copy was made, in ms since the epoch. */
  since: number
  /** That served the data until then; null when it did not say. */
  version: string | null
  lost: { written: number; created: number; deleted: number; accounts: number }
  /** Goes back; when it resolves, that survives a power cut. */
  go(): Promise<void>
  close(): void
}

/** The way back from the last upgrade, for a server that does not run. Throws Refusal. */
export async function openWayBack(root: string): Promise<WayBack> {
  const path = join(root, DATABASE)
  if (!existsSync(path)) throw new Refusal(`${root} holds no data.`)
  const lock = takeLock(root)
  if (lock === 'taken') throw new Refusal(`${root} is in use: stop the server first.`)
  try {
    const { schema, start, newest } = readNode(path)
    const id = copies.upgradeHold(schema)
    const copy = copies.pathOf(root, id)
    if (!existsSync(copy)) {
      throw new Refusal('There is no copy from before an upgrade: one is kept for 7 days after it.')
    }
    const found = await copies.work({ name: 'inspect', at: copy })
    if (found === null || found.problems.length > 0) {
      throw new Refusal('The copy from before the upgrade is damaged: restore a backup.')
    }
    return {
      ...compare(path, copy, id),
      async go() {
        const { database } = connect(copy, { writes: false, busyTimeoutMs: 0 })
        database.exec('PRAGMA query_only = OFF')
        database
          .prepare('UPDATE node SET start = max(start, ?), newest = max(newest, ?)')
          .run(start, newest)
        database.close()
        await replace(path, copy)
        // The hold says when the copy was made, so it goes with it: by housekeeping, where this ends here.
        await rm(copy)
        endHold(path, id)
        await syncFolder(root)
      },
      close: () => lock.close(),
    }
  } catch (error) {
    lock.close()
    throw error
  }
}

function endHold(path: string, id: string): void {
  const { database } = connect(path, { writes: false, busyTimeoutMs: BUSY_TIMEOUT_MS })
  database.exec('PRAGMA query_only = OFF')
  database.prepare('DELETE FROM hold WHERE id = ?').run(id)
  database.close()
}

function readNode(path: string): { schema: number; start: number; newest: number } {
  const { database, prepare } = connect(path, { writes: false, busyTimeoutMs: BUSY_TIMEOUT_MS })
  try {
    const row = prepare('SELECT schema, start, newest FROM node').get()
    return {
      schema: Number(row?.['schema']),
      start: Number(row?.['start']),
      newest: Number(row?.['newest']),
    }
  } finally {
    database.close()
  }
}

const LOST = `SELECT
  (SELECT count(*) FROM main.sync_store n JOIN before.sync_store b USING (store_key)
    WHERE n.store_token <> b.store_token) AS written,
  (SELECT count(*) FROM main.sync_store
    WHERE store_key NOT IN (SELECT store_key FROM before.sync_store)) AS created,
  (SELECT count(*) FROM before.sync_store
    WHERE store_key NOT IN (SELECT store_key FROM main.sync_store)) AS deleted,
  (SELECT count(*) FROM main.sync_account
    WHERE dead = 0 AND number NOT IN (SELECT number FROM before.sync_account)) AS accounts,
  (SELECT until FROM before.hold WHERE id = ?) AS until`

function compare(
  path: string,
  copy: string,
  hold: string,
): Pick<WayBack, 'since' | 'version' | 'lost'> {
  const { database, prepare } = connect(path, { writes: false, busyTimeoutMs: BUSY_TIMEOUT_MS })
  try {
    prepare('ATTACH ? AS before').run(copy)
    const row = prepare(LOST).get(hold) ?? {}
    const count = (name: string): number => Number(row[name])
    // It came with schema 3.
    const isKnown = prepare(
      `SELECT 1 FROM pragma_table_info('node', 'before') WHERE name = 'version'`,
    )
    const version = isKnown.get() && prepare('SELECT version FROM before.node').get()?.['version']
    return {
      since: count('until') - KEPT_MS,
      version: typeof version === 'string' ? version : null,
      lost: {
        written: count('written'),
        created: count('created'),
        deleted: count('deleted'),
        accounts: count('accounts'),
      },
    }
  } finally {
    database.close()
  }
}
