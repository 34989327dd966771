// Owns taking turns: so many at a time, by rank and in order, and no more waiting than allowed.
import { busy } from './errors.ts'

interface Waiting {
  rank: number
  begin: () => void
  refuse: (reason: unknown) => void
}

/**
 * Answers a function that runs its work in turn, the lowest rank first. When too many wait, the last of
 * the highest rank throws ERR05, be it the new one or one that waits.
 */
export function turns(running: number, waiting = Number.POSITIVE_INFINITY) {
  const queue: Waiting[] = []
  let free = running

  function wait(rank: number): Promise<void> {
    const place = queue.findLastIndex((other) => other.rank <= rank) + 1
    if (queue.length >= waiting) {
      if (place === queue.length) throw busy()
      queue.pop()?.refuse(busy())
    }
    return new Promise((begin, refuse) => queue.splice(place, 0, { rank, begin, refuse }))
  }

  return async function inTurn<T>(work: () => Promise<T>, rank = 0): Promise<T> {
    if (free > 0) free--
    else await wait(rank)
    try {
      return await work()
    } finally {
      const next = queue.shift()
      if (next === undefined) free++
      else next.begin()
    }
  }
}
