// Owns what a workload was told, and what may be there after a crash: all that was acknowledged before
// it, whatever was under way then, and nothing else.

/** The server did while it ran what it must not do at any time. */
export class Wrong extends Error {}

/** A moment: a position in the log of a disk's writes, or any other number that only grows. */
export type Mark = number

/** What was to become of a subject. */
export interface Version {
  /** Null: it is not there. */
  value: string | null
  /** Of a store that was acknowledged. */
  token?: string
  /** It was asked for then: before, nobody can see it. */
  from: Mark
  /** It was acknowledged, or seen, then: from here on it must be there. */
  sure: Mark
  /** It was seen then that it never happened. */
  until: Mark
  /** Those of one group happen all or not at all. */
  group: number
}

/** Where a client stood in its feed. */
export interface Cursor {
  user: string
  cursor: string
  at: Mark
  /** By key, what it knew there: permission and token. */
  known: [string, string][]
  /** From here on a rollback may have taken back the history that it lies in. */
  lostFrom: Mark
}

/** All of it as plain data, to be kept beside a recording. */
export interface Recorded {
  versions: Record<string, Version[]>
  /** By what a value's meta names: the SHA-256 of the value. */
  digests: Record<string, string>
  cursors: Cursor[]
  /** Once for each session that somebody was answered. */
  people: { id: string; user: string; token: string }[]
}

/** By subject, what was found; of a store with its token after a blank. */
export type Observed = ReadonlyMap<string, string>

export const FAR: Mark = Number.MAX_SAFE_INTEGER

export const nothingRecorded = (): Recorded => ({
  versions: {},
  digests: {},
  cursors: [],
  people: [],
})

export interface Pending {
  /** It was acknowledged; `tokens` by subject. */
  confirm(at: Mark, tokens?: Record<string, string>): void
  /** What it changes besides, as the answer says. */
  also(changes: Record<string, string | null>): void
}

let groups = 0

/** Something is asked for: these subjects become these values, all or none. */
export function begin(
  recorded: Recorded,
  at: Mark,
  changes: Record<string, string | null>,
): Pending {
  const group = ++groups
  const added: { subject: string; version: Version }[] = []
  function also(more: Record<string, string | null>): void {
    for (const [subject, value] of Object.entries(more)) {
      const version: Version = { value, from: at, sure: FAR, until: FAR, group }
      ;(recorded.versions[subject] ??= []).push(version)
      added.push({ subject, version })
    }
  }
  also(changes)
  return {
    also,
    confirm(sure, tokens = {}) {
      for (const { subject, version } of added) {
        version.sure = sure
        const token = tokens[subject]
        if (token !== undefined) version.token = token
      }
    },
  }
}

/** What nobody was answered is settled by what is there now. */
export function settle(recorded: Recorded, at: Mark, observed: Observed): void {
  for (const [subject, versions] of Object.entries(recorded.versions)) {
    for (const version of versions) {
      if (version.sure !== FAR || version.until !== FAR) continue
      if (isAt(version, observed.get(subject))) {
        version.sure = at
        const token = observed.get(subject)?.split(' ')[1]
        if (token !== undefined) version.token = token
      } else version.until = at
    }
  }
}

/** Of what was acknowledged, that which no feed tells. */
export interface Quiet {
  sessionsEnded: number
  passwordsChanged: number
  accountsDeleted: number
}

export function countQuiet({ versions }: Recorded): Quiet {
  const count = (kind: string, isMeant: (version: Version, index: number) => boolean): number =>
    Object.entries(versions)
      .filter(([subject]) => subject.startsWith(`${kind} `))
      .flatMap(([, history]) => history.filter(isMeant))
      .filter(({ sure }) => sure !== FAR).length
  return {
    sessionsEnded: count('session', ({ value }) => value === null),
    passwordsChanged: count('password', ({ value }, index) => value !== null && index > 0),
    accountsDeleted: count('account', ({ value }) => value === null),
  }
}

/** As a row of a table. */
export const sayQuiet = (quiet: Quiet): [string, string] => [
  '  sessions ended, passwords changed, accounts deleted',
  `${quiet.sessionsEnded}, ${quiet.passwordsChanged}, ${quiet.accountsDeleted}`,
]

/** The newest that is known to have happened: what all subjects were at a moment of rest. */
export function lastOf(recorded: Recorded): Map<string, Version | undefined> {
  return new Map(
    Object.entries(recorded.versions).map(([subject, versions]) => [
      subject,
      versions.findLast(({ sure }) => sure !== FAR),
    ]),
  )
}

/** Everything goes back to what it was at a moment of rest: all at once, or not at all. */
export function takeBack(
  recorded: Recorded,
  at: Mark,
  before: ReturnType<typeof lastOf>,
): (sure: Mark) => void {
  const group = ++groups
  const added: Version[] = []
  for (const [subject, versions] of Object.entries(recorded.versions)) {
    const { value = null, token } = before.get(subject) ?? {}
    const last = versions.findLast(({ sure }) => sure !== FAR)
    if ((last?.value ?? null) === value && last?.token === token) continue
    const version = { value, from: at, sure: FAR, until: FAR, group }
    added.push(token === undefined ? version : { ...version, token })
    versions.push(added.at(-1) as Version)
  }
  return (sure) => {
    for (const version of added) version.sure = sure
  }
}

function isAt({ value, token }: Version, found: string | undefined): boolean {
  if (found === undefined || value === null) return found === undefined && value === null
  const [content, version] = found.split(' ')
  return content === value && (token === undefined || version === token)
}

const NEVER: Version = { value: null, from: -1, sure: -1, until: FAR, group: 0 }

/**
 * What is wrong with what was found after a crash at `when`; empty when nothing is. A backup is of one
 * moment between two.
 */
export function compare(
  recorded: Recorded,
  observed: Observed,
  when: { from: Mark; to: Mark },
): string[] {
  const problems: string[] = []
  const groupsSeen = new Map<number, { done: string[]; undone: string[] }>()
  for (const [subject, history] of Object.entries(recorded.versions)) {
    const versions = [NEVER, ...history].filter(({ until }) => until === FAR || until > when.from)
    const first = versions.findLastIndex(({ sure }) => sure <= when.from)
    const possible = versions.slice(first).filter(({ from }) => from <= when.to)
    const found = observed.get(subject)
    const at = possible.findIndex((version) => isAt(version, found))
    if (at === -1) {
      const expected = possible
        .map(({ value, token = '', from, sure }) => `${value} ${token} (${from} to ${sure})`)
        .join(' or ')
      problems.push(`LOST: ${subject} is ${found ?? 'not there'}, and not ${expected}`)
      continue
    }
    // The same value twice does not say which of them it is.
    if (possible.filter((version) => isAt(version, found)).length > 1) continue
    for (const [index, { group }] of possible.entries()) {
      if (index === 0) continue
      const seen = groupsSeen.get(group) ?? { done: [], undone: [] }
      groupsSeen.set(group, seen)
      seen[index <= at ? 'done' : 'undone'].push(subject)
    }
  }
  for (const { done, undone } of groupsSeen.values()) {
    if (done.length > 0 && undone.length > 0) {
      problems.push(`TORN: ${done.join()} happened without ${undone.join()}`)
    }
  }
  for (const subject of observed.keys()) {
    if (recorded.versions[subject] === undefined) problems.push(`UNKNOWN: ${subject}`)
  }
  return problems
}
