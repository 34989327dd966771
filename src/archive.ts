// Owns the file that a backup is: a tar, compressed by zstd, and sealed by the digest of all its bytes,
// since zstd alone overlooks some of what can happen to a file.
import { createHash } from 'node:crypto'
import { pipeline } from 'node:stream/promises'
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib'
import * as tar from 'tar-stream'
import { Refusal } from './errors.ts'

export type Bytes = AsyncIterable<Uint8Array>

export interface Entry {
  name: string
  size: number
  body: Bytes
}

// Values come encrypted as a rule: more effort would be heat. The checksum finds what goes wrong
// between here and the seal.
const ZSTD = {
  params: { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_checksumFlag]: 1 },
}

const MAGIC = Buffer.from('28b52ffd', 'hex')
// A frame that every zstd skips (RFC 8878 §3.1.2): its magic, the length of what follows.
const SEAL_HEAD = Buffer.from('502a4d1820000000', 'hex')
const SEAL_BYTES = SEAL_HEAD.length + 32

export interface Packing {
  entries: AsyncIterable<Entry>
  /** Stands as the time of each entry. */
  created: number
  signal: AbortSignal
}

/** Makes an archive, and hands it on in pieces. Throws what making the entries throws. */
export const pack = (
  { entries, created, signal }: Packing,
  write: (chunks: Bytes) => Promise<void>,
): Promise<void> =>
  pipeline(toTar(entries, new Date(created)), createZstdCompress(ZSTD), seal, write, { signal })

async function* toTar(entries: AsyncIterable<Entry>, mtime: Date): Bytes {
  const packer = tar.pack()
  async function fill(): Promise<void> {
    for await (const { name, size, body } of entries) {
      await pipeline(body, packer.entry({ name, size, mode: 0o600, mtime }))
    }
    packer.finalize()
  }
  const filling = fill()
  filling.catch((error: Error) => packer.destroy(error))
  try {
    yield* packer as Bytes
  } finally {
    packer.destroy()
    await filling.catch(() => undefined) // thrown above, unless nobody reads on
  }
}

async function* seal(chunks: Bytes): Bytes {
  const sha256 = createHash('sha256')
  for await (const chunk of chunks) {
    sha256.update(chunk)
    yield chunk
  }
  yield Buffer.concat([SEAL_HEAD, sha256.digest()])
}

/** What was sealed. Throws at its end unless the seal is on it. */
async function* unseal(chunks: Bytes): Bytes {
  const sha256 = createHash('sha256')
  let held: Uint8Array = Buffer.alloc(0)
  let isBegun = false
  for await (const chunk of chunks) {
    const bytes = Buffer.concat([held, chunk])
    const end = Math.max(0, bytes.length - SEAL_BYTES)
    held = bytes.subarray(end)
    if (end === 0) continue
    if (!isBegun && end >= MAGIC.length && !bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
      throw new Refusal('This is not a backup of sync-node.')
    }
    isBegun = true
    sha256.update(bytes.subarray(0, end))
    yield bytes.subarray(0, end)
  }
  if (!Buffer.concat([SEAL_HEAD, sha256.digest()]).equals(held)) throw broken()
}

export const broken = (cause?: unknown): Refusal =>
  new Refusal('The backup is damaged or cut short.', { cause })

/**
 * The entries of an archive, each to be read to its end before the next. Only when the last has been
 * answered and the end is reached is all of it known to be whole. Throws Refusal.
 */
export async function* unpack(bytes: Bytes): AsyncGenerator<Entry, undefined> {
  const unpacker = tar.extract()
  const reading = pipeline(bytes, unseal, createZstdDecompress(), unpacker)
  reading.catch((error: Error) => unpacker.destroy(error))
  try {
    for await (const entry of unpacker) {
      const { name, size, type } = entry.header
      if (type !== 'file') throw broken()
      yield { name, size, body: explained(entry as Bytes) }
    }
    await reading
    return undefined
  } catch (error) {
    throw explain(error)
  } finally {
    unpacker.destroy()
    await reading.catch(() => undefined) // thrown above, unless nobody reads on
  }
}

async function* explained(body: Bytes): Bytes {
  try {
    yield* body
  } catch (error) {
    throw explain(error)
  }
}

/** What zlib and tar-stream find wrong means one thing; a file that cannot be read says so itself. */
function explain(error: unknown): unknown {
  const { code = 'Z_' } = error as NodeJS.ErrnoException
  if (error instanceof Refusal) return error
  return /^(?:Z_|ZSTD_)/.test(code) ? broken(error) : error
}
