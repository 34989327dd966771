// Owns guessing who has an account: what an attacker sees of ids that are known and unknown, in words and
// in time.
import { wordsOf, type Asked, type Line } from './ask.ts'

export interface Compared {
  /** All that was answered, without what differs each time: one text, when nothing tells. */
  words: string[]
  knownMs: number[]
  unknownMs: number[]
  /** How likely times that differ as much are by chance. */
  p: number
}

/** Asks about known and unknown ids in turns, each as if from an address of many; `after` is timed, too. */
export async function compare(
  line: Line,
  pairs: { known: string; unknown: string }[],
  asking: { about: (id: string, from: string) => Asked; after?: Asked },
): Promise<Compared> {
  const words = new Set<string>()
  const ms = { known: [] as number[], unknown: [] as number[] }
  for (const [i, pair] of pairs.entries()) {
    // Who comes first is drawn, or what is first in a pair would be told apart.
    const kinds =
      Math.random() < 0.5 ? (['known', 'unknown'] as const) : (['unknown', 'known'] as const)
    for (const kind of kinds) {
      const answer = await line.ask(asking.about(pair[kind], `203.0.113.${i % 250}`))
      words.add(wordsOf(answer))
      const timed = asking.after === undefined ? answer : await line.ask(asking.after)
      ms[kind].push(timed.ms)
    }
  }
  const p = rankTest(ms.known, ms.unknown)
  return { words: [...words], knownMs: ms.known, unknownMs: ms.unknown, p }
}

/** The two-sided p of Mann and Whitney's test, by its normal approximation: no two times are alike. */
export function rankTest(a: number[], b: number[]): number {
  const all = [...a.map((ms) => ({ ms, isA: true })), ...b.map((ms) => ({ ms, isA: false }))]
  all.sort((one, other) => one.ms - other.ms)
  const ranks = all.reduce((sum, { isA }, i) => sum + (isA ? i + 1 : 0), 0)
  const [n, m] = [a.length, b.length]
  const u = ranks - (n * (n + 1)) / 2
  const z = (u - (n * m) / 2) / Math.sqrt((n * m * (n + m + 1)) / 12)
  return tails(Math.abs(z))
}

/** The share of a normal distribution further out than z, on both sides: Abramowitz and Stegun 7.1.26. */
function tails(z: number): number {
  const x = z / Math.SQRT2
  const t = 1 / (1 + 0.3275911 * x)
  const factors = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]
  return factors.reduce((sum, factor, i) => sum + factor * t ** (i + 1), 0) * Math.exp(-x * x)
}
