// Owns how many bytes a row takes in each table and each index: of a database filled as people fill theirs.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { startSyncNode } from '../bench/process.ts'
import { fillDatabase } from '../bench/rows.ts'

const ACCOUNTS = 1000
const STORES = 200
const MEMBERS = 4
const SHARED = 0.1
const VALUE = 1024

export interface Place {
  /** A table or an index. */
  name: string
  rows: number
  /** Of its pages, over its rows. */
  bytes: number
}

/** Makes a database of 200,000 stores in `folder`. */
export async function measureBytes(folder: string): Promise<Place[]> {
  const root = join(folder, 'bytes')
  mkdirSync(root)
  await (await startSyncNode(root)).stop()
  fillDatabase(root, ({ account, stores, share }) => {
    const accounts = Array.from({ length: ACCOUNTS }, account)
    for (const [nth, owner] of accounts.entries()) {
      const group = nth - (nth % MEMBERS)
      const others = accounts.slice(group, group + MEMBERS).filter((one) => one !== owner)
      const keys = stores(owner, STORES, VALUE)
      for (const key of keys.slice(0, STORES * SHARED)) share(key, others)
    }
  })
  return readPlaces(root)
}

function readPlaces(root: string): Place[] {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  const count = (table: string): number =>
    Number(database.prepare(`SELECT count(*) AS count FROM "${table}"`).get()?.['count'])
  const places = database
    .prepare(
      `SELECT d.name, coalesce(s.tbl_name, d.name) AS in_table, s.sql, sum(d.pgsize) AS bytes
       FROM dbstat d LEFT JOIN sqlite_schema s ON s.name = d.name GROUP BY d.name`,
    )
    .all()
    .map(({ name, in_table: table, bytes }) => ({
      name: String(name),
      rows: count(String(table)),
      bytes: Number(bytes),
    }))
  database.close()
  return places
    .filter(({ rows }) => rows >= ACCOUNTS)
    .map(({ name, rows, bytes }) => ({ name, rows, bytes: bytes / rows }))
    .toSorted((one, other) => other.rows - one.rows || other.bytes - one.bytes)
}
