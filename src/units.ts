// Owns how numbers are written for people.

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']

/** A number of bytes: `1.5 MiB`. */
export function toSize(bytes: number): string {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1)
  const number = bytes / 1024 ** power
  return `${power === 0 ? number : number.toFixed(1)} ${UNITS[power]}`
}

/** A time, in UTC, to the minute. */
export const toTime = (ms: number): string =>
  new Date(ms).toISOString().replace('T', ' ').slice(0, 16)

const SPANS: [string, number][] = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
]

/** How long: `3 days`. */
export function toSpan(ms: number): string {
  const [name, unit] = SPANS.find(([, length]) => ms >= length) ?? ['second', 1000]
  return count(Math.round(ms / unit), name)
}

/** `1 file`, `2 files`. */
export const count = (number: number, noun: string): string =>
  `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`
