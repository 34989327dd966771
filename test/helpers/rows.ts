// Owns what tests look up or plant below the API: rows of the database, files of values.
import assert from 'node:assert/strict'
import { readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { sql, type Statement } from '../../src/database/database.ts'
import { eventually } from './eventually.ts'
import type { TestNode } from './node.ts'

type Value = string | number

export async function rows(
  node: TestNode,
  text: string,
  args: Value[] = [],
): Promise<Record<string, unknown>[]> {
  const result = await node.running.deps.database.execute(sql(text, args))
  return result.rows as unknown as Record<string, unknown>[]
}

/** The first column of the first row. */
export async function one(node: TestNode, text: string, args: Value[] = []): Promise<unknown> {
  const [row] = await rows(node, text, args)
  return row === undefined ? undefined : Object.values(row)[0]
}

export async function plant(node: TestNode, text: string, args: Value[] = []): Promise<void> {
  const statements: Statement[] = [sql(text, args)]
  await node.running.deps.database.batch(statements, 'write')
}

export const blobFiles = (node: TestNode): string[] =>
  node.bucket === null
    ? readdirSync(join(node.root, 'blobs')).sort()
    : [...node.bucket.values().map((key) => basename(key)), ...node.bucket.unfinished.keys()].sort()

/** A value above 16 KiB as it is kept, for tests to damage. */
export interface Stored {
  read(): Buffer
  write(bytes: Buffer): void
  truncate(bytes: number): void
  remove(): void
}

export function stored(node: TestNode, name: string): Stored {
  const { bucket } = node
  if (bucket === null) {
    const path = join(node.root, 'blobs', name)
    return {
      read: () => readFileSync(path),
      write: (bytes) => writeFileSync(path, bytes, { flag: 'r+' }),
      truncate: (bytes) => truncateSync(path, bytes),
      remove: () => rmSync(path),
    }
  }
  const key = bucket.values().find((one) => basename(one) === name) ?? ''
  const kept = bucket.objects.get(key)
  if (kept === undefined) throw new Error(`${name} is not in the bucket`)
  const self: Stored = {
    read: () => kept.bytes,
    write: (bytes) => bucket.objects.set(key, { ...kept, bytes }),
    truncate: (bytes) =>
      self.write(Buffer.concat([kept.bytes, Buffer.alloc(1)]).subarray(0, bytes)),
    remove: () => bucket.objects.delete(key),
  }
  return self
}

/** The time after which a superseded value goes. */
export const graceOf = (node: TestNode): number => 2 * node.running.deps.blobs.graceMs

/** Every file in blobs/ is one that a row names. */
export async function expectNoStrayFile(node: TestNode): Promise<void> {
  const named = await rows(
    node,
    `SELECT store_file FROM sync_store WHERE store_file IS NOT NULL
     UNION SELECT store_file FROM blob_garbage ORDER BY 1`,
  )
  const expected = named.map((row) => row['store_file'])
  // What is not used leaves a bucket after the answer.
  if (node.bucket !== null) await eventually<unknown>(() => blobFiles(node), expected)
  assert.deepEqual(blobFiles(node), expected)
}
