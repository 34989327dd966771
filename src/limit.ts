// Owns counting of attempts: so many a window and key, in bounded memory, lost at a restart.
import { LRUCache } from 'lru-cache'
import { TimeSpan } from 'oslo'
import type { Clock } from './clock.ts'
import { SyncError } from './errors.ts'

export interface Limit {
  name: string
  count: number
  windowMs: number
}

export interface Limiter {
  /** Counts one attempt against each limit, or throws RATE01 and counts none. */
  takeAll(attempts: readonly (readonly [Limit, string])[]): void
  /** Counts `cost` attempts at once, or throws RATE01 and counts none. */
  take(limit: Limit, key: string, cost?: number): void
  /** Counts that `key` asks, whatever comes of it; answers how often, until it rests for 15 minutes. */
  ask(key: string): number
  /** Gives back an attempt that turned out not to count. */
  refund(limit: Limit, key: string): void
  /** Takes one of the `count` places that a key has at once, or throws RATE01; answers how to leave. */
  enter(places: { name: string; count: number }, key: string): () => void
  /** Remembers for 30 days that `key` did well. */
  remember(key: string): void
  remembers(key: string): boolean
}

// About 200 bytes each: an attacker with many addresses pushes out the oldest, not the memory.
const MAX_WINDOWS = 50_000
const MAX_REMEMBERED = 20_000
// Of its own, so that those who only ask push out nothing that counts.
const MAX_ASKING = 10_000
const REST_MS = new TimeSpan(15, 'm').milliseconds()
const REMEMBERED_MS = new TimeSpan(30, 'd').milliseconds()

export function limiter(clock: Clock): Limiter {
  const windows = new LRUCache<string, { count: number; until: number }>({ max: MAX_WINDOWS })
  const remembered = new LRUCache<string, number>({ max: MAX_REMEMBERED })
  const inside = new Map<string, number>()
  const idOf = (limit: Limit, key: string): string => `${limit.name} ${key}`

  function current(limit: Limit, key: string): { count: number; until: number } {
    const now = clock.now()
    const found = windows.get(idOf(limit, key))
    if (found !== undefined && found.until > now) return found
    const fresh = { count: 0, until: now + limit.windowMs }
    windows.set(idOf(limit, key), fresh)
    return fresh
  }

  function check(limit: Limit, key: string, cost: number): void {
    const { count, until } = current(limit, key)
    if (count + cost > limit.count) throw tooMany(Math.ceil((until - clock.now()) / 1000))
  }

  return {
    takeAll(attempts) {
      for (const [limit, key] of attempts) check(limit, key, 1)
      for (const [limit, key] of attempts) current(limit, key).count++
    },
    take(limit, key, cost = 1) {
      check(limit, key, cost)
      current(limit, key).count += cost
    },
    ask: asking(clock),
    refund(limit, key) {
      const window = windows.get(idOf(limit, key))
      if (window === undefined) return
      window.count--
      // What the busy server did not try leaves nothing behind that pushes others out.
      if (window.count <= 0) windows.delete(idOf(limit, key))
    },
    enter({ name, count }, key) {
      const id = `${name} ${key}`
      const taken = inside.get(id) ?? 0
      if (taken >= count) throw tooMany(1)
      inside.set(id, taken + 1)
      let isInside = true
      return () => {
        if (!isInside) return
        isInside = false
        const left = (inside.get(id) ?? 1) - 1
        if (left === 0) inside.delete(id)
        else inside.set(id, left)
      }
    },
    remember(key) {
      remembered.set(key, clock.now() + REMEMBERED_MS)
    },
    remembers: (key) => (remembered.get(key) ?? 0) > clock.now(),
  }
}

function asking(clock: Clock): Limiter['ask'] {
  const asked = new LRUCache<string, { count: number; until: number }>({ max: MAX_ASKING })
  return (key) => {
    const now = clock.now()
    const found = asked.get(key)
    const count = found !== undefined && found.until > now ? found.count + 1 : 1
    asked.set(key, { count, until: now + REST_MS })
    return count
  }
}

const tooMany = (retryAfterSeconds: number): SyncError =>
  new SyncError('RATE01', 'Too many at once or in a row. Wait for as long as Retry-After says.', {
    headers: { 'Retry-After': String(Math.max(1, retryAfterSeconds)) },
  })
