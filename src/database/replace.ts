// Owns putting a copy in the place of a database: through SQLite and in one transaction, so that
// whoever has it open, and whatever crash comes, finds the one or the other.
import { setTimeout as pause } from 'node:timers/promises'
import { backup } from 'node:sqlite'
import { checkpoint, connect } from './sqlite.ts'

const BUSY_TIMEOUT_MS = 5000
const PAGES_AT_ONCE = 10_000
const ATTEMPTS = 5
const PAUSE_MS = 1000

/** When it resolves, the database is what `copy` is, and survives a power cut. */
export async function replace(path: string, copy: string): Promise<void> {
  const source = connect(copy, { writes: false, busyTimeoutMs: BUSY_TIMEOUT_MS })
  const target = connect(path, { writes: true, busyTimeoutMs: BUSY_TIMEOUT_MS })
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        await backup(source.database, path, { rate: PAGES_AT_ONCE })
        break
      } catch (error) {
        // A command that writes just now; SQLite waits for nobody here.
        if (attempt === ATTEMPTS) throw error
        await pause(PAUSE_MS)
      }
    }
    checkpoint(target)
  } finally {
    source.database.close()
    target.database.close()
  }
}
