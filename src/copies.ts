// Owns copies of the database that stand beside it. Each has a hold, under whose id it is named, and
// goes with it: whatever became of the process that made it, the next minute finds what is left over.
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from './database/database.ts'
import type { CopyJob, CopyMessage, Inspection } from './database/copy.ts'
import type { Deps } from './deps.ts'
import { Refusal } from './errors.ts'
import { startWorker } from './packed.ts'

const OF_UPGRADE = 'before-schema-'
const NAME = /^(backup-[0-9a-v]{26}|before-schema-\d+)\.db(?:-journal|\.new)?$/

/** The hold of the copy that an upgrade to this schema leaves. */
export const upgradeHold = (schema: number): string => OF_UPGRADE + String(schema)

export const pathOf = (root: string, hold: string): string => join(root, `${hold}.db`)

type HoldDeps = Pick<Deps, 'clock' | 'database'>

/** From here on no superseded file is removed. */
export async function hold({ clock, database }: HoldDeps, id: string, ms: number): Promise<void> {
  await database.execute(
    sql('INSERT OR REPLACE INTO hold (id, until) VALUES (?, ?)', [id, clock.now() + ms]),
  )
}

/** False when it had lapsed: then files may be gone. */
export async function renew(
  { clock, database }: HoldDeps,
  id: string,
  ms: number,
): Promise<boolean> {
  const now = clock.now()
  const { rowsAffected } = await database.execute(
    sql('UPDATE hold SET until = ? WHERE id = ? AND until > ?', [now + ms, id, now]),
  )
  return rowsAffected === 1
}

/** False when it had lapsed: then files may be gone. */
export async function release({ clock, database }: HoldDeps, id: string): Promise<boolean> {
  const { rowsAffected } = await database.execute(
    sql('DELETE FROM hold WHERE id = ? AND until > ?', [id, clock.now()]),
  )
  return rowsAffected === 1
}

/** Does it on a thread of its own; one that nobody waits for any more holds up the process's end. */
export async function work(job: CopyJob, signal?: AbortSignal): Promise<Inspection | null> {
  signal?.throwIfAborted()
  const worker = startWorker('copy', job)
  const { promise, resolve, reject } = Promise.withResolvers<CopyMessage>()
  const stop = (): void => {
    worker.unref()
    reject(signal?.reason as Error)
  }
  signal?.addEventListener('abort', stop)
  worker.once('message', resolve)
  worker.once('error', reject)
  try {
    const message = await promise
    if ('failed' in message) throw new Refusal(`The database cannot be copied: ${message.failed}.`)
    return message.found
  } finally {
    signal?.removeEventListener('abort', stop)
  }
}

type CleanDeps = Pick<Deps, 'config' | 'database'>

/** Throws Refusal when the copy of the database might not leave the room that the server needs. */
export async function checkRoom({ database, space }: Pick<Deps, 'database' | 'space'>) {
  const { rows } = await database.execute(
    `SELECT (page_count - freelist_count) * page_size AS bytes
     FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
  )
  const missing = Number(rows[0]?.['bytes']) - space.room()
  if (missing <= 0) return
  throw new Refusal(
    `There is no room on the disk for a copy of the database: ${Math.ceil(missing / 2 ** 20)} MiB more are needed.`,
  )
}

/** Removes the copies whose hold has ended, and the hold of one that its operator has removed. */
export async function clean({ config, database }: CleanDeps): Promise<void> {
  // The hold is there before its copy, so the folder is looked at first.
  const names = (await readdir(config.root)).filter((name) => NAME.test(name))
  const { rows } = await database.execute('SELECT id FROM hold')
  const held = new Set(rows.map((row) => String(row['id'])))
  for (const name of names) {
    if (!held.has(NAME.exec(name)?.[1] ?? '')) await rm(join(config.root, name), { force: true })
  }
  for (const id of held) {
    if (!id.startsWith(OF_UPGRADE) || names.includes(`${id}.db`)) continue
    await database.execute(sql('DELETE FROM hold WHERE id = ?', [id]))
  }
}
