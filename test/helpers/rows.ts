// Owns what tests look up or plant below the API: rows of the database, files of values.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { sql, type Statement } from '../../src/database/database.ts'
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

export const blobFiles = (node: TestNode): string[] => readdirSync(join(node.root, 'blobs')).sort()

/** Every file in blobs/ is one that a row names. */
export async function expectNoStrayFile(node: TestNode): Promise<void> {
  const named = await rows(
    node,
    `SELECT store_file FROM sync_store WHERE store_file IS NOT NULL
     UNION SELECT store_file FROM blob_garbage ORDER BY 1`,
  )
  assert.deepEqual(
    blobFiles(node),
    named.map((row) => row['store_file']),
  )
}
