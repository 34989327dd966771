// Owns what is measured as data, and as the text that is printed.
import { cpus, release } from 'node:os'
import { median } from '../../test/helpers/figures.ts'

export interface Figure {
  who: string
  /** The median of the rounds. */
  value: number
  rounds: number[]
}

export interface Target {
  wanted: string
  found: string
  isMet: boolean
}

export interface Result {
  work: string
  unit: string
  figures: Figure[]
  targets: Target[]
}

export interface Report {
  date: string
  machine: string
  rounds: number
  minutes: number
  results: Result[]
  /** By peer: what it does not do. */
  lacks: Record<string, string>
  /** By peer: why it was not measured. */
  missing: Record<string, string>
}

export const machine = (): string =>
  `${cpus().length} × ${cpus()[0]?.model.trim()}, Linux ${release()}, Node ${process.versions.node}`

export const mib = (kib: number): number => kib / 1024

export function figure(who: string, rounds: number[]): Figure {
  return { who, value: median(rounds), rounds }
}

/** How one stands to another, round by round: what disturbs the machine disturbs both. */
function ratio({ figures }: Pick<Result, 'figures'>, who: string, other: string): number {
  const [ones, others] = [who, other].map((name) => figures.find((one) => one.who === name)?.rounds)
  if (ones === undefined || others === undefined) return Number.NaN
  return median(ones.map((one, round) => one / (others[round] as number)))
}

/** A target that a ratio has; not met where there is nothing to compare with. */
export const atLeast = (
  result: Pick<Result, 'figures'>,
  least: number,
  [who, other]: [string, string],
): Target => {
  const found = ratio(result, who, other)
  return {
    wanted: `at least ${least} × ${other}`,
    found: Number.isNaN(found) ? `no ${other} here` : `${toDigits(found)} ×`,
    isMet: found >= least,
  }
}

export const atMost = (found: number, most: number, unit: string): Target => ({
  wanted: `at most ${most} ${unit}`,
  found: `${toDigits(found)} ${unit}`,
  isMet: found <= most,
})

/** Three digits that count. */
export const toDigits = (value: number): string =>
  value >= 100
    ? Math.round(value).toLocaleString('en')
    : String(Number(value.toPrecision(value < 1 ? 2 : 3)))

const plain = ({ who, value }: Figure, first: Figure): string[] => [
  who,
  toDigits(value),
  `${toDigits(value / first.value)} ×`,
]

function toTable(rows: string[][]): string[] {
  const widths = rows.reduce<number[]>(
    (most, row) => row.map((cell, i) => Math.max(cell.length, most[i] ?? 0)),
    [],
  )
  return rows.map(([name = '', ...rest]) =>
    ['', name.padEnd(widths[0] ?? 0), ...rest.map((cell, i) => cell.padStart(widths[i + 1] ?? 0))]
      .join('  ')
      .trimEnd(),
  )
}

export function toText({ work, unit, figures, targets }: Result): string {
  const [first] = figures
  const rows = figures.map((one) => plain(one, first as Figure))
  return [
    `${work} (${unit})`,
    ...toTable(rows),
    ...targets.map(
      ({ wanted, found, isMet }) => `  target: ${wanted}: ${found}${isMet ? '' : ', MISSED'}`,
    ),
    '',
  ].join('\n')
}

const headOf = ({ work, unit }: Result): string => `${work.split(',', 1)[0]}, ${unit}`

/** Everybody's figures, and what was wanted of Sync Node, as tables for the README. */
export function toMarkdown({ results, lacks }: Report): string {
  const compared = results.filter(({ figures }) => figures.some(({ who }) => who === 'nginx DAV'))
  const names = new Set(compared.flatMap(({ figures }) => figures.map(({ who }) => who)))
  const cell = ({ figures }: Result, name: string): string => {
    const found = figures.find(({ who }) => who === name)
    const [first] = figures
    if (found === undefined || first === undefined) return ''
    const digits = toDigits(found.value)
    return found === first ? digits : `${digits} (${toDigits(found.value / first.value)} ×)`
  }
  const table = (rows: string[][]): string =>
    rows.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
  const targets = results.flatMap(({ work, targets: all }) =>
    all.map(({ wanted, found, isMet }) => [work, wanted, isMet ? found : `**${found}**`]),
  )
  return [
    table([
      ['', ...compared.map(headOf), 'what it does not do'],
      ['---', ...compared.map(() => '---'), '---'],
      ...[...names].map((name) => [
        name,
        ...compared.map((one) => cell(one, name)),
        lacks[name] ?? '',
      ]),
    ]),
    '',
    table([['work', 'target', 'found'], ['---', '---', '---'], ...targets]),
    '',
  ].join('\n')
}

export function toSummary({ results, lacks, missing, minutes }: Report): string {
  const targets = results.flatMap(({ work, targets: all }) => all.map((one) => ({ work, ...one })))
  const missed = targets.filter(({ isMet }) => !isMet)
  return [
    'What they do not do:',
    ...Object.entries(lacks).map(([name, text]) => `  ${name.padEnd(22)}${text}`),
    ...Object.entries(missing).map(([name, why]) => `NOT MEASURED: ${name}: ${why}`),
    '',
    `${targets.length - missed.length} of ${targets.length} targets met, in ${minutes.toFixed(1)} minutes on ${machine()}`,
    ...missed.map(({ work, wanted, found }) => `  missed: ${work}: ${wanted}: ${found}`),
  ].join('\n')
}
