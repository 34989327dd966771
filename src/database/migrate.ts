// Owns the schema: the embedded migrations, each applied once, in order, whole, and never changed after.
import { hash } from 'node:crypto'
import { LibsqlError } from '@libsql/core/api'
import { Refusal } from '../errors.ts'
import { listMigrations, readAsset } from '../packed.ts'
import { sql, type Database, type Statement } from './database.ts'

interface Migration {
  number: number
  name: string
  text: string
  checksum: string
}

/** The number that stands for none: while it is there, rows are still being brought. See transfer.ts. */
export const UNFINISHED = 0

/** True when nothing was ever stored here. */
export async function isFresh(database: Database): Promise<boolean> {
  return (await applied(database)).size === 0
}

/**
 * Applies what is pending, all of it or nothing, up to one if need be; `first` comes after the first
 * migration. Of several nodes that do so at once, one does.
 */
export async function migrate(
  database: Database,
  first: Statement[],
  upTo = Infinity,
): Promise<void> {
  const missing = (await pending(database)).filter(({ number }) => number <= upTo)
  const [next] = missing
  if (next === undefined) return
  try {
    await database.batch(statementsOf(missing, first), 'write')
  } catch (error) {
    const now = await pending(database)
    if (now.some(({ number }) => number === next.number)) throw error
    await migrate(database, first, upTo)
  }
}

/** A row of `migration` is there once: with it, all of a batch that comes too late is refused. */
const statementsOf = (migrations: Migration[], first: Statement[]): Statement[] =>
  migrations.flatMap(({ number, name, text, checksum }) => [
    ...split(text).map((statement) => sql(statement)),
    ...(number === 1 ? first : []),
    sql('INSERT INTO migration (number, name, checksum) VALUES (?, ?, ?)', [
      number,
      name,
      checksum,
    ]),
    sql('UPDATE node SET schema = ?', [number]),
  ])

/** The schema that the data is to be brought to; null when it is there. Throws Refusal. */
export async function nextSchema(database: Database): Promise<number | null> {
  return (await pending(database)).at(-1)?.number ?? null
}

/** For a command, which changes no schema: throws Refusal unless the data has this program's. */
export async function checkSchema(database: Database): Promise<void> {
  const missing = await pending(database)
  if (missing.length > 0) {
    throw new Refusal('The data is older than this program: start the server once to upgrade it.')
  }
}

async function pending(database: Database): Promise<Migration[]> {
  const done = await applied(database)
  const known = checkApplied(done)
  return known.filter(({ number }) => !done.has(number))
}

/** Throws Refusal unless this program knows all that was applied; answers all that it knows. */
export function checkApplied(done: Map<number, string>): Migration[] {
  const known = listMigrations().map(load)
  const newest = known.at(-1)?.number ?? 0
  if (done.has(UNFINISHED)) {
    throw new Refusal('The data has not all come to this database yet: run migrate-data again.')
  }
  for (const [number, checksum] of done) {
    const migration = known.find((one) => one.number === number)
    if (migration === undefined && number > newest) {
      throw new Refusal(
        'The data was written by a newer sync-node: use that one, or restore a backup from before.',
      )
    }
    if (migration?.checksum !== checksum) {
      throw new Refusal(`The data was made by another migration ${number} than this program's.`)
    }
  }
  return known
}

async function applied(database: Database): Promise<Map<number, string>> {
  try {
    const { rows } = await database.execute('SELECT number, checksum FROM migration')
    return new Map(rows.map((row) => [Number(row['number']), String(row['checksum'])]))
  } catch (error) {
    if (error instanceof LibsqlError && error.message.includes('no such table')) return new Map()
    throw error
  }
}

function load(name: string): Migration {
  const text = readAsset(`migrations/${name}`)
  return { number: Number(name.slice(0, 4)), name, text, checksum: hash('sha256', text) }
}

/** The statements of a file: each ends its line with `;`, a trigger with `END;` on a line of its own. */
function split(text: string): string[] {
  const statements: string[] = []
  let lines: string[] = []
  for (const line of text.split('\n')) {
    if (lines.length === 0 && (line === '' || line.startsWith('--'))) continue
    lines.push(line)
    const isTrigger = (lines[0] as string).startsWith('CREATE TRIGGER')
    if (isTrigger ? line === 'END;' : line.replace(/ *--.*$/, '').endsWith(';')) {
      statements.push(lines.join('\n'))
      lines = []
    }
  }
  if (lines.length > 0) throw new Error('a migration ends inside a statement')
  return statements
}
