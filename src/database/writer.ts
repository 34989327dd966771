// Owns the only connection of a process that writes: a worker thread that makes one transaction, and
// so one sync, of all the batches that wait, and answers them when that sync is done.
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads'
import { UNKNOWN_OUTCOME, isFull } from './database.ts'
import {
  SQLITE_IOERR_WRITE,
  checkpoint,
  connect,
  isSqliteError,
  resultCode,
  type Connection,
} from './sqlite.ts'
import type { StatementSync } from 'node:sqlite'

export interface WriterData {
  path: string
  /** Empty the WAL before the first answer, as a server must: see the start in node.ts. */
  checkpointFirst: boolean
}

export type Argument = null | string | number | bigint | Uint8Array

export interface WriteRequest {
  id: number
  /** SQL text travels once: afterwards `text` alone names it. */
  statements: { text: number; sql?: string; args: Argument[] }[]
  bytes: number
}

export interface WrittenStatement {
  rows: Record<string, unknown>[]
  changes: number
  lastInsertRowid: number | bigint
}

export type WriteAnswer =
  | { id: number; results: WrittenStatement[] }
  | { id: number; failure: { code: string; message: string; statement: number } }

export type WriterMessage =
  | { ready: true }
  | { refused: { code: string | undefined; message: string } }
  /** `touched`: accounts whose feed or sessions the group changed; `commitMs`: what its sync took. */
  | { answers: WriteAnswer[]; touched: number[]; commitMs?: number }
  /** Another process has written: nobody knows to whom it matters. */
  | { foreign: true }
  | { warning: string }
  | { fatal: string }
  | { closed: true }

const MAX_GROUP = 64
const MAX_GROUP_BYTES = 4 * 1024 * 1024
const MAX_GROUP_CHANGES = 20_000
// Who was just answered often writes again at once: of what a sync takes, so much is worth waiting for
// them. On a disk that syncs within milliseconds it is not.
const GATHER_SHARE = 1 / 4
const LEAST_GATHER_MS = 1
const CHECKPOINT_BYTES = 16 * 1024 * 1024
const BUSY_TIMEOUT_MS = 5000

// The failures of a COMMIT after which nothing can have happened.
const HARMLESS = new Set([
  'SQLITE_FULL',
  'SQLITE_BUSY',
  'SQLITE_LOCKED',
  'SQLITE_CONSTRAINT',
  'SQLITE_READONLY',
])

// A page that one batch needs cannot be read: no reason to refuse the others.
const UNREADABLE = new Set(['SQLITE_IOERR', 'SQLITE_CORRUPT', 'SQLITE_NOTADB'])

// Temporary triggers on this connection note whom a write concerns: no caller has to know, and what is
// rolled back takes its notes with it.
const WATCH = `
  CREATE TEMP TABLE touched (account INTEGER PRIMARY KEY);
  CREATE TEMP TRIGGER touched_permission AFTER UPDATE OF change_seq ON main.account_permission
  BEGIN INSERT OR IGNORE INTO touched VALUES (NEW.sync_account_id); END;
  CREATE TEMP TRIGGER touched_tombstone AFTER INSERT ON main.tombstone
  BEGIN INSERT OR IGNORE INTO touched VALUES (NEW.sync_account_id); END;
  CREATE TEMP TRIGGER touched_session AFTER DELETE ON main.sync_session
  BEGIN INSERT OR IGNORE INTO touched VALUES (OLD.id); END;`

let isWatching = false

const port = parentPort as MessagePort
const { path, checkpointFirst } = workerData as WriterData
const texts = new Map<number, string>()
const returning = new WeakMap<StatementSync, boolean>()
const queue: WriteRequest[] = []
let expected = 0
let syncMs = 0
const napping = new Int32Array(new SharedArrayBuffer(4))
let nextCheckpointBytes = CHECKPOINT_BYTES
let isDead = false
let walInode: number | undefined
/** Counts what other connections commit: all that is not of this process. */
let dataVersion: unknown

const send = (message: WriterMessage): void => {
  port.postMessage(message)
}

let connection: Connection
try {
  connection = connect(path, { writes: true, busyTimeoutMs: BUSY_TIMEOUT_MS })
  // After a failed sync the page cache can show WAL frames that are not on the disk, and what would
  // be committed behind that hole would be lost with it: nothing is served before the WAL is empty.
  if (checkpointFirst && checkpoint(connection).busy) {
    connection.database.close()
    send({ refused: { code: 'SQLITE_BUSY', message: 'another process keeps the database busy' } })
  } else {
    watch()
    lookForOthers()
    port.on('message', receive)
    send({ ready: true })
  }
} catch (error) {
  send({ refused: { code: resultCode(error), message: (error as Error).message } })
}

type Message = WriteRequest | 'close' | 'look'

function receive(first: Message): void {
  let isClosing = take(first)
  while (!isClosing) {
    isClosing = gather()
    if (queue.length === 0) break
    const answered = writeGroup()
    isClosing ||= takeAll()
    expected = Math.min(MAX_GROUP, answered + queue.length)
  }
  if (isClosing) close()
}

/** Takes what has come, and waits a little for those whom the last group kept from writing. */
function gather(): boolean {
  let isClosing = takeAll()
  const untilMs = performance.now() + syncMs * GATHER_SHARE
  const isWorthIt = syncMs * GATHER_SHARE >= LEAST_GATHER_MS && queue.length > 0
  while (isWorthIt && !isClosing && queue.length < expected && performance.now() < untilMs) {
    Atomics.wait(napping, 0, 0, LEAST_GATHER_MS / 4)
    isClosing = takeAll()
  }
  return isClosing
}

function takeAll(): boolean {
  let isClosing = false
  for (let more; (more = receiveMessageOnPort(port)) !== undefined;) {
    if (take(more.message as Message)) isClosing = true
  }
  return isClosing
}

function take(message: Message): boolean {
  if (message === 'close') return true
  if (message === 'look') {
    lookForOthers()
    return false
  }
  for (const { text, sql } of message.statements) if (sql !== undefined) texts.set(text, sql)
  queue.push(message)
  return false
}

/** One transaction for as many waiting batches as fit, each under a savepoint of its own; answers how many. */
function writeGroup(): number {
  const group: WriteRequest[] = []
  let answers: WriteAnswer[] = []
  try {
    if (isDead) throw new Error('the writer has stopped')
    fillGroup(group, answers)
  } catch (error) {
    // BEGIN failed, or the transaction had to be given up: nothing of the group happened.
    if (group.length === 0) group.push(...queue.splice(0))
    if (connection.database.isTransaction) connection.database.exec('ROLLBACK')
    const code = isDead ? 'SQLITE_READONLY' : (harmless(error) ?? resultCode(error))
    // The last one failed, and those before it can be tried without it.
    if (!isDead && UNREADABLE.has(code ?? '')) queue.unshift(...group.splice(0, group.length - 1))
    send({ answers: refuseAll(group, error, code), touched: [] })
    return group.length
  }
  const startMs = performance.now()
  const failure = commit()
  const commitMs = performance.now() - startMs
  syncMs = commitMs
  if (failure !== null) answers = refuseAll(group, failure.error, failure.code)
  send({ answers, touched: failure === null ? takeTouched() : [], commitMs })
  if (failure?.code === UNKNOWN_OUTCOME) {
    die(`the database could not be written: ${failure.error.message}`)
  } else checkpointWhenLarge()
  return group.length
}

function fillGroup(group: WriteRequest[], answers: WriteAnswer[]): void {
  connection.prepare('BEGIN IMMEDIATE').run()
  const changesBefore = totalChanges()
  let bytes = 0
  while (queue.length > 0 && group.length < MAX_GROUP && bytes < MAX_GROUP_BYTES) {
    const request = queue.shift() as WriteRequest
    group.push(request)
    bytes += request.bytes
    answers.push(writeOne(request))
    if (totalChanges() - changesBefore >= MAX_GROUP_CHANGES) break
  }
}

function watch(): void {
  // A new file gets its tables by the first write.
  const query = "SELECT 1 FROM sqlite_master WHERE name = 'tombstone'"
  if (connection.database.prepare(query).get() === undefined) return
  connection.database.exec(WATCH)
  isWatching = true
}

function takeTouched(): number[] {
  if (!isWatching) watch()
  if (!isWatching) return []
  const rows = connection.prepare('SELECT account FROM touched').all() as { account: number }[]
  if (rows.length > 0) connection.prepare('DELETE FROM touched').run()
  return rows.map(({ account }) => account)
}

function lookForOthers(): void {
  const version = connection.prepare('PRAGMA data_version').get()?.['data_version']
  if (dataVersion !== undefined && version !== dataVersion) send({ foreign: true })
  dataVersion = version
}

/** Null when all of the group is durable. */
function commit(): { error: Error; code: string | undefined } | null {
  const { database, prepare } = connection
  try {
    prepare('COMMIT').run()
    checkWal()
    return null
  } catch (error) {
    const code = harmless(error)
    if (code !== undefined && database.isTransaction) database.exec('ROLLBACK')
    return { error: error as Error, code: code ?? UNKNOWN_OUTCOME }
  }
}

/** Throws when the log is gone or another's: somebody removed ours, and what stands in it with it. */
function checkWal(): void {
  const { ino } = statSync(`${path}-wal`)
  walInode ??= ino
  if (ino !== walInode) throw new Error('the -wal file is not the one that was written')
}

const refuseAll = (
  group: WriteRequest[],
  error: unknown,
  code: string | undefined,
): WriteAnswer[] => group.map((request) => failed(request, error, { code }))

function writeOne(request: WriteRequest): WriteAnswer {
  const { database, prepare } = connection
  prepare('SAVEPOINT one').run()
  const results: WrittenStatement[] = []
  try {
    for (const { text, args } of request.statements) {
      results.push(run(texts.get(text) as string, args))
    }
    prepare('RELEASE one').run()
    return { id: request.id, results }
  } catch (error) {
    if (!database.isTransaction || UNREADABLE.has(resultCode(error) ?? '')) throw error
    prepare('ROLLBACK TO one').run()
    prepare('RELEASE one').run()
    return failed(request, error, { code: resultCode(error), statement: results.length })
  }
}

function run(sql: string, args: Argument[]): WrittenStatement {
  const statement = connection.prepare(sql)
  let returnsRows = returning.get(statement)
  if (returnsRows === undefined) {
    // A pragma does its work as it is stepped through, rows or not.
    returnsRows = statement.columns().length > 0 || sql.startsWith('PRAGMA')
    returning.set(statement, returnsRows)
  }
  if (returnsRows) {
    const rows = statement.all(...args) as Record<string, unknown>[]
    return { rows, changes: rows.length, lastInsertRowid: 0 }
  }
  const { changes, lastInsertRowid } = statement.run(...args)
  return { rows: [], changes: Number(changes), lastInsertRowid }
}

const failed = (
  request: WriteRequest,
  error: unknown,
  { code, statement = 0 }: { code: string | undefined; statement?: number },
): WriteAnswer => ({
  id: request.id,
  failure: { code: code ?? 'UNKNOWN', message: (error as Error).message, statement },
})

function totalChanges(): number {
  const row = connection.prepare('SELECT total_changes() AS n').get() as { n: number }
  return row.n
}

/** The code of a failure after which nothing can have happened; undefined for others. */
function harmless(error: unknown): string | undefined {
  const code = resultCode(error)
  return HARMLESS.has(code ?? '') ? code : refusedWrite(error)
}

/** A file system that became read-only, or a quota of it that is full, refuses a write before anything of it can have landed. */
function refusedWrite(error: unknown): string | undefined {
  if (!isSqliteError(error) || error.errcode !== SQLITE_IOERR_WRITE) return undefined
  // Only an attempt tells: after an error, ext4 says that it can be written until one tries.
  const probe = join(dirname(path), `probe-${process.pid}`)
  try {
    writeFileSync(probe, 'x', { flag: 'wx' })
    return undefined
  } catch (reason) {
    if (isFull(reason)) return 'SQLITE_FULL'
    return (reason as NodeJS.ErrnoException).code === 'EROFS' ? 'SQLITE_READONLY' : undefined
  } finally {
    removeProbe(probe)
  }
}

function removeProbe(probe: string): void {
  try {
    rmSync(probe, { force: true })
  } catch {
    // It is empty, and the next attempt fails by it: that is what a failing disk comes to.
  }
}

function checkpointWhenLarge(): void {
  const { size } = statSync(`${path}-wal`)
  if (size < nextCheckpointBytes) return
  nextCheckpointBytes = CHECKPOINT_BYTES
  try {
    // A reader of another process (a backup) may keep the WAL for long: nobody waits for it here.
    connection.database.exec('PRAGMA busy_timeout = 0')
    if (checkpoint(connection).busy) nextCheckpointBytes = size + CHECKPOINT_BYTES
  } catch (error) {
    if (harmless(error) !== undefined) {
      nextCheckpointBytes = size + CHECKPOINT_BYTES
      send({ warning: `the checkpoint has to wait: ${(error as Error).message}` })
    } else {
      die(`the checkpoint failed: ${(error as Error).message}`)
    }
  } finally {
    connection.database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`)
  }
}

function die(reason: string): void {
  isDead = true
  send({ fatal: reason })
}

function close(): void {
  while (queue.length > 0) writeGroup()
  const isClosed = closeDatabase()
  send({ closed: true })
  if (isClosed) port.close()
}

/**
 * Closing makes a checkpoint of its own. After one that failed that would be a sync tried again, and
 * the log deleted on its word: the database stays open then, until the process is gone.
 */
function closeDatabase(): boolean {
  try {
    if (!isDead) checkpoint(connection)
  } catch (error) {
    if (harmless(error) === undefined) {
      die(`the last checkpoint failed: ${(error as Error).message}`)
    }
  }
  if (isDead) return false
  connection.database.close()
  return true
}
