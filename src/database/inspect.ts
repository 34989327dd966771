// Owns looking at a database without changing its folder, and at what the migrations make of an empty
// one.
import { statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { sql, type Database } from './database.ts'
import { statementsOn } from './embedded.ts'
import { migrate } from './migrate.ts'
import { settle, toLibsqlError } from './sqlite.ts'

const BUSY_TIMEOUT_MS = 5000

/**
 * Opens the database for reading. `isAlone`: no server can come meanwhile. Its log stays as it is, and
 * where there is none, none is made.
 */
export function inspect(path: string, { isAlone }: { isAlone: boolean }): Database {
  const log = statSync(`${path}-wal`, { throwIfNoEntry: false })
  try {
    const isWhole = isAlone && (log === undefined || log.size === 0)
    return connected(isWhole ? new URL('?immutable=1', pathToFileURL(path)) : path)
  } catch (error) {
    throw toLibsqlError(error)
  }
}

function connected(location: string | URL): Database {
  const database = new DatabaseSync(location, {
    timeout: BUSY_TIMEOUT_MS,
    readOnly: location !== IN_MEMORY,
  })
  return { ...statementsOn(settle(database)), close: () => database.close() }
}

const IN_MEMORY = ':memory:'

/** The statement that made each table, index, trigger and view, by name, in the order in which they were made. */
export async function schemaOf(database: Pick<Database, 'execute'>): Promise<Map<string, string>> {
  const { rows } = await database.execute(
    sql(`SELECT type || ' ' || name AS name, sql FROM sqlite_master
         WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*' ORDER BY rowid`),
  )
  return new Map(rows.map((row) => [String(row['name']), String(row['sql'])]))
}

/** The same, as this program's migrations make it, up to the one with this number. */
export async function ownSchema(upTo?: number): Promise<Map<string, string>> {
  const database = connected(IN_MEMORY)
  try {
    await migrate(database, [], upTo)
    return await schemaOf(database)
  } finally {
    database.close()
  }
}
