// Owns reading a backup: all that it says is compared with all that is in it.
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { broken, unpack, type Bytes, type Entry } from './archive.ts'
import {
  DATABASE,
  MANIFEST,
  SECRET,
  SUMS,
  VALUES,
  read as readManifest,
  sumLine,
  type Listed,
  type Manifest,
} from './manifest.ts'
import { listMigrations } from './packed.ts'

/** Takes one of the files that a backup lists. */
export type Take = (name: string, body: Bytes) => Promise<void>

export interface Verified {
  manifest: Manifest
  /** The digest of SHA256SUMS. */
  sums: Uint8Array
  /** What came before the values. */
  heads: Listed[]
}

const VALUE = new RegExp(`^${VALUES}\\d+-[0-9a-v]{26}$`)
const MAX_MANIFEST_BYTES = 64 * 1024 * 1024
const MAX_SECRET_BYTES = 4096
const MAX_LINE_BYTES = 128

/** True for the path of a value in a backup. */
export const isValue = (name: string): boolean => VALUE.test(name)

/**
 * Reads a backup to its end, and hands out the files in it as it goes: until it resolves, nobody knows
 * whether they are whole. Throws Refusal.
 */
export async function verify(bytes: Bytes, take: Take = drain): Promise<Verified> {
  const entries = unpack(bytes)
  const listed = createHash('sha256')

  async function next(name: string, most = Infinity): Promise<Entry> {
    const { value, done } = await entries.next()
    if (done === true || value.name !== name || value.size > most) throw broken()
    return value
  }

  async function check({ name, body }: Entry): Promise<Listed> {
    const digest = await digestOf(body, (chunks) => take(name, chunks))
    listed.update(sumLine(name, digest))
    return { name, digest }
  }

  try {
    const manifest = await readFirst(await next(MANIFEST, MAX_MANIFEST_BYTES))
    const lines = manifest.files.count + 2
    const sums = await digestOf((await next(SUMS, lines * MAX_LINE_BYTES)).body)
    const heads = manifest.secret ? [await check(await next(SECRET, MAX_SECRET_BYTES))] : []
    const database = await next(DATABASE)
    heads.push(await check(database))
    const files = { count: 0, bytes: 0 }
    let last = ''
    for await (const entry of entries) {
      // In order, and so none twice.
      if (!isValue(entry.name) || entry.name <= last) throw broken()
      last = entry.name
      await check(entry)
      files.count++
      files.bytes += entry.size
    }
    const isAsSaid = isDeepStrictEqual(
      [database.size, files, listed.digest()],
      [manifest.database.bytes, manifest.files, sums],
    )
    if (!isAsSaid) throw broken()
    return { manifest, sums, heads }
  } finally {
    await entries.return(undefined)
  }
}

async function readFirst({ body }: Entry): Promise<Manifest> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return readManifest(Buffer.concat(chunks).toString(), listMigrations().length)
}

async function digestOf(
  body: Bytes,
  take: (body: Bytes) => Promise<void> = (rest) => drain('', rest),
): Promise<Uint8Array> {
  const sha256 = createHash('sha256')
  async function* hashed(): Bytes {
    for await (const chunk of body) {
      sha256.update(chunk)
      yield chunk
    }
  }
  await take(hashed())
  return sha256.digest()
}

async function drain(_: string, body: Bytes): Promise<void> {
  for await (const chunk of body) void chunk
}
