// Owns what is measured of a soak when all is quiet: the process, its files, and its rows beside those
// that the acknowledged operations account for.
import { readFileSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

export interface Expected {
  accounts: number
  stores: number
  permissions: number
  sessions: number
  /** Sessions that may have expired, or not yet. */
  forgotten: number
}

export type Sample = Record<string, number>

const DAY_MS = 86_400_000
/** The newest time that housekeeping believes: it is written at the end of each round. */
export function newest(root: string): number {
  return query(root, (one) => one('SELECT newest FROM node'))
}

function query<T>(root: string, ask: (one: (sql: string) => number) => T): T {
  const database = new DatabaseSync(join(root, 'sync-node.db'), { readOnly: true })
  try {
    database.exec('PRAGMA busy_timeout = 5000; BEGIN')
    return ask((sql) => Number(Object.values(database.prepare(sql).get() ?? {})[0]))
  } finally {
    database.close()
  }
}

const MIB = 1024 * 1024
const round = (value: number): number => Math.round(value * 10) / 10

export function descriptors(pid: number): string[] {
  const folder = `/proc/${pid}/fd`
  return readdirSync(folder).flatMap((fd) => {
    try {
      return [readlinkSync(join(folder, fd))]
    } catch {
      return [] // closed meanwhile
    }
  })
}

export async function sample(
  { pid, root, metrics }: { pid: number; root: string; metrics: string },
  expected: Expected,
): Promise<Sample> {
  const open = descriptors(pid)
  const text = await (await fetch(metrics)).text()
  const gauge = (name: string): number =>
    Number(new RegExp(`^sync_node_${name} (\\d+)`, 'm').exec(text)?.[1])
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1])
  return {
    'memory of its own, MiB': round(field('RssAnon') / 1024),
    'memory at its peak, MiB': round(field('VmHWM') / 1024),
    'file descriptors': open.length,
    'values left open': open.filter((link) => link.includes('/blobs/')).length,
    threads: field('Threads'),
    'held polls and event streams': gauge('held_polls') + gauge('event_streams'),
    ...rows(root, expected),
    'files in trash': readdirSync(join(root, 'trash')).length,
    'write-ahead log, MiB': round(statSync(join(root, 'sync-node.db-wal')).size / MIB),
    'database, MiB': round(statSync(join(root, 'sync-node.db')).size / MIB),
  }
}

function rows(root: string, expected: Expected): Sample {
  return query(root, (one) => {
    const count = (what: string): number => one(`SELECT count(*) FROM ${what}`)
    const now = one('SELECT newest FROM node')
    const files = count('sync_store WHERE store_file IS NOT NULL')
    const sessions = count('sync_session') - expected.sessions
    const garbage = count('blob_garbage')
    return {
      'accounts too many': count('sync_account') - expected.accounts,
      'stores too many': count('sync_store') - expected.stores,
      'inline values too many': count('store_data') - (expected.stores - files),
      'permissions too many': count('account_permission') - expected.permissions,
      'sessions too many': sessions < 0 ? sessions : Math.max(0, sessions - expected.forgotten),
      'expired sessions': count(`sync_session WHERE expiration <= ${now}`),
      'superseded files, their time over': garbage,
      'tombstones, their time over': count(`tombstone WHERE since <= ${now - 181 * DAY_MS}`),
      tombstones: count('tombstone'),
      'grants of no account': count(
        `account_grant WHERE sync_account_id NOT IN (SELECT number FROM sync_account)
           OR grantee NOT IN (SELECT number FROM sync_account)`,
      ),
      'files beside rows': readdirSync(join(root, 'blobs')).length - files - garbage,
      'free pages': one('PRAGMA freelist_count'),
    }
  })
}
