// Owns the look through a whole database after an unclean stop: a thread of its own, since it reads
// every page.
import { parentPort, workerData } from 'node:worker_threads'
import { connect } from './sqlite.ts'

export interface CheckData {
  path: string
}

/** What was found: empty when the database is whole. */
export type CheckMessage = { problems: string[] }

const BUSY_TIMEOUT_MS = 5000

function problemsOf({ path }: CheckData): string[] {
  try {
    const { database, prepare } = connect(path, {
      writes: false,
      busyTimeoutMs: BUSY_TIMEOUT_MS,
    })
    const rows = prepare('PRAGMA quick_check(10)').all()
    database.close()
    return rows.map((row) => String(row['quick_check'])).filter((problem) => problem !== 'ok')
  } catch (error) {
    return [(error as Error).message]
  }
}

parentPort?.postMessage({ problems: problemsOf(workerData as CheckData) } satisfies CheckMessage)
