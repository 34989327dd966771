// Owns looking at a data folder after a crash: all that it holds, by subject, and whatever does not
// agree in it. The database is opened and recovered as the server's writer does it.
import { hash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as change from '../../src/change.ts'
import * as cursor from '../../src/cursor.ts'
import { statementsOn } from '../../src/database/embedded.ts'
import { checkpoint, connect, type Connection } from '../../src/database/sqlite.ts'
import type { Deps } from '../../src/deps.ts'
import { SyncError } from '../../src/errors.ts'
import { openLog } from '../../src/log.ts'
import { passwords } from '../../src/password.ts'
import { deriveKeys, read as readSecret } from '../../src/secret.ts'
import { digest } from '../../src/token.ts'
import type { Cursor, Mark, Recorded } from './history.ts'
import { apply } from './workload.ts'

export interface Found {
  observed: Map<string, string>
  /** What is wrong whatever had been acknowledged. */
  problems: string[]
  /** By the names of the files of values, the SHA-256 that each must have. */
  files: Map<string, string>
  /** Files in blobs/ that nothing names, and how many are in trash/. */
  leftOver: string[]
  trashed: number
}

type FeedDeps = Pick<Deps, 'clock' | 'database' | 'keys' | 'log'>

const log = openLog({ logLevel: 'silent' })
// The newest, and some from all the time before.
const CURSORS_TRIED = 3
const CURSORS_BEFORE = 2

export const nothingFound = (problems: string[] = []): Found => ({
  observed: new Map(),
  problems,
  files: new Map(),
  leftOver: [],
  trashed: 0,
})

export const digestOf = (value: Uint8Array | undefined): string | undefined =>
  value && hash('sha256', value, 'hex')

interface Options {
  when: Mark
  recover: boolean
  cursors: boolean
  /** False where the files of values do not stand in the folder: `files` says what they must be. */
  hasFiles?: boolean
}

/**
 * Opens the data at `root`. `when` is the moment of the crash, by which the cursors that clients had
 * are known; `recover` is false beside a running server.
 */
export async function observe(
  root: string,
  recorded: Recorded,
  { when, recover, cursors, hasFiles = true }: Options,
): Promise<Found> {
  const found = nothingFound()
  const secret = readSecret(root)
  if (typeof secret !== 'string') return { ...found, problems: ['the secret is lost'] }
  const keys = deriveKeys(secret)
  const connection = connect(join(root, 'sync-node.db'), { writes: recover, busyTimeoutMs: 5000 })
  try {
    if (recover) checkpoint(connection)
    else connection.database.exec('BEGIN')
    const check = connection.prepare('SELECT secret_check FROM node').get()?.['secret_check']
    if (check !== keys.check) found.problems.push('the secret is not the one of the data')
    if (recover) lookForDamage(connection, found)
    readRows(connection, { recorded, found })
    const hashes = connection.prepare(HASHES).all()
    readValues(connection, { recorded, found })
    if (hasFiles) {
      for (const [file, digest] of found.files) {
        if (digestOf(read(join(root, 'blobs', file))) !== digest) {
          found.problems.push(`NOT WHOLE: the file ${file}`)
        }
      }
    }
    found.leftOver = list(join(root, 'blobs')).filter((name) => !isNamed(connection, name))
    found.trashed = list(join(root, 'trash')).length
    checkSums(connection, found)
    const database = statementsOn(connection) as Deps['database']
    const clock: Deps['clock'] = { now: Date.now, wall: Date.now } as Deps['clock']
    // A feed is read outside of any transaction, as a server does.
    if (!recover) connection.database.exec('COMMIT')
    await readPasswords(hashes, { recorded, found })
    if (cursors) await checkFeeds({ clock, database, keys, log }, { recorded, found, when })
    return found
  } finally {
    connection.database.close()
  }
}

function lookForDamage({ prepare }: Connection, { problems }: Found): void {
  const [{ integrity_check: whole } = {}] = prepare('PRAGMA integrity_check(3)').all()
  if (whole !== 'ok') problems.push(`DAMAGED: ${String(whole)}`)
  if (prepare('PRAGMA foreign_key_check').all().length > 0) problems.push('DAMAGED: foreign keys')
}

// What a dead account leaves goes later, and is nobody's meanwhile.
const LIVING = `EXISTS (SELECT 1 FROM account_permission o JOIN sync_account a
  ON a.number = o.sync_account_id WHERE o.store_key = t.store_key AND o.permission = 'OWN' AND a.dead = 0)`
const DEAD = `SELECT store_key FROM sync_store t WHERE NOT ${LIVING}`
const STORES = `SELECT t.store_key, store_token, store_meta, size, digest, store_file, d.value,
  ${LIVING} AS lives FROM sync_store t LEFT JOIN store_data d ON d.id = t.store_data`
const PERMISSIONS = `SELECT a.id, p.permission, t.store_meta FROM account_permission p
  JOIN sync_account a ON a.number = p.sync_account_id JOIN sync_store t USING (store_key)
  WHERE a.dead = 0 AND ${LIVING}`
const HASHES = 'SELECT id, password FROM sync_account WHERE dead = 0'
const SECRETS = `SELECT 'session ' || s.token AS subject, a.id AS value
    FROM sync_session s JOIN sync_account a ON a.number = s.id
  UNION ALL SELECT 'invitation ' || token, 'good' FROM invitation
  UNION ALL SELECT 'reset ' || token, 'good' FROM password_reset_token
  UNION ALL SELECT 'account ' || id, iif(disabled, 'disabled', 'enabled') FROM sync_account WHERE dead = 0`

const nameIn = (meta: unknown): string => String(meta).split(':')[0] ?? ''

interface Reading {
  recorded: Recorded
  found: Found
}

function readRows({ prepare }: Connection, { recorded, found: { observed } }: Reading): void {
  for (const row of prepare(SECRETS).all()) {
    const subject = String(row['subject'])
    // One that nobody was told of may be there.
    if (recorded.versions[subject] !== undefined) observed.set(subject, String(row['value']))
  }
  for (const row of prepare(PERMISSIONS).all()) {
    const subject = `permission ${nameIn(row['store_meta'])} ${String(row['id'])}`
    observed.set(subject, String(row['permission']))
  }
}

function readValues({ prepare }: Connection, { recorded, found }: Reading): void {
  for (const row of prepare(STORES).all()) {
    const { store_meta: meta, store_token: token, store_file: file } = row
    if (row['lives'] === 1) {
      found.observed.set(`store ${nameIn(meta)}`, `${String(meta)} ${String(token)}`)
    }
    const digest = Buffer.from(row['digest'] as Uint8Array).toString('hex')
    const inline = row['value'] as Uint8Array | null
    const isOurs = digest === recorded.digests[String(meta)]
    const isWhole =
      file !== null || (digestOf(inline ?? undefined) === digest && inline?.length === row['size'])
    if (!isOurs || !isWhole) found.problems.push(`NOT WHOLE: the row of ${String(meta)}`)
    if (file !== null) found.files.set(String(file), digest)
  }
}

const { verify } = passwords()
/** By what is kept of it: each takes its time. */
const knownPasswords = new Map<string, string>()

/** The password of each account, of those that its person ever asked for. */
async function readPasswords(
  hashes: Record<string, unknown>[],
  { recorded, found }: Reading,
): Promise<void> {
  for (const { id, password } of hashes) {
    const subject = `password ${String(id)}`
    for (const { value } of recorded.versions[subject] ?? []) {
      const kept = String(password)
      if (value === null || kept === '' || knownPasswords.has(kept)) continue
      if (await verify(value, kept)) knownPasswords.set(kept, value)
    }
    const known = knownPasswords.get(String(password))
    if (known !== undefined && recorded.versions[subject]) found.observed.set(subject, known)
  }
}

const NAMED = `SELECT 1 FROM sync_store WHERE store_file = ?1
  UNION ALL SELECT 1 FROM blob_garbage WHERE store_file = ?1`

const isNamed = ({ prepare }: Connection, file: string): boolean =>
  prepare(NAMED).get(file) !== undefined

const read = (path: string): Buffer | undefined =>
  statSync(path, { throwIfNoEntry: false })?.isFile() === true ? readFileSync(path) : undefined

const list = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : [])

const SUMS: [string, string][] = [
  [
    'quotas',
    `SELECT count(*) AS wrong FROM sync_account a WHERE used <> (
       SELECT coalesce(sum(t.size), 0) FROM account_permission p JOIN sync_store t USING (store_key)
       WHERE p.sync_account_id = a.number AND p.permission = 'OWN')`,
  ],
  [
    'totals',
    `SELECT count(*) AS wrong FROM node WHERE stores <> (SELECT count(*) FROM sync_store)
       OR bytes <> (SELECT coalesce(sum(size), 0) FROM sync_store)
       OR garbage <> (SELECT count(*) FROM blob_garbage)`,
  ],
  [
    'small values',
    `SELECT count(*) AS wrong FROM store_data d
     WHERE NOT EXISTS (SELECT 1 FROM sync_store WHERE store_data = d.id)`,
  ],
  [
    'positions in feeds',
    `SELECT count(*) AS wrong FROM account_permission
     WHERE change_seq > (SELECT seq FROM node) OR change_seq = 0`,
  ],
]

function checkSums({ prepare }: Connection, { problems }: Found): void {
  for (const [what, query] of SUMS) {
    if (prepare(query).get()?.['wrong'] !== 0) problems.push(`WRONG SUMS: ${what}`)
  }
}

/** Each feed tells what the rows say, from the beginning and from the cursors that clients had. */
async function checkFeeds(
  deps: FeedDeps,
  { recorded, found, when }: { recorded: Recorded; found: Found; when: Mark },
): Promise<void> {
  for (const { user, token } of recorded.people) {
    if (found.observed.get(`session ${digest(token)}`) === undefined) continue
    const { rows } = await deps.database.execute({
      sql: 'SELECT number, key_salt FROM sync_account WHERE id = ?',
      args: [user],
    })
    const self = {
      token: digest(token),
      account: Number(rows[0]?.['number']),
      keySalt: rows[0]?.['key_salt'] as unknown as Uint8Array,
    }
    const whole = new Map<string, string>()
    apply(whole, await readOn(deps, self, await change.beginning(deps)))
    const { rows: held } = await deps.database.execute({
      sql: `SELECT store_key, p.permission, store_token FROM held_permission p
        JOIN sync_store USING (store_key) WHERE sync_account_id = ?`,
      args: [self.account],
    })
    const rowsSay = held.map((row): [string, string] => [
      String(row['store_key']),
      `${String(row['permission'])} ${String(row['store_token'])}`,
    ])
    const differs = differenceOf(whole, new Map(rowsSay))
    if (differs !== null) found.problems.push(`FEED: it does not tell of ${differs}`)
    const earlier = recorded.cursors.filter((one) => one.user === user && one.at <= when)
    const every = Math.ceil(earlier.length / CURSORS_BEFORE)
    const tried = earlier.filter(
      (_, index) => index >= earlier.length - CURSORS_TRIED || index % every === 0,
    )
    for (const one of tried) {
      await checkCursor(deps, self, { one, whole, when, problems: found.problems })
    }
  }
}

type Self = Parameters<typeof change.part>[1]

async function readOn(
  deps: FeedDeps,
  self: Self,
  since: cursor.Position,
): Promise<Parameters<typeof apply>[1]> {
  const changes: Parameters<typeof apply>[1] = []
  for (let position = since; ;) {
    const part = await change.part(deps, self, position, { limit: 1000, withData: false })
    changes.push(...part.entries.map((entry) => entry.change))
    ;({ position } = part)
    if (!part.more) return changes
  }
}

async function checkCursor(
  deps: FeedDeps,
  self: Self,
  {
    one,
    whole,
    when,
    problems,
  }: { one: Cursor; whole: Map<string, string>; when: Mark; problems: string[] },
): Promise<void> {
  let position: cursor.Position
  try {
    position = await cursor.open(deps, self, one.cursor)
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== 'FEED01') throw error
    if (when < one.lostFrom) problems.push('FEED: a cursor is ahead of what is there')
    return
  }
  const known = new Map(one.known)
  apply(known, await readOn(deps, self, position))
  // Nobody sees them, and those who knew them are told when their rows go.
  const { rows: dead } = await deps.database.execute(DEAD)
  for (const row of dead) known.delete(String(row['store_key']))
  const differs = differenceOf(known, whole)
  if (differs !== null) problems.push(`FEED: a cursor skips ${differs}`)
}

function differenceOf(
  one: ReadonlyMap<string, string>,
  other: ReadonlyMap<string, string>,
): string | null {
  for (const key of new Set([...one.keys(), ...other.keys()])) {
    if (one.get(key) !== other.get(key)) {
      return `${key}: ${one.get(key) ?? 'nothing'}, not ${other.get(key) ?? 'nothing'}`
    }
  }
  return null
}
