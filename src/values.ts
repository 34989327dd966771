// Owns the look at all values, in pages and chunks: no value and no list is held whole.
import { createHash } from 'node:crypto'
import type { Row } from '@libsql/core/api'
import { chunksOf, type Blobs } from './blobs/blobs.ts'
import { sql, toBytes, type Database } from './database/database.ts'
import { isIntact } from './value.ts'

interface Listed {
  store: string
  token: string
  size: number
}

export interface SmallValue extends Listed {
  /** Of what is there; null where nothing is. */
  length: number | null
  /** False where its bytes were looked at, and are others. */
  isIntact: boolean
}

export interface LargeValue extends Listed {
  file: string
  digest: Uint8Array
}

const PAGE = 200
// As many as a bucket lists at once.
const NAMES_PAGE = 1000
const CHUNK_BYTES = 256 * 1024

/** The rows that a query, which takes what comes after the last of `column`, finds page by page. */
async function* pages(
  database: Pick<Database, 'execute'>,
  query: string,
  column: string,
): AsyncGenerator<Row[]> {
  for (let after = ''; ;) {
    const { rows } = await database.execute(sql(query, [after]))
    if (rows.length === 0) return
    yield rows
    after = String(rows.at(-1)?.[column])
  }
}

const toListed = (row: Row): Listed => ({
  store: String(row['store_key']),
  token: String(row['store_token']),
  size: Number(row['size']),
})

/** All values that are in the database; `isDeep`: their bytes are looked at. */
export async function* listSmall(
  database: Pick<Database, 'execute'>,
  { isDeep }: { isDeep: boolean },
): AsyncGenerator<SmallValue[]> {
  // Not AS length: to the rows of a database server that is how many columns they have.
  const page = `
    SELECT s.store_key, s.store_token, s.size, s.digest, length(d.value) AS bytes,
      ${isDeep ? 'd.value' : 'NULL'} AS value
    FROM sync_store s LEFT JOIN store_data d ON d.id = s.store_data
    WHERE s.store_file IS NULL AND s.store_key > ? ORDER BY s.store_key LIMIT ${PAGE}`
  for await (const rows of pages(database, page, 'store_key')) {
    yield rows.map((row) => ({
      ...toListed(row),
      length: row['bytes'] === null ? null : Number(row['bytes']),
      isIntact: row['value'] === null || isIntact(toBytes(row['value']), toBytes(row['digest'])),
    }))
  }
}

/** All others, in the order of their names. */
export async function* listLarge(
  database: Pick<Database, 'execute'>,
): AsyncGenerator<LargeValue[]> {
  const page = `
    SELECT store_key, store_token, store_file, size, digest FROM sync_store
    WHERE store_file > ? ORDER BY store_file LIMIT ${NAMES_PAGE}`
  for await (const rows of pages(database, page, 'store_file')) {
    yield rows.map((row) => ({
      ...toListed(row),
      file: String(row['store_file']),
      digest: toBytes(row['digest']),
    }))
  }
}

/** Whether all others are there, by their sizes, but for what is damaged in `files`, where it comes from. */
export async function hasAll(
  database: Pick<Database, 'execute'>,
  blobs: Pick<Blobs, 'size' | 'sizes'>,
  files?: Pick<Blobs, 'read'>,
): Promise<boolean> {
  for await (const values of listLarge(database)) {
    const sizes = await blobs.sizes(values.map(({ file }) => file))
    for (const value of values.filter(({ file, size }) => sizes.get(file) !== size)) {
      // Not every store lists in the order of names.
      if ((await blobs.size(value.file)) === value.size) continue
      if (files === undefined || (await isWhole(files, value))) return false
    }
  }
  return true
}

/** A value is not there, or not as its row says. */
export class Damaged extends Error {}

/** Throws Damaged unless it was as its row says, at the latest when all of it was read. */
export async function* readValue(
  blobs: Pick<Blobs, 'read'>,
  { file, size, digest }: Pick<LargeValue, 'file' | 'size' | 'digest'>,
): AsyncGenerator<Uint8Array> {
  const reading = await blobs.read(file, { start: 0, end: size - 1 })
  if (reading === undefined) throw new Damaged()
  const sha256 = createHash('sha256')
  let missing = size
  try {
    if (reading.size !== size) throw new Damaged()
    for await (const chunk of chunksOf(reading, CHUNK_BYTES)) {
      missing -= chunk.length
      sha256.update(chunk)
      yield chunk
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'EIO' ? new Damaged() : error
  } finally {
    await reading.close()
  }
  if (missing !== 0 || !sha256.digest().equals(digest)) throw new Damaged()
}

/** Reads all of it; `seen` hears of bytes as they are read. */
export async function isWhole(
  blobs: Pick<Blobs, 'read'>,
  value: Pick<LargeValue, 'file' | 'size' | 'digest'>,
  seen: (bytes: number) => void = () => undefined,
): Promise<boolean> {
  try {
    for await (const { length } of readValue(blobs, value)) seen(length)
    return true
  } catch (error) {
    if (error instanceof Damaged) return false
    throw error
  }
}
