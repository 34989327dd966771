// Owns the matrix of all calls that can fail, in all that a server does: its cases by name, the run of
// all or of some, and the table.
import { numbers } from '../helpers/random.ts'
import { deeds, type Deed } from './deeds.ts'
import type { Call, Fault as DiskFault, Op } from './disk.ts'
import { FAULTS, NOT_REACHED, callsOf, openFor, tryCase, type End } from './faults.ts'
import { within, type Fault, type Place, type Scope } from './place.ts'
import {
  callsOfReading,
  callsOfStep,
  openStep,
  readings,
  steps,
  tryReading,
  tryStep,
  type Reading,
  type Step,
} from './starts.ts'

/** The `at`-th call of a kind fails, and then the server is killed, or its power cut. */
interface Case {
  op: Op
  at: number
  fault: DiskFault
  end: End
}

interface Opened {
  place: Place
  calls: Call[]
  /** Answers the outcome; throws Fault. */
  try(one: Case, turn: number): Promise<string>
}

/** What calls can fail in. */
interface Subject {
  name: string
  most?: number | undefined
  open(scope: Scope, library: string): Promise<Opened>
}

const toSubject = {
  deed: (deed: Deed): Subject => ({
    name: deed.name,
    most: deed.most,
    async open(scope, library) {
      const place = await openFor(scope, library, deed)
      return {
        place,
        calls: await callsOf(place, deed),
        try: (one, turn) => tryCase(place, deed, one, turn),
      }
    },
  }),
  step: (step: Step): Subject => ({
    name: step.name,
    async open(scope, library) {
      const place = await openStep(scope, library, step)
      return {
        place,
        calls: await callsOfStep(place, step),
        async try(one) {
          if (step.isFirst !== true) return tryStep(place, step, one)
          return within((own) =>
            openStep(own, library, step).then((empty) => tryStep(empty, step, one)),
          )
        },
      }
    },
  }),
  reading: (reading: Reading): Subject => ({
    name: reading.name,
    async open(scope, library) {
      const place = await openStep(scope, library, { name: '', run: async () => '' })
      const { calls, right } = await callsOfReading(place, reading)
      return { place, calls, try: (one) => tryReading(place, { reading, right }, one) }
    },
  }),
}

export const subjects: Subject[] = [
  ...deeds.map(toSubject.deed),
  ...steps.map(toSubject.step),
  ...readings.map(toSubject.reading),
]

export interface Row {
  name: string
  cases: number
  /** Cases of calls that were left out: others are like them, or there were enough. */
  leftOut: number
  outcomes: Map<string, number>
  faults: { case: string; kind: Fault['kind']; message: string }[]
}

export interface Choice {
  seed: number
  /** How many cases of a subject; by default all. */
  most?: number
  /** The one of this name alone. */
  only?: string | undefined
}

// Of more calls of one kind on one file than that, some at the start, in the middle and at the end.
const MOST_ALIKE = 6
// How many come of so many is never the same.
const MANY = 100

interface NamedCase {
  name: string
  one: Case
}

function casesOf(name: string, calls: Call[], { seed, only }: Choice): NamedCase[] {
  const counts = new Map<Op, number>()
  const numbered = calls.map((call) => {
    const at = (counts.get(call.op) ?? 0) + 1
    counts.set(call.op, at)
    return { ...call, at }
  })
  const kinds = Map.groupBy(numbered, ({ op, path }) => `${op} ${path}`)
  const below = numbers(seed)
  return [...kinds.values()].flatMap(some).flatMap(({ op, at }) =>
    FAULTS[op].flatMap((fault) => {
      const ends: End[] = below(2) === 0 ? ['kill'] : ['cut']
      return (only === undefined ? ends : (['kill', 'cut'] as const)).map((end) => ({
        name: `${name}/${op}/${at}/${fault.name}/${end}`,
        one: { op, at, fault, end },
      }))
    }),
  )
}

/** The one that is asked for; else no more than so many, by chance. */
function choose(all: NamedCase[], { seed, most, only }: Choice & { most: number }): NamedCase[] {
  if (only !== undefined) return all.filter(({ name }) => name === only)
  if (most >= all.length) return all
  const below = numbers(seed)
  const left = [...all]
  return Array.from({ length: most }, () => left.splice(below(left.length), 1)).flat()
}

function some<T>(calls: T[]): T[] {
  if (calls.length <= MOST_ALIKE) return calls
  const all = calls.length > MANY ? calls.slice(0, calls.length / 2) : calls
  const third = MOST_ALIKE / 3
  const step = Math.floor((all.length - 2 * third) / (third + 1))
  const middle = Array.from({ length: third }, (_, one) => all[third + (one + 1) * step] as T)
  return [...all.slice(0, third), ...middle, ...all.slice(-third)]
}

/** Tries the cases of a subject one after the other, each on what the one before has left. */
export async function trySubject(
  library: string,
  subject: Subject,
  choice: Choice,
  tell: (text: string) => void = () => undefined,
): Promise<Row> {
  const row: Row = {
    name: subject.name,
    cases: 0,
    leftOut: 0,
    outcomes: new Map(),
    faults: [],
  }
  let left: { name: string; one: Case }[] | undefined
  do {
    await within(async (scope) => {
      const opened = await subject.open(scope, library)
      if (left === undefined) {
        const most = Math.min(choice.most ?? Infinity, subject.most ?? Infinity)
        const all = casesOf(subject.name, opened.calls, choice)
        left = choose(all, { ...choice, most })
        const count = opened.calls.reduce((sum, { op }) => sum + FAULTS[op].length, 0)
        row.leftOut = count - left.length
        tell(`${subject.name}: ${opened.calls.length} calls, ${left.length} cases`)
      }
      while (left.length > 0) {
        const next = left.shift() as { name: string; one: Case }
        row.cases++
        // What a fault leaves is nothing to go on with.
        if (await tryOne(row, opened, next)) continue
        const found = row.faults.at(-1)
        tell(
          `${found?.kind}: SEED=${choice.seed} AT='${next.name}' tries it again: ${found?.message}`,
        )
        break
      }
      await opened.place.kill()
    })
  } while (left !== undefined && left.length > 0)
  return row
}

async function tryOne(
  row: Row,
  opened: Opened,
  { name, one }: { name: string; one: Case },
): Promise<boolean> {
  try {
    const outcome = await opened.try(one, row.cases)
    row.outcomes.set(outcome, (row.outcomes.get(outcome) ?? 0) + 1)
    return true
  } catch (error) {
    const { kind = 'wrong', message } = error as Partial<Fault>
    row.faults.push({ case: name, kind, message: `${message}; ${opened.place.output()}` })
    return false
  }
}

const KINDS = ['wrong', 'crashed', 'contradicted', 'lost'] as const
/** Of all cases: a call comes now and then in other ways than when it was counted. A few cases tell less. */
const MOST_NOT_REACHED = { share: 0.1, ofFew: 0.25 }
const FEW = 100

const notReached = ({ outcomes }: Row): number => outcomes.get(NOT_REACHED) ?? 0

/** What is wrong with a run, besides its faults: too many cases in which nothing failed. */
export function tooFewReached(rows: Row[]): string[] {
  const { cases, ...all } = sumOf(rows)
  const share = notReached({ cases, ...all }) / cases
  const most = cases < FEW ? MOST_NOT_REACHED.ofFew : MOST_NOT_REACHED.share
  if (share <= most) return []
  return [`in ${(share * 100).toFixed(0)} % of the cases the call did not come`]
}

function sumOf(rows: Row[]): Row {
  const sum: Row = { name: 'all', cases: 0, leftOut: 0, outcomes: new Map(), faults: [] }
  for (const { cases, leftOut, outcomes, faults } of rows) {
    sum.cases += cases
    sum.leftOut += leftOut
    sum.faults.push(...faults)
    for (const [name, count] of outcomes)
      sum.outcomes.set(name, (sum.outcomes.get(name) ?? 0) + count)
  }
  return sum
}

/** One line a subject, and their sum. */
export function toTable(rows: Row[]): string {
  const width = Math.max(...rows.map(({ name }) => name.length))
  const heads = ['cases', 'left out', NOT_REACHED, ...KINDS]
  const lines = [...rows, sumOf(rows)].map((row) => {
    const { name, cases, leftOut, faults } = row
    const kinds = KINDS.map((kind) => faults.filter((fault) => fault.kind === kind).length)
    const cells = [cases, leftOut, notReached(row), ...kinds].map((n, i) =>
      String(n).padStart((heads[i] as string).length),
    )
    const outcomes = [...row.outcomes]
      .filter(([outcome]) => outcome !== NOT_REACHED)
      .map(([outcome, count]) => `${outcome} ${count}`)
    return `${name.padEnd(width)}  ${cells.join('  ')}  ${outcomes.join(', ')}`
  })
  return [`${''.padEnd(width)}  ${heads.join('  ')}`, ...lines].join('\n')
}
