// Owns hearing what other nodes write to the same database server: each node asks, a few times a second,
// however many wait on it.
import { sql, type Database } from './database.ts'
import type { History } from './history.ts'

const LOOK_MS = 400
const MOST_TOUCHED = 5000

/**
 * What a database server has beyond the schema: whom the writes of all nodes concern. (On a file the
 * writer's temporary triggers note that: see writer.ts.)
 */
export const FOLLOWED = [
  `CREATE TABLE IF NOT EXISTS touched (
     id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL UNIQUE) STRICT`,
  ...[
    ['permission', 'UPDATE OF change_seq ON account_permission', 'NEW.sync_account_id'],
    ['tombstone', 'INSERT ON tombstone', 'NEW.sync_account_id'],
    ['session', 'DELETE ON sync_session', 'OLD.id'],
  ].map(
    ([name, event, account]) =>
      `CREATE TRIGGER IF NOT EXISTS touched_${name} AFTER ${event}
       BEGIN
         DELETE FROM touched WHERE account = ${account};
         INSERT INTO touched (account) VALUES (${account});
       END`,
  ),
].map((text) => sql(text))

const LOOK = `
  SELECT node.seq, (SELECT seq FROM sqlite_sequence WHERE name = 'touched') AS last, t.account
  FROM node LEFT JOIN touched t ON t.id > ? ORDER BY t.id LIMIT ${MOST_TOUCHED + 1}`

interface Telling {
  onWarning: (reason: string) => void
  /** What these accounts can see has changed; `null`: perhaps anybody's. */
  onChange: (accounts: number[] | null) => void
}

export function follow(client: Database, history: History, { onChange, onWarning }: Telling) {
  let last = 0
  let isDown = false
  let isStopped = false
  let looking: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined

  /** Whom it concerns that something was written meanwhile; null: perhaps anybody. */
  async function look(after = last): Promise<number[] | null> {
    const { rows } = await client.execute(sql(LOOK, [after]))
    last = Number(rows[0]?.['last'] ?? 0)
    await history.saw(Number(rows[0]?.['seq']))
    // Below where it was: what was written since it went back has numbers that were seen.
    if (last < after || rows.length > MOST_TOUCHED) return null
    return rows.flatMap(({ account }) => (account === null ? [] : [Number(account)]))
  }

  async function round(): Promise<void> {
    if (isStopped) return
    try {
      await history.sure()
      const accounts = await look()
      if (accounts?.length !== 0) onChange(accounts)
      if (isDown) onWarning('the database answers again')
      isDown = false
    } catch (error) {
      history.doubt()
      if (!isDown && !isStopped) {
        onWarning(`the database does not answer: ${(error as Error).message}`)
      }
      isDown = true
    }
  }

  return {
    /** From now on: what was before is nobody's news. */
    async begin(): Promise<void> {
      await look(Number.MAX_SAFE_INTEGER)
      timer = setInterval(() => {
        looking ??= round().finally(() => {
          looking = undefined
        })
      }, LOOK_MS)
      // The server that it is for keeps the process up.
      timer.unref()
    },
    stop(): void {
      isStopped = true
      clearInterval(timer)
    },
  }
}
