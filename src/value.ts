// Owns a value on its way in: counted and hashed as it flows, kept in memory while small, else in a
// file; and checked before it goes out.
import { createHash, hash, type Hash } from 'node:crypto'
import { constantTimeEqual } from 'oslo/crypto'
import type { Upload } from './blobs/blobs.ts'
import type { Config } from './config.ts'
import type { Deps } from './deps.ts'
import { SyncError, malformed } from './errors.ts'
import { gather } from './gather.ts'
import { full } from './quota.ts'

/** Values up to here live in the database row. */
export const INLINE_BYTES = 16 * 1024
/** Bodies that are received at once for an account, but for small ones. */
export const UPLOADS = { name: 'upload', count: 8 }

export interface Incoming {
  body: AsyncIterable<Uint8Array>
  /** What the client said, in bytes; undefined when it did not. */
  length: number | undefined
  digests: Digest[]
}

export interface Digest {
  algorithm: 'sha256' | 'sha512'
  value: Uint8Array
}

export interface Received {
  size: number
  /** SHA-256 */
  digest: Uint8Array
  inline?: Uint8Array
  upload?: Upload
  /** The value will not be used: its file goes, its turn ends. */
  discard(): Promise<void>
  /** The value is used, or may be: its turn ends. */
  release(): void
}

/** Throws REQ01, SIZE01, SIZE02, SIZE03, RATE01, ERR05, and what reading the body throws. */
export async function receive(
  deps: Pick<Deps, 'blobs' | 'config' | 'limiter' | 'space'>,
  account: number,
  incoming: Incoming,
  quotaBytes: number,
): Promise<Received> {
  const { blobs, config, limiter, space } = deps
  const { body, length, digests } = incoming
  const limit = (bytes: number): void => {
    if (bytes > config.maxValueSize) throw tooLarge()
    if (bytes > quotaBytes) throw full()
  }
  limit(length ?? 0)
  space.check(bytesOnDisk(config, length))
  const sha256 = createHash('sha256')
  const sha512 = digests.some(({ algorithm }) => algorithm === 'sha512')
    ? createHash('sha512')
    : null
  const inline = gather()
  let size = 0
  let upload: Upload | undefined
  let release = (): void => undefined
  const discard = async (): Promise<void> => {
    release()
    await upload?.discard()
  }
  try {
    for await (const chunk of body) {
      size += chunk.length
      limit(size)
      sha256.update(chunk)
      sha512?.update(chunk)
      if (upload === undefined && size <= INLINE_BYTES) {
        inline.add(chunk)
        continue
      }
      if (upload === undefined) {
        release = limiter.enter(UPLOADS, String(account))
        upload = await blobs.create(length)
        await upload.write(inline.bytes())
      }
      space.check(0)
      await upload.write(chunk)
    }
    const digest = verify(digests, sha256, sha512)
    await upload?.finish()
    const received = { size, digest, discard, release }
    if (upload !== undefined) return { ...received, upload }
    return { ...received, inline: inline.bytes() }
  } catch (error) {
    // After a failed sync both files stay, and the next start looks at what is there.
    if (error instanceof SyncError && error.code === 'ERR04') {
      release()
      await upload?.leave()
    } else await discard()
    throw error
  }
}

/** A bucket has room. */
const bytesOnDisk = ({ blobUrl }: Config, length = 0): number => (blobUrl === null ? length : 0)

function verify(digests: Digest[], sha256: Hash, sha512: Hash | null): Uint8Array {
  const found = { sha256: sha256.digest(), sha512: sha512?.digest() }
  for (const { algorithm, value } of digests) {
    const bytes = found[algorithm]
    if (bytes === undefined || !constantTimeEqual(bytes, value)) {
      throw malformed('The body does not have the digest that its header says: send it again.')
    }
  }
  return found.sha256
}

const tooLarge = (): SyncError =>
  new SyncError('SIZE01', 'The value is larger than this server takes: /info says how large.')

export const isIntact = (value: Uint8Array, digest: Uint8Array): boolean =>
  constantTimeEqual(hash('sha256', value, 'buffer'), digest)
