// Owns a node: its folder, lock, secret, database and values, opened in the order that loses nothing.
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { guardedClock, machineTime, type TimeSource } from './clock.ts'
import type { Config } from './config.ts'
import type { CheckMessage } from './database/check.ts'
import { sql, type Database } from './database/database.ts'
import { UnusableDatabase, open as openDatabase, type OpenDatabase } from './database/embedded.ts'
import { lock as takeLock, type Lock } from './database/lock.ts'
import { checkSchema, isFresh, migrate, nextSchema } from './database/migrate.ts'
import type { Deps } from './deps.ts'
import { Refusal } from './errors.ts'
import { createFolder } from './folder.ts'
import { housekeeping, sweepAtStart } from './housekeeping.ts'
import { listenForMetrics } from './http/metrics.ts'
import { listen, type Listening } from './http/server.ts'
import { limiter } from './limit.ts'
import { listeners as openListeners } from './listeners.ts'
import { openLog, type Log } from './log.ts'
import { openMailer, type Mailer } from './mail.ts'
import { openMetrics, type Metrics } from './metrics.ts'
import { commitDateMs, startWorker, version } from './packed.ts'
import { passwords } from './password.ts'
import * as place from './place.ts'
import { isUnfinished } from './restore.ts'
import * as secrets from './secret.ts'
import { openSpace } from './space.ts'
import { randomBytes, unique } from './token.ts'
import { keepCopy } from './upgrade.ts'

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
  /** Housekeeping does not come by itself, only by `housekeep`. */
  isQuiet?: boolean
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
    const opened = await openData(config, { ...replaced, log, onFatal, isServer: true })
    const { deps, database } = opened
    close = async () => {
      await metrics?.stop()
      await opened.close()
    }
    metrics = await listenOnMetricsPort(deps)
    const listening = await listen(deps)
    const keeper = housekeeping(deps)
    const timers = [setInterval(() => deps.listeners.count() > 0 && database.look(), LOOK_MS)]
    if (replaced.isQuiet !== true) {
      timers.push(setTimeout(() => void keeper.run(), FIRST_HOUSEKEEPING_MS))
      timers.push(setInterval(() => void keeper.run(), HOUSEKEEPING_MS))
      timers.push(setInterval(() => void keeper.bury(), LOOK_MS))
    }
    const checks = inBackground(deps, opened)
    return {
      deps,
      port: listening.port,
      metricsPort: metrics?.port ?? null,
      housekeep: () => keeper.run(),
      async stop() {
        for (const timer of timers) clearTimeout(timer)
        deps.listeners.end()
        await listening.stop()
        await Promise.all([keeper.stop(), checks.stop()])
        await database.execute('UPDATE node SET is_clean = 1').catch(() => undefined)
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
  const { deps, close } = await openData(config, { log, onFatal, isServer: false })
  return { deps, close }
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
  const keys = secrets.deriveKeys(await findSecret(config))
  const space = openSpace(root, time.uptime, opening.floorBytes)
  if (isServer && space.free() < NEARLY_FULL_BYTES) space.giveUpReserve()
  const listeners = openListeners()
  const metrics = await metricsFor(config, isServer)
  const file = await openWithReserve(
    {
      path,
      checkpointFirst: isServer,
      onFatal,
      onWarning: (reason) => log.warn(reason),
      onCommit: (group) => metrics?.committed(group),
      onChange: (accounts) => listeners.announce(accounts),
    },
    isServer ? space : null,
  )
  const database: OpenDatabase = { ...file, ...yielding(file, space) }
  try {
    await prepareSchema({ config, database, log, space }, { check: keys.check, time, isServer })
    const { start: earlier, newest, wasClean } = await readNode(database)
    const clock = guardedClock(time, commitDateMs, newest)
    const blobs = await place.open(
      { clock, config, database, log, random: randomBytes },
      { start: earlier + 1, isServer, onFatal },
    )
    if (isServer) await countStart(database)
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
    return { deps, database, path, wasClean, close: () => closeData(deps, database) }
  } catch (error) {
    file.close()
    await file.closed
    return explain(error)
  }
}

const metricsFor = async ({ metricsPort }: Config, isServer: boolean): Promise<Metrics | null> =>
  isServer && metricsPort !== null ? openMetrics() : null

async function closeData({ blobs }: Deps, database: OpenDatabase): Promise<void> {
  await blobs.close()
  database.close()
  await database.closed
}

/** The secret of the data, made when there is none. */
async function findSecret({ root, secretKey }: Config): Promise<string> {
  const kept = secretKey ?? secrets.read(root)
  if (kept === null) throw new StartError(`The file secret in ${root} holds no secret: restore it.`)
  return kept ?? secrets.create(root, randomBytes)
}

/** Opens the database; on a disk too full for that, once more with the reserve given up. */
async function openWithReserve(
  options: Parameters<typeof openDatabase>[0],
  space: { giveUpReserve(): boolean } | null,
) {
  try {
    return await openDatabase(options)
  } catch (error) {
    const isFull = error instanceof UnusableDatabase && error.code === 'SQLITE_FULL'
    if (!isFull || space?.giveUpReserve() !== true) return explain(error)
    return openDatabase(options).catch(explain)
  }
}

/** Nothing new is ever made beside data that is there. */
function refuseLoss(
  { root, secretKey }: Config,
  { isThere, isServer }: { isThere: boolean; isServer: boolean },
): void {
  if (isUnfinished(root)) {
    throw new StartError(`A restore into ${root} did not come to its end: do it again.`)
  }
  if (!isThere && !isServer) {
    throw new StartError(`${root} holds no data: set STATIC_ROOT to the server's folder.`)
  }
  // These are made after the schema: where one stands, there was a database.
  const signs = ['blobs', 'trash', 'reserve'].filter((name) => existsSync(join(root, name)))
  if (!isThere && signs.length > 0) {
    throw new StartError(
      `sync-node.db is missing in ${root}, but ${signs.join(', ')} is there: restore a backup.`,
    )
  }
  if (isThere && secretKey === null && secrets.read(root) === undefined) {
    throw new StartError(`The file secret is missing in ${root}: restore it, or set SECRET_KEY.`)
  }
}

function explain(error: unknown): never {
  if (error instanceof Refusal) throw new StartError(error.message)
  const { code, message } = error as { code?: string; message: string }
  if (code === 'SQLITE_NOTADB' || code === 'SQLITE_CORRUPT') {
    throw new StartError(`sync-node.db is damaged (${message}): restore a backup.`)
  }
  if (!(error instanceof UnusableDatabase)) throw error
  throw new StartError(`sync-node.db cannot be opened: ${message}.`)
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
  deps: Pick<Deps, 'config' | 'database' | 'log' | 'space'>,
  options: { check: string; time: TimeSource; isServer: boolean },
): Promise<void> {
  const { config, database, log } = deps
  const { check, time, isServer } = options
  const isNew = await isFresh(database)
  if (!isNew) await checkSecret(database, check)
  else if (existsSync(join(config.root, 'blobs'))) {
    throw new StartError(
      `sync-node.db in ${config.root} is empty, but values are there: restore a backup.`,
    )
  }
  if (!isServer) return checkSchema(database)
  const next = await nextSchema(database)
  if (!isNew && next !== null) {
    log.info(`the data is upgraded to schema ${next}: \`sync-node rollback\` goes back, for 7 days`)
    const { newest } = await readNode(database)
    await keepCopy({ ...deps, clock: guardedClock(time, commitDateMs, newest) }, next)
  }
  const newest = Math.max(time.wall(), commitDateMs)
  await migrate(database, [
    sql(
      `INSERT INTO node
         (one, id, schema, start, newest, secret_check, is_clean, seq, account_number)
       VALUES (1, ?, 0, 0, ?, ?, 1, 0, 0)`,
      [unique(randomBytes), newest, check],
    ),
  ])
}

async function checkSecret(database: Database, check: string): Promise<void> {
  const { rows } = await database.execute('SELECT secret_check FROM node')
  if (rows[0]?.['secret_check'] === check) return
  throw new StartError(
    'The secret is not the one this data was made with: restore the file secret, or set SECRET_KEY.',
  )
}

interface NodeRow {
  start: number
  newest: number
  wasClean: boolean
}

async function readNode(database: Database): Promise<NodeRow> {
  const { rows } = await database.execute('SELECT start, newest, is_clean FROM node')
  const [row] = rows
  return {
    start: Number(row?.['start']),
    newest: Number(row?.['newest']),
    wasClean: row?.['is_clean'] === 1,
  }
}

/** A server's start counts, and begins a new range of the history. */
async function countStart(database: Database): Promise<void> {
  const nonce = Buffer.from(randomBytes(4)).readUInt32BE()
  await database.batch(
    [
      sql('UPDATE node SET start = start + 1, is_clean = 0, version = ?', [version]),
      sql('INSERT OR REPLACE INTO feed_start SELECT seq + 1, ? FROM node', [nonce]),
    ],
    'write',
  )
}

/** What need not be done before the first answer. */
function inBackground(
  deps: Deps,
  { path, wasClean }: { path: string; wasClean: boolean },
): { stop(): Promise<void> } {
  const sweeping = sweepAtStart(deps)
  const check = wasClean ? undefined : checkWhole(deps, path)
  return {
    async stop() {
      await Promise.all([sweeping, check?.terminate()])
    },
  }
}

/** Looks through the database after an unclean stop: seconds for a million rows, minutes on a card. */
function checkWhole({ health, log }: Deps, path: string): Worker {
  const worker = startWorker('check', { path })
  worker.unref()
  worker.once('error', (error) => log.warn({ err: error }, 'the database could not be checked'))
  worker.once('message', ({ problems }: CheckMessage) => {
    if (problems.length === 0) return
    health.isDamaged = true
    log.error({ problems }, 'the database is damaged: restore a backup')
  })
  return worker
}
