// Owns chance, as a seed repeats it.
import { numbers } from '../helpers/random.ts'

export interface Dice {
  below(n: number): number
  /** True once in so many times. */
  once(times: number): boolean
  pick<T>(list: readonly T[]): T
  bytes(length: number): Buffer
}

export function dice(seed: number): Dice {
  const below = numbers(seed)
  return {
    below,
    once: (times) => below(times) === 0,
    pick: <T>(list: readonly T[]): T => list[below(list.length)] as T,
    bytes: (length) => Buffer.alloc(length, Buffer.from([below(256), below(256), below(256)])),
  }
}
