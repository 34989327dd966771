// Owns the judgement on a soak, and its table.
import { median } from '../helpers/figures.ts'
import type { Sample } from './measure.ts'
import type { Figures } from './soak.ts'

/** The most that is right of each figure at any time. */
const MOST: Readonly<Record<string, number>> = {
  'memory at its peak, MiB': 256,
  'values left open': 0,
  'held polls and event streams': 0,
  'accounts too many': 0,
  'stores too many': 0,
  'inline values too many': 0,
  'permissions too many': 0,
  'sessions too many': 0,
  'expired sessions': 0,
  'superseded files, their time over': 0,
  'tombstones, their time over': 0,
  'grants of no account': 0,
  'files beside rows': 0,
  'files in trash': 0,
  // Emptied when it has 16 MiB.
  'write-ahead log, MiB': 64,
  // Housekeeping begins to give them back at 2,000.
  'free pages': 2000,
}

/** By how much the end may be above the beginning. */
const GROWTH: Readonly<Record<string, number>> = {
  'file descriptors': 2,
  threads: 2,
  'write-ahead log, MiB': 16,
}
const MEMORY = 'memory of its own, MiB'
const MEMORY_GROWTH_MIB = 12
// Caches are full by then, and so few samples say nothing of a trend.
const SAMPLES_FOR_MEMORY = 20

/** What leaked or grew. */
export function judge(samples: Sample[]): string[] {
  const of = (name: string): number[] => samples.map((sample) => sample[name] as number)
  const wrong = Object.entries(MOST).flatMap(([name, most]) => {
    const found = of(name).find((value) => !(value <= most) || (most === 0 && value !== 0))
    return found === undefined ? [] : [`LEAKED: ${name}: ${found}, and at most ${most} is right`]
  })
  const growth =
    samples.length < SAMPLES_FOR_MEMORY ? GROWTH : { ...GROWTH, [MEMORY]: MEMORY_GROWTH_MIB }
  const grown = Object.entries(growth).flatMap(([name, most]) => {
    const { early, late } = ends(of(name))
    return late - early <= most ? [] : [`GROWN: ${name}: from ${early} to ${late}`]
  })
  return [...wrong, ...grown]
}

/** Medians of the second fifth and of the last: in the first, caches fill. */
function ends(values: number[]): { early: number; late: number } {
  const fifth = Math.ceil(values.length / 5)
  return {
    early: median(values.slice(Math.min(fifth, values.length - 1), 2 * fifth)),
    late: median(values.slice(-fifth)),
  }
}

const rate = ({ operations, workingSeconds }: Figures): number =>
  Math.round(operations / workingSeconds)

export function progress(figures: Figures): string {
  const { operations, seconds, samples, problems } = figures
  const memory = samples.at(-1)?.[MEMORY]
  return `${operations} operations, ${rate(figures)} a second, ${seconds.toFixed(0)} s, ${memory} MiB, ${problems.length} problems`
}

const WIDTH = 44
const line = (name: string, ...values: (string | number)[]): string =>
  name.padEnd(WIDTH) + values.map((value) => String(value).padStart(10)).join('')

/** All that was done and found, in lines. */
export function toTable(figures: Figures): string {
  const { samples, problems, kinds } = figures
  const named = (word: string): number =>
    problems.filter((problem) => problem.startsWith(word)).length
  return [
    line('operations', figures.operations),
    ...[...kinds]
      .toSorted(([, a], [, b]) => b - a)
      .map(([name, count]) => line(`  ${name}`, count)),
    line('days of the server, each with a quiet end', figures.days),
    line('seconds', Math.round(figures.seconds)),
    line('  operations a second, between these ends', rate(figures)),
    '',
    line(`at ${samples.length} quiet moments`, 'first', 'early', 'late', 'last', 'peak'),
    ...Object.keys(samples[0] ?? {}).map((name) => {
      const values = samples.map((sample) => sample[name] as number)
      const { early, late } = ends(values)
      return line(
        `  ${name}`,
        values[0] as number,
        early,
        late,
        values.at(-1) as number,
        Math.max(...values),
      )
    }),
    '',
    line('stores read at the end', figures.read),
    line('lost', figures.lost),
    line('leaked', named('LEAKED')),
    line('grown', named('GROWN')),
    line('wrong, all in all', problems.length),
    'no hard limit on memory: the peak is judged',
  ].join('\n')
}
