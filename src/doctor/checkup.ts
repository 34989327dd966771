// Owns the order in which an installation is looked at. It changes nothing but what checkOrphans may
// move, and goes on as far as what is left can be read.
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Progress } from '../backup.ts'
import type { Place } from '../blobs/calls.ts'
import { openBlobs } from '../blobs/disk.ts'
import { guardedClock, machineTime } from '../clock.ts'
import type { Config } from '../config.ts'
import type { Database } from '../database/database.ts'
import { inspect } from '../database/inspect.ts'
import { lockIfThere, type Lock } from '../database/lock.ts'
import { openLog } from '../log.ts'
import { commitDateMs } from '../packed.ts'
import { openBucket } from '../place.ts'
import { isUnfinished } from '../restore.ts'
import { randomBytes, unique } from '../token.ts'
import * as checks from './database.ts'
import { checkDatabaseServer } from './database-server.ts'
import { checkFileSystem, checkSpace, checkSyncs } from './disk.ts'
import { attempt, ok, problem, warning, type Finding } from './finding.ts'
import { checkClock, checkMemory, checkOpenFiles } from './machine.ts'
import { checkLeftovers, checkRights } from './rights.ts'
import { checkServer, holderOf } from './server.ts'
import { checkOrphans, checkPlace, checkValues } from './values.ts'

export interface Checkup {
  config: Config
  /** Every byte of every value is read. */
  isDeep: boolean
  /** Told of the bytes of values that are read. */
  progress: Pick<Progress, 'begin' | 'add'>
}

type Findings = AsyncGenerator<Finding>

export async function* checkup(checkup: Checkup): Findings {
  const { config } = checkup
  const { root } = config
  yield* checkSettings(config)
  yield* await attempt('memory', checkMemory)
  if (config.database !== null) {
    yield* checkDatabaseServer(config, config.database, async function* (database) {
      const node = await readNode(database)
      if (node !== undefined) {
        yield* checkBucket(checkup, { database, node, isServing: true, mayMove: false })
      }
    })
    return
  }
  const rights = checkRights(root)
  yield* rights.findings
  if (!rights.isReadable) return
  yield* await attempt('file system', () => checkFileSystem(root))
  yield* await attempt('space', () => checkSpace(root))
  yield* await attempt('syncs', () => checkSyncs(root))
  // Held until the end: a server that starts meanwhile would change what is looked at.
  let lock: Lock | 'taken' | undefined
  try {
    lock = lockIfThere(root)
  } catch (error) {
    yield problem('server', `the file lock cannot be used: ${(error as Error).message}`)
  }
  const isServing = lock === 'taken'
  try {
    const pid = isServing ? holderOf(root) : undefined
    if (isServing) yield* await checkServer(config)
    else yield ok('server', 'none runs on this data')
    yield* await attempt('open files', () => checkOpenFiles(pid))
    yield* await attempt('leftovers', () => checkLeftovers(root, isServing))
    yield* checkData(checkup, lock)
  } finally {
    if (lock !== 'taken') lock?.close()
  }
}

function* checkSettings({ registration, publicUrl, smtpUrl }: Config): Generator<Finding> {
  if (registration === 'open' && publicUrl !== null) {
    const text = `anyone who reaches ${publicUrl} can make an account: REGISTRATION=invite or closed changes that`
    yield warning('registration', text)
  } else yield ok('registration', registration)
  const mail = 'SMTP_URL is not set: a forgotten password is reset by `sync-node reset ID`'
  yield ok('mail', smtpUrl === null ? mail : 'a mail server is set')
  const url = publicUrl ?? 'https://…'
  const text = `behind one on this machine, let it send X-Forwarded-For, or clients are not told apart: \`sync-node doctor ${url}\` asks whether it does`
  yield ok('proxy', text)
}

async function* checkData(checkup: Checkup, lock: Lock | 'taken' | undefined): Findings {
  const { root } = checkup.config
  const path = join(root, 'sync-node.db')
  if (isUnfinished(root)) {
    yield problem('restore', 'one did not come to its end: do it again, with the same backup')
    return
  }
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0) {
    yield* withoutDatabase(root)
    return
  }
  let database: Database
  try {
    database = inspect(path, { isAlone: lock !== undefined && lock !== 'taken' })
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    const isDamaged = ['SQLITE_CORRUPT', 'SQLITE_NOTADB'].includes(code)
    const text = isDamaged
      ? `sync-node.db is damaged (${message}): restore a backup`
      : `sync-node.db cannot be opened: ${message}`
    yield problem('database', text)
    yield* await attempt('secret', () => checks.checkSecret(checkup.config, undefined))
    return
  }
  try {
    yield* checkDatabase(checkup, database, lock)
  } finally {
    database.close()
  }
}

function* withoutDatabase(root: string): Generator<Finding> {
  const signs = ['blobs', 'trash', 'reserve'].filter((name) => existsSync(join(root, name)))
  const text =
    signs.length > 0
      ? `sync-node.db is missing, but ${signs.join(', ')} is there: restore a backup`
      : `${root} holds no data: set STATIC_ROOT to the server's folder, or start the server`
  yield problem('database', text)
}

async function* checkDatabase(
  checkup: Checkup,
  database: Database,
  lock: Lock | 'taken' | undefined,
): Findings {
  const { config, isDeep } = checkup
  const isServing = lock === 'taken'
  const integrity = await attempt('database', () => checks.checkIntegrity(database, isDeep))
  yield* integrity
  const isWhole = integrity.every(({ level }) => level === 'ok')
  const node = await readNode(database)
  yield* await attempt('secret', () => checks.checkSecret(config, node?.secret))
  yield* await attempt('clock', () => checkClock(node?.newest, { isServing }))
  yield* await attempt('log', () => checks.checkLog(join(config.root, 'sync-node.db'), isServing))
  if (node === undefined) {
    if (isWhole)
      yield problem('database', 'the row that says what it is, is gone: restore a backup')
    return
  }
  yield* await attempt('references', () => checks.checkReferences(database))
  const schema = await attempt('schema', () => checks.checkSchemaOf(database))
  yield* schema
  if (schema.some(({ level }) => level === 'problem')) return
  yield* await attempt('sums', () => checks.checkSums(database))
  const mayMove = lock !== undefined && !isServing && isWhole
  const looked = { database, node, isServing, mayMove }
  yield* config.blobUrl === null ? checkFiles(checkup, looked) : checkBucket(checkup, looked)
}

async function* checkBucket({ config, isDeep, progress }: Checkup, looked: Looked): Findings {
  const { database, node } = looked
  const clock = guardedClock(machineTime, commitDateMs, node.newest)
  const deps = { clock, database, log: openLog({ logLevel: 'silent' }), random: randomBytes }
  const blobs = await openBucket(deps, config.blobUrl as Place, {
    start: node.start,
    isServer: false,
  })
  try {
    const found = await checkPlace({ database, blobs })
    yield found
    if (found.level === 'problem') return
    if (isDeep) progress.begin('values', node.bytes)
    const seen = isDeep ? progress.add : () => undefined
    yield* await attempt('values', () => checkValues({ database, blobs }, { isDeep, seen }))
  } finally {
    await blobs.close()
  }
}

interface Looked {
  database: Database
  node: NodeRow
  isServing: boolean
  mayMove: boolean
}

async function* checkFiles(checkup: Checkup, looked: Looked): Findings {
  const { config, isDeep, progress } = checkup
  const { root } = config
  const { database, node, isServing, mayMove } = looked
  if (!existsSync(join(root, 'blobs'))) {
    yield problem('values', 'the folder blobs is missing: restore a backup')
    return
  }
  const blobs = await openBlobs({
    root,
    // A server that runs may be writing files of its own start: those are none of an earlier one.
    start: isServing ? node.start : node.start + 1,
    random: randomBytes,
    unique,
    onFatal: () => undefined,
  })
  try {
    if (isDeep) progress.begin('values', node.bytes)
    const seen = isDeep ? progress.add : () => undefined
    yield* await attempt('values', () => checkValues({ database, blobs }, { isDeep, seen }))
    const clock = guardedClock(machineTime, commitDateMs, node.newest)
    yield* await attempt('orphans', () =>
      checkOrphans({ database, blobs, clock }, { lastStart: node.start, mayMove }),
    )
  } finally {
    await blobs.close()
  }
}

interface NodeRow {
  start: number
  newest: number
  secret: string
  bytes: number
}

/** Undefined where the database has no such row, or cannot be read. */
async function readNode(database: Database): Promise<NodeRow | undefined> {
  try {
    const [row] = (await database.execute('SELECT * FROM node')).rows
    if (row === undefined) return undefined
    return {
      start: Number(row['start']),
      newest: Number(row['newest']),
      secret: String(row['secret_check']),
      bytes: Number(row['bytes'] ?? 0),
    }
  } catch {
    return undefined
  }
}
