// Owns what a backup is made of: `manifest.json`, then `SHA256SUMS`, then the files that it lists, in
// its order, so that `sha256sum -c` proves what tar unpacks.
import * as v from 'valibot'
import { broken } from './archive.ts'
import type { Connection } from './database/sqlite.ts'
import { Refusal } from './errors.ts'

export const MANIFEST = 'manifest.json'
export const SUMS = 'SHA256SUMS'
export const SECRET = 'secret'
export const DATABASE = 'sync-node.db'
export const VALUES = 'blobs/'

const FORMAT = 1
// The last that JavaScript can write as a date.
const MAX_TIME = 8.64e15
const natural = v.pipe(v.number(), v.integer(), v.minValue(0))

const shape = v.object({
  format: v.literal(FORMAT),
  /** Of the program that made it. */
  version: v.pipe(v.string(), v.regex(/^[\w.+-]{1,64}$/)),
  schema: natural,
  /** Milliseconds since the epoch. */
  created: v.pipe(natural, v.maxValue(MAX_TIME)),
  accounts: natural,
  stores: natural,
  /** Of all values. */
  bytes: natural,
  database: v.object({ bytes: natural }),
  /** The values that are files. */
  files: v.object({ count: natural, bytes: natural }),
  /** False when the server has its secret from the environment. */
  secret: v.boolean(),
  /** Values that were damaged already: a file is left out, a small one is in the database as it was. */
  damaged: v.array(v.object({ store: v.string(), file: v.nullable(v.string()) })),
})

export type Manifest = v.InferOutput<typeof shape>

export const write = (manifest: Omit<Manifest, 'format'>): string =>
  `${JSON.stringify({ format: FORMAT, ...manifest }, null, 2)}\n`

/** `schema` is the newest that this program knows. Throws Refusal. */
export function read(text: string, schema: number): Manifest {
  const said = parse(text)
  if (Number(said['format']) > FORMAT || Number(said['schema']) > schema) {
    throw new Refusal('The backup was made by a newer sync-node: use that one.')
  }
  const { success, output } = v.safeParse(shape, said)
  if (!success) throw broken()
  return output
}

function parse(text: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>
  } catch (error) {
    throw broken(error)
  }
}

/** A line of SHA256SUMS. */
export const sumLine = (name: string, digest: Uint8Array): string =>
  `${Buffer.from(digest).toString('hex')}  ${name}\n`

export interface Listed {
  name: string
  digest: Uint8Array
}

export interface Value {
  store: string
  file: string
  size: number
  digest: Uint8Array
}

/** The values that are files, in the order in which they stand in a backup. */
export function* valuesIn(
  { database }: Connection,
  without: Manifest['damaged'] = [],
): Iterable<Value> {
  const missing = new Set(without.map(({ file }) => file))
  const rows = database.prepare(
    `SELECT store_key AS store, store_file AS file, size, digest FROM sync_store
     WHERE store_file IS NOT NULL ORDER BY store_file`,
  )
  for (const row of rows.iterate()) {
    const value = row as unknown as Value
    if (!missing.has(value.file)) yield value
  }
}

/** The lines of SHA256SUMS: the heads, then the values. */
export function* sumsOf(heads: Listed[], values: Iterable<Value>): Iterable<string> {
  for (const { name, digest } of heads) yield sumLine(name, digest)
  for (const { file, digest } of values) yield sumLine(VALUES + file, digest)
}
