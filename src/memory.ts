// Owns the memory for what clients send and the server has to hold meanwhile (parts of values on their way
// to a bucket, JSON bodies): so many bytes for all of a kind, in turn.
import { busy } from './errors.ts'

export interface Share {
  /** Waits for so many more. Throws ERR05. */
  grow(bytes: number): Promise<void>
  /** From here on it waits for no client any more, and keeps what it has. */
  send(): void
  /** Keeps it for the next part, unless others wait: then it is released, and false. */
  keep(): boolean
  release(): void
}

interface Waiting {
  bytes: number
  /** What has to stay free beside it. */
  beside: number
  begin: () => void
}

interface Held {
  bytes: number
  /** Its client has the next word. */
  isIdle: boolean
  giveUp: () => void
}

/** What a start has for all of a kind at once. */
const TOTAL_BYTES = 64 * 1024 * 1024
/** Kept for those that have begun, of which one at least can always go on. */
const RESERVE_BYTES = 8 * 1024 * 1024
const EVICT_MS = 5000
const REFUSE_MS = 20_000

export type Memory = ReturnType<typeof openMemory>

/** The numbers are for tests. */
export function openMemory({
  totalBytes = TOTAL_BYTES,
  reserveBytes = RESERVE_BYTES,
  evictMs = EVICT_MS,
  refuseMs = REFUSE_MS,
} = {}) {
  const { isWanted, serve, wait } = inTurn(totalBytes)
  // In the order in which they began.
  const held = new Set<Held>()

  function give(one: Held): void {
    if (held.delete(one)) serve(one.bytes)
  }

  /** Ends the one whose client has been filling its share for the longest. */
  function evict(): void {
    const slowest = [...held].find(({ isIdle }) => isIdle)
    if (slowest === undefined) return
    slowest.giveUp()
    give(slowest)
  }

  /** Throws ERR05 when its turn does not come, though the slowest had to make way. */
  async function turn(bytes: number, beside: number): Promise<void> {
    const { begun, refuse } = wait(bytes, beside)
    const timers = [setTimeout(evict, evictMs), setTimeout(refuse, refuseMs)]
    await begun.finally(() => timers.forEach(clearTimeout))
  }

  return {
    /** Waits for its turn; `giveUp` is called when others have to have it, and it is released then. */
    async take(bytes: number, giveUp: () => void): Promise<Share> {
      await turn(bytes, reserveBytes)
      const one: Held = { bytes, isIdle: true, giveUp }
      held.add(one)
      return {
        async grow(more) {
          one.isIdle = false
          await turn(more, 0)
          one.bytes += more
          one.isIdle = true
        },
        send() {
          one.isIdle = false
        },
        keep() {
          if (isWanted()) give(one)
          if (!held.delete(one)) return false
          held.add(one)
          one.isIdle = true
          return true
        },
        release: () => give(one),
      }
    },
  }
}

/** So many bytes, and who waits for some of them. */
function inTurn(bytes: number) {
  let free = bytes
  const queue: Waiting[] = []

  /** Who has begun goes first: it has memory that nobody else can have meanwhile. */
  function serve(given = 0): void {
    free += given
    for (;;) {
      const begun = queue.findIndex(({ beside }) => beside === 0)
      const next = queue[Math.max(0, begun)]
      if (next === undefined || next.bytes + next.beside > free) return
      queue.splice(queue.indexOf(next), 1)
      free -= next.bytes
      next.begin()
    }
  }

  return {
    serve,
    isWanted: () => queue.length > 0,
    wait(bytes: number, beside: number): { begun: Promise<void>; refuse: () => void } {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const waiting = { bytes, beside, begin: resolve }
      queue.push(waiting)
      serve()
      const refuse = (): void => {
        queue.splice(queue.indexOf(waiting), 1)
        serve()
        reject(busy())
      }
      return { begun: promise, refuse }
    },
  }
}
