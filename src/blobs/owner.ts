// Owns the object that says whose values are in a bucket, and whether they are still being brought there:
// two databases would take each other's values for left over.
import { hash } from 'node:crypto'
import type { Bucket } from './bucket.ts'

export interface Owner {
  /** Of the database. */
  id: string
  isUnfinished: boolean
}

const NAME = 'sync-node'
const UNFINISHED = 'unfinished'

/** Null where nobody has claimed it. Throws Away. */
export async function find(bucket: Bucket): Promise<Owner | null> {
  await bucket.look()
  const text = await bucket.getText(NAME)
  if (text === null) return null
  const [id = '', state] = text.trim().split(' ')
  return { id, isUnfinished: state !== undefined }
}

export async function write(bucket: Bucket, { id, isUnfinished }: Owner): Promise<void> {
  const body = Buffer.from(`${isUnfinished ? `${id} ${UNFINISHED}` : id}\n`)
  await bucket.put(NAME, body, hash('sha256', body))
}
