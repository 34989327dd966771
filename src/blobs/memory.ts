// Owns the memory for parts of values on their way to a bucket: so many bytes for all of them, in turn.
import { busy } from '../errors.ts'

export interface Share {
  /** While it is sent nobody else can have it; before, its owner may wait for a slow client. */
  isSending: boolean
  release(): void
}

interface Waiting {
  bytes: number
  begin: () => void
}

interface Held {
  share: Share
  giveUp: () => void
}

/** What a start has for all uploads at once. */
const TOTAL_BYTES = 64 * 1024 * 1024
const WAIT_MS = 10_000

export type Memory = ReturnType<typeof openMemory>

/** The numbers are for tests. */
export function openMemory({ totalBytes = TOTAL_BYTES, waitMs = WAIT_MS } = {}) {
  let free = totalBytes
  const queue: Waiting[] = []
  // In the order in which they began.
  const held = new Set<Held>()

  function serve(): void {
    while (queue[0] !== undefined && queue[0].bytes <= free) {
      free -= queue[0].bytes
      queue.shift()?.begin()
    }
  }

  /** Ends the upload whose client has been filling its share for the longest. */
  function evict(): void {
    const slowest = [...held].find(({ share }) => !share.isSending)
    slowest?.giveUp()
    slowest?.share.release()
  }

  /** Throws ERR05 when its turn does not come, though the slowest had to make way. */
  async function wait(bytes: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiting = { bytes, begin: resolve }
    queue.push(waiting)
    serve()
    const refuse = (): void => {
      queue.splice(queue.indexOf(waiting), 1)
      serve()
      reject(busy())
    }
    const timers = [setTimeout(evict, waitMs), setTimeout(refuse, 2 * waitMs)]
    await promise.finally(() => timers.forEach(clearTimeout))
  }

  function hold(bytes: number, giveUp: () => void): Share {
    const one: Held = {
      giveUp,
      share: {
        isSending: false,
        release() {
          if (!held.delete(one)) return
          free += bytes
          serve()
        },
      },
    }
    held.add(one)
    return one.share
  }

  return {
    /** Waits for its turn; `giveUp` is called when others have to have it, and it is released then. */
    async take(bytes: number, giveUp: () => void): Promise<Share> {
      await wait(bytes)
      return hold(bytes, giveUp)
    },
  }
}
