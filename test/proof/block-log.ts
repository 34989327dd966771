// Owns the log of a disk's writes (in the format of dm-log-writes), and the states of the disk that a
// power cut can leave: all up to a flush, and of what came after it whatever the disk had got to.
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { numbers } from '../helpers/random.ts'

export interface BlockLog {
  entries: Entry[]
  file: number
}

interface Entry {
  /** In bytes, on the disk and in the log. */
  at: number
  length: number
  data: number
  isFlush: boolean
  isDiscard: boolean
}

/**
 * How a cut leaves what came after the last flush: all of it up to the cut; some of it, as a disk may
 * order it; and some of it, in sectors that are there or not, each for itself.
 */
type Kind = 'prefix' | 'reordered' | 'torn'

export interface Cut {
  kind: Kind
  /** So many entries of the log were written. */
  at: number
  seed: number
}

const SECTOR = 512
const [FLUSH, DISCARD] = [1, 4]

export function openLog(path: string): BlockLog {
  const file = openSync(path, 'r')
  const head = Buffer.alloc(32)
  readSync(file, head, 0, 32, 0)
  const count = Number(head.readBigUInt64LE(16))
  const entries: Entry[] = []
  for (let offset = SECTOR; entries.length < count;) {
    readSync(file, head, 0, 32, offset)
    const [sector, sectors, flags] = [0, 8, 16].map((at) => Number(head.readBigUInt64LE(at))) as [
      number,
      number,
      number,
    ]
    const isDiscard = (flags & DISCARD) !== 0
    const length = sectors * SECTOR
    const data = offset + SECTOR
    entries.push({ at: sector * SECTOR, length, data, isFlush: (flags & FLUSH) !== 0, isDiscard })
    offset = data + (isDiscard ? 0 : length)
  }
  return { entries, file }
}

/** So many cuts from `begin` on, in their order, each position before any is cut at twice. */
export function planCuts(
  { entries }: Pick<BlockLog, 'entries'>,
  { begin, count, seed }: { begin: number; count: number; seed: number },
): Cut[] {
  const random = numbers(seed)
  const places = entries.length - begin + 1
  return Array.from({ length: count }, (_, index): Cut => {
    const drawn = random(10)
    return {
      kind: drawn < 4 ? 'prefix' : drawn < 8 ? 'reordered' : 'torn',
      at:
        begin + Math.min(places - 1, Math.floor(((index + random(1000) / 1000) * places) / count)),
      seed: random(2 ** 31),
    }
  }).sort((one, other) => one.at - other.at)
}

const CHUNK = 64 * 1024
const ZEROS = Buffer.alloc(CHUNK)

/** What a disk holds after so many entries, in memory; it is only ever written to. */
export function openBase({ entries, file }: BlockLog) {
  const chunks = new Map<number, Buffer>()
  const changed = new Set<number>()
  let applied = 0

  function write({ at, length, data, isDiscard }: Entry): void {
    for (let done = 0; done < length;) {
      const number = Math.floor((at + done) / CHUNK)
      const offset = (at + done) % CHUNK
      const part = Math.min(CHUNK - offset, length - done)
      let chunk = chunks.get(number)
      if (chunk === undefined && !isDiscard) {
        chunk = Buffer.alloc(CHUNK)
        chunks.set(number, chunk)
      }
      changed.add(number)
      if (isDiscard) chunk?.fill(0, offset, offset + part)
      else readSync(file, chunk as Buffer, offset, part, data + done)
      done += part
    }
  }

  return {
    advance(to: number): void {
      for (; applied < to; applied++) write(entries[applied] as Entry)
    },
    /** Makes a file of it; what is all zeros is a hole. */
    copyTo(path: string, bytes: number): void {
      for (const number of changed) if (chunks.get(number)?.equals(ZEROS)) chunks.delete(number)
      changed.clear()
      const image = openSync(path, 'w')
      ftruncateSync(image, bytes)
      for (const [number, chunk] of chunks) writeSync(image, chunk, 0, CHUNK, number * CHUNK)
      closeSync(image)
    },
  }
}

/** Up to where all is on the disk: the last flush before the cut. */
export function flushedAt({ entries }: BlockLog, at: number): number {
  for (let index = at; index > 0; index--) if (entries[index - 1]?.isFlush === true) return index
  return 0
}

/** Writes to a copy of what was flushed what the cut let through besides. */
export function applyTail(
  { entries, file }: BlockLog,
  path: string,
  { cut, from }: { cut: Cut; from: number },
): void {
  if (from === cut.at) return
  const random = numbers(cut.seed)
  const kept = [10, 50, 90][random(3)] as number
  const isKept = (): boolean => cut.kind === 'prefix' || random(100) < kept
  const image = openSync(path, 'r+')
  for (const entry of entries.slice(from, cut.at)) {
    if (cut.kind !== 'torn' || entry.isDiscard) {
      if (isKept()) write(file, image, entry)
      continue
    }
    const { at, data, length } = entry
    for (let offset = 0; offset < length; offset += SECTOR) {
      if (!isKept()) continue
      write(file, image, { ...entry, at: at + offset, data: data + offset, length: SECTOR })
    }
  }
  closeSync(image)
}

function write(file: number, image: number, { at, length, data, isDiscard }: Entry): void {
  if (length === 0) return
  const bytes = Buffer.alloc(length)
  if (!isDiscard) readSync(file, bytes, 0, length, data)
  writeSync(image, bytes, 0, length, at)
}
