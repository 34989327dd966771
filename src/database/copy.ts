// Owns the long work on whole copies of the database, on a thread of its own: making one, and looking
// through one.
import { hash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { connect, type Connection } from './sqlite.ts'

export type CopyJob =
  /** The copy is not synced to the disk. */
  | { name: 'copy'; from: string; to: string }
  /** Removes what is of the running server alone. */
  | { name: 'strip'; at: string }
  | { name: 'inspect'; at: string }

export type CopyMessage = { found: Inspection | null } | { failed: string }

export interface Inspection {
  /** Empty when the database is whole; else there is no more to say of it. */
  problems: string[]
  /** What was applied, by number, with the checksums. */
  migrations: [number, string][]
  secretCheck: string
  accounts: number
  stores: number
  /** Of all values. */
  bytes: number
  /** Those that are files, and how long their names are together. */
  files: { count: number; bytes: number; nameLength: number }
  /** The keys of stores whose small value is not what its row says. */
  damaged: string[]
}

const BUSY_TIMEOUT_MS = 5000
const NOTHING: Omit<Inspection, 'problems'> = {
  migrations: [],
  secretCheck: '',
  accounts: 0,
  stores: 0,
  bytes: 0,
  files: { count: 0, bytes: 0, nameLength: 0 },
  damaged: [],
}

function run(job: CopyJob): Inspection | null {
  if (job.name === 'inspect') return inspect(job.at)
  const isCopy = job.name === 'copy'
  const { database } = connect(isCopy ? job.from : job.at, {
    writes: false,
    busyTimeoutMs: BUSY_TIMEOUT_MS,
  })
  // A read of the one file is a write to the other.
  database.exec('PRAGMA query_only = OFF; PRAGMA synchronous = OFF')
  if (isCopy) database.prepare('VACUUM INTO ?').run(job.to)
  else {
    database.exec('PRAGMA journal_mode = OFF; DELETE FROM hold; DELETE FROM blob_garbage')
  }
  database.close()
  return null
}

function inspect(at: string): Inspection {
  try {
    return look(connect(at, { writes: false, busyTimeoutMs: BUSY_TIMEOUT_MS }))
  } catch (error) {
    return { problems: [(error as Error).message], ...NOTHING }
  }
}

function look({ database, prepare }: Connection): Inspection {
  try {
    const problems = prepare('PRAGMA integrity_check(10)')
      .all()
      .map((row) => String(row['integrity_check']))
      .filter((problem) => problem !== 'ok')
    const [foreign] = prepare('PRAGMA foreign_key_check').all()
    if (foreign !== undefined) problems.push(`a row of ${String(foreign['table'])} refers to none`)
    if (problems.length > 0) return { problems, ...NOTHING }
    const [sums = {}] = prepare(SUMS).all()
    const sum = (name: string): number => Number(sums[name])
    return {
      problems,
      migrations: prepare('SELECT number, checksum FROM migration ORDER BY number')
        .all()
        .map((row) => [Number(row['number']), String(row['checksum'])]),
      secretCheck: String(prepare('SELECT * FROM node').get()?.['secret_check']),
      accounts: sum('accounts'),
      stores: sum('stores'),
      bytes: sum('bytes'),
      files: { count: sum('files'), bytes: sum('file_bytes'), nameLength: sum('name_length') },
      damaged: [...damagedIn(prepare(SMALL).iterate())],
    }
  } finally {
    database.close()
  }
}

const SUMS = `
  SELECT (SELECT count(*) FROM sync_account WHERE dead = 0) AS accounts,
    count(*) AS stores, coalesce(sum(size), 0) AS bytes, count(store_file) AS files,
    coalesce(sum(size) FILTER (WHERE store_file IS NOT NULL), 0) AS file_bytes,
    coalesce(sum(length(store_file)), 0) AS name_length
  FROM sync_store`

const SMALL = `
  SELECT s.store_key, s.size, s.digest, d.value
  FROM sync_store s LEFT JOIN store_data d ON d.id = s.store_data WHERE s.store_file IS NULL`

function* damagedIn(rows: Iterable<Record<string, unknown>>): Iterable<string> {
  for (const { store_key: key, size, digest, value } of rows) {
    const bytes = value as Uint8Array | null
    const isWhole =
      bytes !== null &&
      bytes.length === size &&
      hash('sha256', bytes, 'buffer').equals(digest as Uint8Array)
    if (!isWhole) yield String(key)
  }
}

try {
  const found = run(workerData as CopyJob)
  parentPort?.postMessage({ found } satisfies CopyMessage)
} catch (error) {
  parentPort?.postMessage({ failed: (error as Error).message } satisfies CopyMessage)
}
