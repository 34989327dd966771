// Owns bringing all rows of a database into another, and comparing the two. Rows come table by table in
// the order of their keys, each page of them whole or not at all, so that it goes on where it ended. What
// keeps the tables in step (the triggers) comes last, since all that they would do is in the rows already.
import type { InStatement, InValue } from '@libsql/client'
import { LibsqlError } from '@libsql/core/api'
import { setTimeout as pause } from 'node:timers/promises'
import { sql, toBytes, type Database } from './database.ts'
import { ownSchema } from './inspect.ts'
import { UNFINISHED } from './migrate.ts'

export interface Table {
  name: string
  columns: string[]
  key: string[]
}

/** What tells one that goes on from one that would mix the rows of two. */
export interface Mark {
  /** The id of the source. */
  source: string
  /** What the source was when it began. */
  state: string
}

type Source = Pick<Database, 'execute'>
type Row = InValue[]

interface Transfer {
  signal: AbortSignal
  /** Hears of rows as they are done. */
  add: (rows: number) => void
}

/** The rows of these tables differ. */
export class Different extends Error {}

// `node` and `migration` say whether the rest is there; what holds values is of the folder that is left.
const APART = new Set(['node', 'migration', 'hold'])
// Of the largest rows, a page is less than what servers answer at once.
const PAGE = 250
const MOST_BYTES = 1024 * 1024
const ATTEMPTS = 5
const PAUSE_MS = 1000

/** The tables whose rows are brought, each after those that it refers to. */
export async function tablesOf(source: Source): Promise<Table[]> {
  const { rows } = await source.execute(`
    SELECT m.name AS "table", c.name AS "column", c.pk
    FROM sqlite_master m JOIN pragma_table_info(m.name) c
    WHERE m.type = 'table' AND m.name NOT GLOB 'sqlite_*' ORDER BY m.rowid, c.cid`)
  const tables = Map.groupBy(rows, (row) => String(row['table']))
  return [...tables]
    .filter(([name]) => !APART.has(name))
    .map(([name, columns]) => ({
      name,
      columns: columns.map((row) => String(row['column'])),
      key: columns
        .filter((row) => row['pk'] !== 0)
        .toSorted((a, b) => Number(a['pk']) - Number(b['pk']))
        .map((row) => String(row['column'])),
    }))
}

/** How many rows there are. */
export async function countRows(database: Source, { name }: Table): Promise<number> {
  const { rows } = await database.execute(`SELECT count(*) AS count FROM "${name}"`)
  return Number(rows[0]?.['count'])
}

/** The names of the tables that are there already, whoever made them. */
export async function tablesIn(target: Source): Promise<string[]> {
  const { rows } = await target.execute(
    `SELECT name FROM sqlite_master WHERE type = 'table'
       AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'libsql_*' ORDER BY rowid`,
  )
  return rows.map((row) => String(row['name']))
}

/** Null where all is there. */
export async function markOf(target: Source): Promise<Mark | null> {
  const { rows } = await target.execute(
    sql('SELECT name, checksum FROM migration WHERE number = ?', [UNFINISHED]),
  )
  const [row] = rows
  return row === undefined ? null : { source: String(row['name']), state: String(row['checksum']) }
}

/** The next one begins anew. */
export async function spoil(target: Database): Promise<void> {
  await target.execute(sql(`UPDATE migration SET checksum = '' WHERE number = ?`, [UNFINISHED]))
}

/** Makes the tables, empty but for the node's row. What an earlier one has left there goes first. */
export async function begin(
  target: Database,
  { node, mark }: { node: Record<string, unknown>; mark: Mark },
): Promise<void> {
  const left = (await tablesIn(target)).toReversed()
  // Interrupted from here on, it is to be known for what it is, by nodes and the next run.
  if (left.includes('migration')) {
    await target.execute(
      sql(`INSERT OR REPLACE INTO migration (number, name, checksum) VALUES (?, ?, '')`, [
        UNFINISHED,
        mark.source,
      ]),
    )
  }
  for (const name of left) if (!APART.has(name)) await target.execute(`DROP TABLE "${name}"`)
  const { rows: views } = await target.execute(`SELECT name FROM sqlite_master WHERE type = 'view'`)
  const drop = [
    ...views.map(({ name }) => `DROP VIEW "${String(name)}"`),
    ...left.filter((name) => APART.has(name)).map((name) => `DROP TABLE "${name}"`),
  ]
  const made = [...(await ownSchema())].filter(([name]) => !isTrigger(name)).map(([, text]) => text)
  const columns = Object.keys(node)
  const statements: InStatement[] = [
    ...[...drop, ...made].map((text) => sql(text)),
    sql(insertion('node', columns, 1), Object.values(node).map(plain)),
    sql('INSERT INTO migration (number, name, checksum) VALUES (?, ?, ?)', [
      UNFINISHED,
      mark.source,
      mark.state,
    ]),
  ]
  await target.batch(statements, 'write')
}

/** When it resolves, a node can serve it. */
export async function end(source: Source, target: Database): Promise<void> {
  const triggers = [...(await ownSchema())].filter(([name]) => isTrigger(name))
  const { rows } = await source.execute('SELECT number, name, checksum FROM migration')
  await target.batch(
    [
      ...triggers.map(([, text]) => sql(text)),
      sql('DELETE FROM migration WHERE number = ?', [UNFINISHED]),
      ...rows.map(({ number, name, checksum }) =>
        sql(insertion('migration', ['number', 'name', 'checksum'], 1), [
          plain(number),
          plain(name),
          plain(checksum),
        ]),
      ),
    ],
    'write',
  )
}

const isTrigger = (name: string): boolean => name.startsWith('trigger ')

/** Brings the rows that are not there yet. */
export async function copy(
  source: Source,
  target: Database,
  table: Table,
  { signal, add }: Transfer,
): Promise<void> {
  let done = await countRows(target, table)
  add(done)
  for (let attempt = 1; ; attempt++) {
    try {
      for await (const rows of pagesOf(source, table, await lastKey(target, table))) {
        for (const some of inBatches(rows)) {
          signal.throwIfAborted()
          const { name, columns } = table
          await target.execute(sql(insertion(name, columns, some.length), some.flat()))
          done += some.length
          add(some.length)
          attempt = 1
        }
      }
      return
    } catch (error) {
      // What became of the last ones, the next look tells.
      if (!(error instanceof LibsqlError) || attempt === ATTEMPTS) throw error
      await pause(attempt * PAUSE_MS, undefined, { signal })
      const now = await countRows(target, table)
      add(now - done)
      done = now
    }
  }
}

/** Throws Different. */
export async function compare(
  source: Source,
  target: Source,
  table: Table,
  { signal, add }: Transfer,
): Promise<void> {
  const there = pagesOf(target, table, null)
  for await (const rows of pagesOf(source, table, null)) {
    signal.throwIfAborted()
    const { value: others } = await there.next()
    if (!isSame(rows, others ?? [])) throw new Different(table.name)
    add(rows.length)
  }
  if ((await there.next()).done !== true) throw new Different(table.name)
}

async function* pagesOf(
  database: Source,
  { name, columns, key }: Table,
  after: Row | null,
): AsyncGenerator<Row[], undefined> {
  const [all, by] = [quoted(columns), quoted(key)]
  const rest = `ORDER BY ${by} LIMIT ${PAGE}`
  const first = `SELECT ${all} FROM "${name}" ${rest}`
  const next = `SELECT ${all} FROM "${name}" WHERE (${by}) > (${marks(key.length)}) ${rest}`
  for (let last = after; ;) {
    const { rows } = await database.execute(last === null ? sql(first) : sql(next, last))
    const page = rows.map((row) => columns.map((column) => plain(row[column])))
    const end = page.at(-1)
    if (end === undefined) return
    yield page
    if (page.length < PAGE) return
    last = key.map((column) => end[columns.indexOf(column)] ?? null)
  }
}

async function lastKey(target: Source, { name, key }: Table): Promise<Row | null> {
  const by = key.map((column) => `"${column}" DESC`).join(', ')
  const { rows } = await target.execute(
    `SELECT ${quoted(key)} FROM "${name}" ORDER BY ${by} LIMIT 1`,
  )
  const [row] = rows
  return row === undefined ? null : key.map((column) => plain(row[column]))
}

function* inBatches(rows: Row[]): Generator<Row[]> {
  let some: Row[] = []
  let bytes = 0
  for (const row of rows) {
    const more = row.reduce<number>((sum, value) => sum + bytesOf(value), 0)
    if (some.length > 0 && bytes + more > MOST_BYTES) {
      yield some
      some = []
      bytes = 0
    }
    some.push(row)
    bytes += more
  }
  yield some
}

const bytesOf = (value: InValue): number =>
  typeof value === 'string' || value instanceof Uint8Array ? value.length : 8

const insertion = (table: string, columns: string[], rows: number): string =>
  `INSERT INTO "${table}" (${quoted(columns)}) VALUES ${Array<string>(rows)
    .fill(`(${marks(columns.length)})`)
    .join(', ')}`

const quoted = (names: string[]): string => names.map((name) => `"${name}"`).join(', ')

const marks = (count: number): string => Array<string>(count).fill('?').join(', ')

/** A value as both kinds of database take it. */
const plain = (value: unknown): InValue =>
  value instanceof ArrayBuffer ? toBytes(value) : (value as InValue)

const isSame = (rows: Row[], others: Row[]): boolean =>
  rows.length === others.length &&
  rows.every((row, i) => row.every((value, j) => isEqual(value, others[i]?.[j])))

const isEqual = (value: InValue, other: InValue | undefined): boolean =>
  value instanceof Uint8Array
    ? other instanceof Uint8Array && Buffer.compare(value, other) === 0
    : value === other
