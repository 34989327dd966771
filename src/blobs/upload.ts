// Owns a value on its way into a bucket: a small one in one piece, a larger one in parts, of which one is
// in memory at a time.
import { createHash, type Hash } from 'node:crypto'
import { TimeSpan } from 'oslo'
import { busy } from '../errors.ts'
import type { Upload } from './blobs.ts'
import type { Bucket, Parts } from './bucket.ts'
import type { Memory, Share } from '../memory.ts'

export interface Uploading {
  bucket: Bucket
  memory: Memory
  name: string
  /** What the client says, in bytes. */
  length: number | undefined
  wall: () => number
  /** Takes what is undone when nobody waits for it any more. */
  undo: (work: Promise<void>) => void
}

/** Larger values go in parts of it; there can be 10,000 of them, which is 78 GiB. */
const PART_BYTES = 8 * 1024 * 1024
/** What an upload gets before its client has shown that there is more to come. */
const FIRST_BYTES = 1024 * 1024
const MOST_AGE_MS = new TimeSpan(24, 'h').milliseconds()

interface Filling {
  share: Share
  /** Of a size that it will have; the system gives what is filled. */
  bytes: Uint8Array
  /** How much of it may be filled. */
  room: number
  used: number
  sha256: Hash
}

export function startUpload(uploading: Uploading): Upload {
  const { bucket, name, wall, undo } = uploading
  const beganMs = wall()
  const filler = fill(uploading)
  const etags: string[] = []
  let parts: Parts | undefined
  let isPut = false

  function checkAge(): void {
    if (wall() - beganMs > MOST_AGE_MS) throw busy()
  }

  /** Sends what has come together as one more part. */
  async function sendPart(): Promise<void> {
    const { body, sha256 } = filler.full()
    parts ??= await bucket.begin(name)
    const number = etags.length + 1
    etags.push(await bucket.putPart({ ...parts, number }, body, sha256))
    filler.again()
  }

  return {
    name,
    async write(chunk) {
      for (let done = 0; done < chunk.length;) {
        done += await filler.add(chunk.subarray(done))
        if (filler.used() === PART_BYTES) await sendPart()
      }
    },
    async finish() {
      checkAge()
      filler.check()
      isPut = true
      if (parts === undefined && filler.used() < PART_BYTES) {
        const { body, sha256 } = filler.full()
        await bucket.put(name, body, sha256)
      } else if (filler.used() > 0) await sendPart()
      if (parts !== undefined) await bucket.complete(parts, etags, filler.total())
      filler.drop()
    },
    async leave() {
      filler.drop()
    },
    async discard() {
      filler.drop()
      if (parts !== undefined) undo(bucket.abort(parts))
      if (isPut) undo(bucket.remove(name))
    },
    checkAge,
  }
}

/** The part that fills up. Its memory goes to others when it fills too slowly: then it throws ERR05. */
function fill({ memory, length }: Uploading) {
  let part: Filling | undefined
  let total = 0
  let isEvicted = false

  async function begin(): Promise<Filling> {
    const size = length === undefined ? PART_BYTES : Math.min(length - total, PART_BYTES)
    const room = Math.min(size, FIRST_BYTES)
    const share = await memory.take(room, () => {
      isEvicted = true
      part = undefined
    })
    const bytes = Buffer.allocUnsafeSlow(size)
    return { share, bytes, room, used: 0, sha256: createHash('sha256') }
  }

  async function grow(growing: Filling): Promise<void> {
    await growing.share.grow(growing.bytes.length - growing.room)
    growing.room = growing.bytes.length
  }

  function check(): void {
    if (isEvicted) throw busy()
  }

  return {
    /** Throws ERR05 when a part of it is gone. */
    check,
    used: () => part?.used ?? 0,
    total: () => total,
    /** Answers how many bytes it took. */
    async add(chunk: Uint8Array): Promise<number> {
      check()
      part ??= await begin()
      if (part.used === part.room) await grow(part)
      const some = chunk.subarray(0, part.room - part.used)
      part.bytes.set(some, part.used)
      part.sha256.update(some)
      part.used += some.length
      total += some.length
      return some.length
    },
    /** What it has, on its way from here on: nobody else gets its memory now. */
    full(): { body: Uint8Array; sha256: string } {
      if (part === undefined) throw busy()
      part.share.send()
      const { bytes, used, sha256 } = part
      return { body: bytes.subarray(0, used), sha256: sha256.digest('hex') }
    },
    /** It has been sent: its memory is for the next part, or for others that wait. */
    again(): void {
      part = part?.share.keep() ? { ...part, used: 0, sha256: createHash('sha256') } : undefined
    },
    drop(): void {
      part?.share.release()
      part = undefined
    },
  }
}
