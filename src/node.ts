// Owns a node: its folder, lock, secret, database and values, opened in the order that loses nothing.
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { openBlobs } from './blobs/disk.ts'
import { guardedClock, type TimeSource } from './clock.ts'
import type { Config } from './config.ts'
import type { CheckMessage } from './database/check.ts'
import { sql, type Database } from './database/database.ts'
import { UnusableDatabase, open as openDatabase, type OpenDatabase } from './database/embedded.ts'
import { lock as takeLock, type Lock } from './database/lock.ts'
import { SchemaError, checkSchema, isFresh, migrate } from './database/migrate.ts'
import type { Deps } from './deps.ts'
import { createFolder } from './folder.ts'
import { housekeeping, sweep } from './housekeeping.ts'
import { listenForMetrics } from './http/metrics.ts'
import { listen, type Listening } from './http/server.ts'
import { limiter } from './limit.ts'
import { listeners as openListeners } from './listeners.ts'
import { openLog, type Log } from './log.ts'
import { openMailer, type Mailer } from './mail.ts'
import { openMetrics } from './metrics.ts'
import { commitDateMs, startWorker } from './packed.ts'
import { passwords } from './password.ts'
import * as secrets from './secret.ts'
import { openSpace } from './space.ts'
import { randomBytes, unique } from './token.ts'

/** A node cannot start: the message is one line that says what to do. */
export class StartError extends Error {}

/** What a test replaces. */
export interface Replaced {
  time?: TimeSource
  mailer?: Mailer
  log?: Log
  /** Free bytes below which writes are refused. */
  floorBytes?: number
  /** What happens when the disk has failed and the process has to stop. */
  onFatal?: (reason: string) => void
}

export interface RunningNode {
  deps: Deps
  port: number
  /** Null when METRICS_PORT is not set. */
  metricsPort: number | null
  housekeep(): Promise<void>
  stop(): Promise<void>
}

const HOUSEKEEPING_MS = 60_000
const FIRST_HOUSEKEEPING_MS = 5000
const LOOK_MS = 1000
const NEARLY_FULL_BYTES = 16 * 1024 * 1024

const machineTime: TimeSource = { wall: Date.now, uptime: () => performance.now() }

/** Starts the server. Throws StartError. */
export async function start(config: Config, replaced: Replaced = {}): Promise<RunningNode> {
  const log = replaced.log ?? openLog(config)
  const onFatal = once((reason: string) => {
    log.fatal(`${reason}: the server stops, so that nothing is promised that is not kept`)
    replaced.onFatal?.(reason)
  })
  const lock = await lockFolder(config.root)
  let close = async (): Promise<void> => undefined
  let metrics: Listening | null = null
  try {
    const wasUnclean = existsSync(join(config.root, 'sync-node.db-wal'))
    const opened = await openData(config, { ...replaced, log, onFatal, isServer: true })
    const { deps, database } = opened
    close = async () => {
      await metrics?.stop()
      database.close()
      await database.closed
    }
    metrics = await listenOnMetricsPort(deps)
    const listening = await listen(deps)
    const keeper = housekeeping(deps)
    const timers = [
      setTimeout(() => void keeper.run(), FIRST_HOUSEKEEPING_MS),
      setInterval(() => void keeper.run(), HOUSEKEEPING_MS),
      setInterval(() => deps.listeners.count() > 0 && database.look(), LOOK_MS),
    ]
    const background = inBackground(deps, { database: opened.path, wasUnclean })
    return {
      deps,
      port: listening.port,
      metricsPort: metrics?.port ?? null,
      housekeep: () => keeper.run(),
      async stop() {
        for (const timer of timers) clearTimeout(timer)
        deps.listeners.end()
        await listening.stop()
        await Promise.all([keeper.stop(), background])
        await close()
        lock.close()
      },
    }
  } catch (error) {
    await close()
    lock.close()
    throw error
  }
}

/** Null without METRICS_PORT. Throws StartError. */
async function listenOnMetricsPort(deps: Deps): Promise<Listening | null> {
  const { config, metrics } = deps
  if (metrics === null || config.metricsPort === null) return null
  try {
    return await listenForMetrics(deps, metrics, config.metricsPort)
  } catch (error) {
    throw new StartError(`METRICS_PORT cannot be listened on: ${(error as Error).message}.`)
  }
}

function once(call: (reason: string) => void): (reason: string) => void {
  let isDone = false
  return (reason) => {
    if (isDone) return
    isDone = true
    call(reason)
  }
}

/**
 * Opens the data for a command, beside a server that may be running: no lock, no migration, nothing
 * made that is not there. Throws StartError.
 */
export async function openForCommand(
  config: Config,
  log: Log,
): Promise<{ deps: Deps; close(): Promise<void> }> {
  // The command's own write is refused with the reason: that is all a command has to stop for.
  const onFatal = (): void => undefined
  const { deps, database } = await openData(config, { log, onFatal, isServer: false })
  return {
    deps,
    async close() {
      database.close()
      await database.closed
    },
  }
}

/** Makes the folder, and locks it against a second server. */
async function lockFolder(root: string): Promise<Lock> {
  let lock: Lock | 'taken'
  try {
    await createFolder(root)
    lock = takeLock(root)
  } catch (error) {
    throw new StartError(`STATIC_ROOT cannot be used: ${root}: ${(error as Error).message}.`)
  }
  if (lock !== 'taken') return lock
  throw new StartError(`${root} is in use by another sync-node: stop that one first.`)
}

interface Opening extends Replaced {
  log: Log
  onFatal: (reason: string) => void
  isServer: boolean
}

async function openData(config: Config, opening: Opening) {
  const { root } = config
  const path = join(root, 'sync-node.db')
  const { log, onFatal, isServer, time = machineTime } = opening
  const isThere = (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0
  refuseLoss(config, { isThere, isServer })
  const secret = config.secretKey ?? secrets.read(root) ?? (await secrets.create(root, randomBytes))
  const keys = secrets.deriveKeys(secret)
  const space = openSpace(root, time.uptime, opening.floorBytes)
  if (isServer && space.free() < NEARLY_FULL_BYTES) space.giveUpReserve()
  const listeners = openListeners()
  const metrics = isServer && config.metricsPort !== null ? await openMetrics() : null
  const file = await openDatabase({
    path,
    checkpointFirst: isServer,
    onFatal,
    onWarning: (reason) => log.warn(reason),
    onCommit: (group) => metrics?.committed(group),
    onChange: (accounts) => listeners.announce(accounts),
  }).catch(explain)
  const database: OpenDatabase = { ...file, ...yielding(file, space) }
  try {
    await prepareSchema(database, { root, check: keys.check, time, isServer })
    const { startNumber, newest } = await readNode(database, keys.check, isServer)
    const clock = guardedClock(time, commitDateMs, newest)
    if (isServer) for (const name of ['blobs', 'trash']) await createFolder(join(root, name))
    const blobs = openBlobs({
      root,
      start: startNumber,
      random: randomBytes,
      unique,
      onFatal,
    })
    const deps: Deps = {
      config,
      database,
      health: { isDamaged: false },
      blobs,
      clock,
      keys,
      limiter: limiter(clock),
      listeners,
      log,
      mailer: opening.mailer ?? openMailer(config),
      metrics,
      passwords: passwords(),
      random: randomBytes,
      space,
    }
    return { deps, database, path }
  } catch (error) {
    file.close()
    await file.closed
    return explain(error)
  }
}

/** Nothing new is ever made beside data that is there. */
function refuseLoss(
  { root, secretKey }: Config,
  { isThere, isServer }: { isThere: boolean; isServer: boolean },
): void {
  if (!isThere && !isServer) {
    throw new StartError(`${root} holds no data: set STATIC_ROOT to the server's folder.`)
  }
  // The folder of the values is made after the schema: where it stands, there was a database.
  if (!isThere && existsSync(join(root, 'blobs'))) {
    throw new StartError(
      `sync-node.db is missing in ${root}, but values are there: restore a backup.`,
    )
  }
  if (isThere && secretKey === null && secrets.read(root) === undefined) {
    throw new StartError(`The file secret is missing in ${root}: restore it, or set SECRET_KEY.`)
  }
}

function explain(error: unknown): never {
  if (error instanceof SchemaError) throw new StartError(error.message)
  if (!(error instanceof UnusableDatabase)) throw error
  const isDamaged = error.code === 'SQLITE_NOTADB' || error.code === 'SQLITE_CORRUPT'
  throw new StartError(
    isDamaged
      ? `sync-node.db is damaged (${error.message}): restore a backup.`
      : `sync-node.db cannot be opened: ${error.message}.`,
  )
}

/** The same database, which on a full disk gives up the reserve and tries once more. */
function yielding(
  database: Database,
  space: { giveUpReserve(): boolean },
): Pick<Database, 'execute' | 'batch'> {
  async function again<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if ((error as { code?: string }).code !== 'SQLITE_FULL' || !space.giveUpReserve()) throw error
      return work()
    }
  }
  return {
    execute: (statement: Parameters<Database['execute']>[0], args?: unknown) =>
      again(() => database.execute(statement as string, args as [])),
    batch: (statements, mode) => again(() => database.batch(statements, mode)),
  }
}

async function prepareSchema(
  database: Database,
  options: { root: string; check: string; time: TimeSource; isServer: boolean },
): Promise<void> {
  const { root, check, time, isServer } = options
  if (!isServer) return checkSchema(database)
  if ((await isFresh(database)) && existsSync(join(root, 'blobs'))) {
    throw new StartError(
      `sync-node.db in ${root} is empty, but values are there: restore a backup.`,
    )
  }
  const newest = Math.max(time.wall(), commitDateMs)
  await migrate(database, [
    sql(
      `INSERT INTO node (one, id, schema, start, newest, secret_check, seq, account_number)
       VALUES (1, ?, 0, 0, ?, ?, 0, 0)`,
      [unique(randomBytes), newest, check],
    ),
  ])
}

/** What the node row says; a server's start counts, and begins a new range of the history. */
async function readNode(
  database: Database,
  check: string,
  isServer: boolean,
): Promise<{ startNumber: number; newest: number }> {
  const { rows } = await database.execute('SELECT start, newest, secret_check FROM node')
  const [row] = rows
  if (row?.['secret_check'] !== check) {
    throw new StartError(
      'The secret is not the one this data was made with: restore the file secret, or set SECRET_KEY.',
    )
  }
  if (isServer) {
    const nonce = Buffer.from(randomBytes(4)).readUInt32BE()
    await database.batch(
      [
        sql('UPDATE node SET start = start + 1'),
        sql('INSERT OR REPLACE INTO feed_start SELECT seq + 1, ? FROM node', [nonce]),
      ],
      'write',
    )
  }
  return { startNumber: Number(row['start']) + 1, newest: Number(row['newest']) }
}

/** What need not be done before the first answer. */
async function inBackground(
  deps: Deps,
  { database, wasUnclean }: { database: string; wasUnclean: boolean },
): Promise<void> {
  try {
    const moved = await sweep(deps)
    if (moved > 0)
      deps.log.warn({ files: moved }, 'unfinished uploads of an earlier run went to trash/')
    if (wasUnclean) await checkWhole(deps, database)
  } catch (error) {
    deps.log.warn({ err: error }, 'the checks in the background had to stop')
  }
}

async function checkWhole({ health, log }: Deps, path: string): Promise<void> {
  const worker = startWorker('check', { path })
  worker.unref()
  const { problems } = await new Promise<CheckMessage>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  await worker.terminate()
  if (problems.length === 0) return
  health.isDamaged = true
  log.error({ problems }, 'the database is damaged: restore a backup')
}
