// Owns randomness that a seed repeats: numbers, and how random histories are played: a few by default,
// RUNS= for more, SEED= for others, and one that failed once more by the SEED= and AT= that it names.
import type { TestContext } from 'node:test'
import fc from 'fast-check'

/** Mulberry32: the same numbers for the same seed. */
export function numbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let n = Math.imul(state ^ (state >>> 15), 1 | state)
    n = (n + Math.imul(n ^ (n >>> 7), 61 | n)) ^ n
    return ((n ^ (n >>> 14)) >>> 0) % below
  }
}

/** Plays so many; throws the first failure, made as short as can be where SHRINK is set. */
export async function expectAllPlayed<T>(
  t: TestContext,
  history: fc.IAsyncProperty<T>,
  runs: number,
): Promise<void> {
  const { SEED = '1', RUNS = String(runs), AT, SHRINK } = process.env
  const details = await fc.check(history, {
    seed: Number(SEED),
    numRuns: AT === undefined ? Number(RUNS) : 1,
    ...(AT !== undefined && { path: AT }),
    endOnFailure: SHRINK === undefined,
  })
  if (!details.failed) return
  const { errorInstance, counterexamplePath, counterexample } = details
  t.diagnostic(`SEED=${SEED} AT=${counterexamplePath} plays it again:`)
  t.diagnostic(fc.stringify(counterexample))
  throw errorInstance
}
