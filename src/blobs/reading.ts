// Owns an object on its way out of a bucket. A connection that breaks is taken up again where it was.
import type { IncomingMessage } from 'node:http'
import type { Part, Reading } from './blobs.ts'
import type { Bucket } from './bucket.ts'
import { Away, LATE } from './calls.ts'

const SILENCE_MS = 10_000
const MOST_BREAKS = 3
const NEARLY_BYTES = 1024

/** Undefined when it is not there. */
export async function openReading(
  bucket: Bucket,
  name: string,
  part: Part,
): Promise<Reading | undefined> {
  const first = await bucket.get(name, part)
  if (first === null) return undefined
  const last = Math.min(part.end, first.size - 1)
  let { incoming } = first
  let chunks = iterate(incoming)
  let left: Uint8Array = new Uint8Array(0)
  let at = part.start
  let breaks = 0

  async function next(): Promise<void> {
    const timer = setTimeout(() => incoming.destroy(new Error(LATE)), SILENCE_MS)
    try {
      const { done, value } = await chunks.next()
      if (done === true) throw new Error('it ended early')
      left = value
      breaks = 0
    } finally {
      clearTimeout(timer)
    }
  }

  async function resume(cause: unknown): Promise<void> {
    if (++breaks > MOST_BREAKS) throw new Away('unreachable', (cause as Error).message)
    incoming.destroy()
    const again = await bucket.get(name, { start: at, end: part.end })
    if (again === null) throw new Error('a value went while it was read')
    incoming = again.incoming
    chunks = iterate(incoming)
  }

  return {
    size: first.size,
    async read(buffer, length) {
      // Whole, as of a file: what a reader holds back is its last buffer.
      const wanted = Math.min(length, last - at + 1)
      for (let done = 0; done < wanted;) {
        while (left.length === 0) await next().catch(resume)
        const some = left.subarray(0, wanted - done)
        buffer.set(some, done)
        left = left.subarray(some.length)
        done += some.length
        at += some.length
      }
      return wanted
    },
    async close() {
      // What is at its end, or nearly, leaves its connection to the next call.
      if (last - at < NEARLY_BYTES) incoming.resume()
      else incoming.destroy()
    },
  }
}

const iterate = (incoming: IncomingMessage): AsyncIterator<Uint8Array> =>
  incoming.iterator({ destroyOnReturn: false })
