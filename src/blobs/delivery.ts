// Owns bringing values that have their names into a bucket: several at once, each in parts as it comes.
import { Refusal } from '../errors.ts'
import type { Blobs } from './blobs.ts'
import { openBucket } from './bucket.ts'
import type { Away, Place } from './calls.ts'
import { openMemory } from '../memory.ts'
import * as owner from './owner.ts'
import { openReading } from './reading.ts'
import { startUpload } from './upload.ts'

export interface Delivery extends Pick<Blobs, 'read' | 'size' | 'sizes'> {
  owner(): Promise<owner.Owner | null>
  setOwner(owner: owner.Owner): Promise<void>
  /** What `body` throws leaves nothing behind. Throws Away. */
  put(name: string, body: AsyncIterable<Uint8Array>, length?: number): Promise<void>
  close(): void
}

/** For the operator: what was brought already is there. */
export function refusal({ state, reason }: Away): Refusal {
  const what = state === 'refused' ? 'refuses this server' : 'does not answer'
  return new Refusal(`The bucket ${what} (${reason}): run this again.`)
}

/** At once, so that their parts have room in memory beside each other. */
export const DELIVERED_AT_ONCE = 6

export function openDelivery(place: Place): Delivery {
  const bucket = openBucket(place, () => undefined)
  const memory = openMemory()
  return {
    owner: () => owner.find(bucket),
    setOwner: (one) => owner.write(bucket, one),
    read: (name, part) => openReading(bucket, name, part),
    size: async (name) => (await bucket.size(name)) ?? undefined,
    sizes: (names) => bucket.sizes(names),

    async put(name, body, length) {
      const undone: Promise<void>[] = []
      const undo = (work: Promise<void>): void => void undone.push(work)
      const upload = startUpload({ bucket, memory, name, length, wall: Date.now, undo })
      try {
        for await (const chunk of body) await upload.write(chunk)
        await upload.finish()
      } catch (error) {
        await upload.discard()
        // What stays there is left over, and goes with the rest of that.
        await Promise.allSettled(undone)
        throw error
      }
    },

    close: () => bucket.close(),
  }
}
