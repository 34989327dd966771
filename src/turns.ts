// Owns taking turns: so many at a time, in order, and no more waiting than allowed.
import { busy } from './errors.ts'

/** Answers a function that runs its work in turn, or throws ERR05 when too many wait. */
export function turns(running: number, waiting = Number.POSITIVE_INFINITY) {
  const queue: (() => void)[] = []
  let free = running
  return async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (free > 0) free--
    else if (queue.length >= waiting) throw busy()
    else await new Promise<void>((resolve) => queue.push(resolve))
    try {
      return await work()
    } finally {
      const next = queue.shift()
      if (next === undefined) free++
      else next()
    }
  }
}
