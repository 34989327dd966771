// Owns what the nodes on one database server know of each other: that they run, and where they have large
// values. Each has a row beside the leases, which ends by itself where the node was killed.
import { hash } from 'node:crypto'
import { TimeSpan } from 'oslo'
import { sql, type Database } from './database/database.ts'
import type { Deps } from './deps.ts'
import { Refusal } from './errors.ts'

const LASTS_MS = new TimeSpan(10, 'm').milliseconds()
const RENEWED_MS = new TimeSpan(1, 'm').milliseconds()
const ALL = 'lease-node-*'

export interface Peers {
  /** Those that run must not take it for one of them any more. */
  leave(): Promise<void>
}

/**
 * From now on the others know of this node, whose start has this number. Throws Refusal where they have
 * their values elsewhere: before there is any, no bucket tells that.
 */
export async function join(
  { clock, config, database }: Pick<Deps, 'clock' | 'config' | 'database'>,
  start: number,
): Promise<Peers> {
  const { bucket = '', prefix = '' } = config.blobUrl ?? {}
  // Nodes may come to it by different addresses.
  const place = `lease-node-${hash('sha256', `${bucket}/${prefix}`).slice(0, 16)}`
  const id = `${place}-${start}`
  const { rowsAffected } = await database.execute(
    sql(
      `INSERT INTO hold (id, until) SELECT ?1, ?2
       WHERE NOT EXISTS (SELECT 1 FROM hold WHERE id GLOB '${ALL}' AND id NOT GLOB ?3 AND until > ?4)`,
      [id, clock.now() + LASTS_MS, `${place}-*`, clock.now()],
    ),
  )
  if (rowsAffected === 0) {
    throw new Refusal(
      'A node that runs on this database has its values elsewhere: BLOB_URL is the same for all (a killed node counts for 10 minutes).',
    )
  }
  const renew = (): Promise<unknown> =>
    database.execute(
      sql('INSERT OR REPLACE INTO hold (id, until) VALUES (?, ?)', [id, clock.now() + LASTS_MS]),
    )
  let renewing: Promise<unknown> = Promise.resolve()
  const timer = setInterval(() => {
    // Of a database that is away, others tell.
    renewing = renew().catch(() => undefined)
  }, RENEWED_MS)
  timer.unref()
  return {
    async leave() {
      clearInterval(timer)
      await renewing
      await database.execute(sql('DELETE FROM hold WHERE id = ?', [id])).catch(() => undefined)
    },
  }
}

/** Whether any runs. */
export async function areThere(database: Database, now: number): Promise<boolean> {
  const { rows } = await database.execute(
    sql(`SELECT 1 FROM hold WHERE id GLOB '${ALL}' AND until > ? LIMIT 1`, [now]),
  )
  return rows.length > 0
}
