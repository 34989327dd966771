// Owns the values that are objects in a bucket: sent there in parts as they come in, under names that
// are never used twice, and read as they go out. None of it touches the disk.
import { setTimeout as sleep } from 'node:timers/promises'
import { TimeSpan } from 'oslo'
import type { RandomBytes } from '../token.ts'
import type { Blobs, State } from './blobs.ts'
import { openBucket, type Bucket } from './bucket.ts'
import { Away, type Place } from './calls.ts'
import { openMemory } from '../memory.ts'
import * as owner from './owner.ts'
import { openReading } from './reading.ts'
import { startUpload } from './upload.ts'

export interface S3Blobs extends Blobs {
  /**
   * Asks whose values are there: another database's would be taken for left over. What is nobody's is
   * taken, if it may be. Until it is known, nothing is written or removed. Throws Away.
   */
  claim(): Promise<Claim>
}

type Claim = 'ours' | 'nobody' | 'another' | 'unfinished'

// So that a database that went back finds the values it names.
const GRACE_MS = new TimeSpan(24, 'h').milliseconds()
const UPLOAD_LEFT_MS = new TimeSpan(2, 'd').milliseconds()
const LEFT_MS = new TimeSpan(7, 'd').milliseconds()
const NAME = /^\d+-[0-9a-v]{26}$/
// What /health says may be so old; it waits for a new answer no longer than for that of the database.
const LOOK_MS = 5000
const LOOK_WAIT_MS = 1000
const REMOVED_AT_ONCE = 8
// A stop waits no longer for what the next sweep does as well.
const UNDO_MS = 3000

interface Options {
  place: Place
  start: number
  random: RandomBytes
  unique: (random: RandomBytes) => string
  wall: () => number
  /** The id of the database, and whether it may be the first here. */
  owner: { id: string; mayTake: boolean }
  onState: (state: State, reason: string) => void
}

export function openBlobs(options: Options): S3Blobs {
  const { place, start, random, unique, wall, onState } = options
  const bucket = openBucket(place, onState)
  const { claim, expectOurs } = claimed(bucket, options.owner)
  const memory = openMemory()
  const undoing = inBackground()

  return {
    damaged: new Set<string>(),
    graceMs: GRACE_MS,
    isShared: true,
    claim,

    async create(length) {
      await expectOurs()
      const name = `${start}-${unique(random)}`
      return startUpload({ bucket, memory, name, length, wall, undo: undoing.add })
    },

    read: (name, part) => openReading(bucket, within(name), part),
    size: async (name) => (await bucket.size(within(name))) ?? undefined,
    sizes: (names) => bucket.sizes(names),

    async remove(names) {
      await expectOurs()
      await removeFrom(bucket, names)
    },

    async *listEarlier() {
      await expectOurs()
      for await (const { now, objects } of bucket.list()) {
        yield objects
          .filter(({ name, modified }) => NAME.test(name) && now - modified > LEFT_MS)
          .map(({ name }) => name)
      }
    },

    async setAside(name) {
      await bucket.remove(within(name))
      return true
    },

    async tidy() {
      await expectOurs()
      const { now, uploads } = await bucket.listUploads()
      for (const { name, id, modified } of uploads) {
        if (NAME.test(name) && now - modified > UPLOAD_LEFT_MS) await bucket.abort({ name, id })
      }
    },

    state: watched(bucket),

    async close() {
      await Promise.race([undoing.settled(), sleep(UNDO_MS, undefined, { ref: false })])
      bucket.close()
    },
  }
}

/** What nobody waits for; where it fails, what stays there is left over, and goes with the rest of that. */
function inBackground() {
  const running = new Set<Promise<void>>()
  return {
    add(work: Promise<void>): void {
      const done = work.catch(() => undefined).finally(() => running.delete(done))
      running.add(done)
    },
    settled: () => Promise.all(running),
  }
}

function claimed(bucket: Bucket, { id, mayTake }: Options['owner']) {
  let isOurs = false

  async function claim(): Promise<Claim> {
    const found = await owner.find(bucket)
    if (found !== null && found.id !== id) return 'another'
    if (found?.isUnfinished === true) return 'unfinished'
    if (found === null) {
      if (!mayTake) return 'nobody'
      await owner.write(bucket, { id, isUnfinished: false })
    }
    isOurs = true
    return 'ours'
  }

  return {
    claim,
    async expectOurs(): Promise<void> {
      if (!isOurs && (await claim()) !== 'ours') throw new Away('refused', 'it is of other data')
    },
  }
}

async function removeFrom(bucket: Bucket, names: string[]): Promise<void> {
  for (let i = 0; i < names.length; i += REMOVED_AT_ONCE) {
    const some = names.slice(i, i + REMOVED_AT_ONCE)
    await Promise.all(some.map((name) => bucket.remove(within(name))))
  }
}

/** How the bucket is: where nothing was asked of it lately, it is now. */
function watched(bucket: Bucket): () => Promise<State> {
  let look: Promise<void> | undefined
  return async () => {
    if (bucket.quietMs() > LOOK_MS) {
      look ??= bucket
        .look()
        .catch(() => undefined)
        .finally(() => {
          look = undefined
        })
      await Promise.race([look, sleep(LOOK_WAIT_MS, undefined, { ref: false })])
    }
    return bucket.state()
  }
}

/** Throws for what leads elsewhere: names come from rows, and who wrote those may have made them up. */
function within(name: string): string {
  if (!NAME.test(name)) throw new Error('not the name of a value')
  return name
}
