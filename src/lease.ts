// Owns leases: work that one node does at a time, however many share a database. Each is a row beside the
// holds, which keeps nothing.
import { sql } from './database/database.ts'
import type { Deps } from './deps.ts'

/** Tells the holds that are none: see LEASES in a condition. */
export const LEASES = `id GLOB 'lease-*'`

/** Until when it is this node's, or null while it is another's. */
export async function take(
  { clock, database }: Pick<Deps, 'clock' | 'database'>,
  work: string,
  ms: number,
): Promise<number | null> {
  const until = clock.now() + ms
  const { rowsAffected } = await database.execute(
    sql(
      `INSERT INTO hold (id, until) VALUES (?1, ?2)
       ON CONFLICT (id) DO UPDATE SET until = ?2 WHERE until <= ?3`,
      [`lease-${work}`, until, clock.now()],
    ),
  )
  return rowsAffected === 1 ? until : null
}

/** Gives back what `take` answered; not one that has gone to another since. */
export async function release(
  { database }: Pick<Deps, 'database'>,
  work: string,
  until: number,
): Promise<void> {
  await database.execute(
    sql('DELETE FROM hold WHERE id = ? AND until = ?', [`lease-${work}`, until]),
  )
}
