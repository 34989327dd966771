// Owns a node: its folder, lock, secret, database and values, opened in the order that loses nothing.
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { guardedClock, machineTime, type TimeSource } from './clock.ts'
import type { Config } from './config.ts'
import type { CheckMessage } from './database/check.ts'
import {
  UNKNOWN_OUTCOME,
  UNREACHABLE,
  type Database,
  type OpenDatabase,
} from './database/database.ts'
import { UnusableDatabase, open as openFile } from './database/embedded.ts'
import { lock as takeLock, type Lock } from './database/lock.ts'
import { open as openServer } from './database/remote.ts'
import type { Deps } from './deps.ts'
import { Refusal, StartError } from './errors.ts'
import { createFolder } from './folder.ts'
import { housekeeping, sweepAtStart } from './housekeeping.ts'
import type { Listening } from './http/server.ts'
import { limiter } from './limit.ts'
import { listeners as openListeners } from './listeners.ts'
import { openLog, type Log } from './log.ts'
import { openMailer, type Mailer } from './mail.ts'
import { openMetrics, type Metrics } from './metrics.ts'
import * as nodeRow from './node-row.ts'
import { commitDateMs, startWorker } from './packed.ts'
import * as peers from './peers.ts'
import { passwords } from './password.ts'
import * as place from './place.ts'
import { isUnfinished } from './restore.ts'
import * as secrets from './secret.ts'
import { openSpace, otherSpace, type Space } from './space.ts'
import { randomBytes } from './token.ts'

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
  const lock = await takeFolder(config)
  let close = async (): Promise<void> => undefined
  let metrics: Listening | null = null
  try {
    const [opened, { listen }] = await Promise.all([
      openData(config, { ...replaced, log, onFatal, isServer: true }),
      // Run while the thread of the writer begins, and by no command.
      nextTurn().then(() => import('./http/server.ts')),
    ])
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
        if (lock !== null)
          await database.execute('UPDATE node SET is_clean = 1').catch(() => undefined)
        await close()
        lock?.close()
      },
    }
  } catch (error) {
    await close()
    lock?.close()
    throw error
  }
}

/** Null without METRICS_PORT. Throws StartError. */
async function listenOnMetricsPort(deps: Deps): Promise<Listening | null> {
  const { config, metrics } = deps
  if (metrics === null || config.metricsPort === null) return null
  const { listenForMetrics } = await import('./http/metrics.ts')
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

/**
 * Makes the folder, and locks it against a second server; null where the database is on a server, which
 * any number of nodes may use.
 */
async function takeFolder({ root, database, blobUrl }: Config): Promise<Lock | null> {
  let lock: Lock | 'taken'
  try {
    if (database === null || blobUrl === null) await createFolder(root)
    if (database !== null) return null
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
  const { log, onFatal, isServer, time = machineTime } = opening
  const keys = secrets.deriveKeys(await findSecret(config, isServer))
  const isOnDisk = config.database === null || config.blobUrl === null
  const space = isOnDisk ? openSpace(root, time.uptime, opening.floorBytes) : otherSpace
  const listeners = openListeners()
  const metrics = await metricsFor(config, isServer)
  const opened = await openDatabase(config, {
    isServer,
    space,
    onFatal,
    onWarning: (reason) => log.warn(reason),
    onCommit: (group) => metrics?.committed(group),
    onChange: (accounts) => listeners.announce(accounts),
  })
  const { database } = opened
  let joined: peers.Peers | undefined
  try {
    await nodeRow.prepare({ config, database, log, space }, { check: keys.check, time, isServer })
    const row = await (isServer ? nodeRow.countStart(database) : nodeRow.read(database))
    await opened.follow()
    const clock = guardedClock(time, commitDateMs, row.newest)
    if (isServer && config.database !== null) {
      joined = await peers.join({ clock, config, database }, row.start)
    }
    const blobs = await place.open(
      { clock, config, database, log, random: randomBytes },
      { start: row.start, isServer, onFatal },
    )
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
    const { wasClean } = row
    return { deps, database, wasClean, close: () => closeData(deps, database, joined) }
  } catch (error) {
    await joined?.leave()
    database.close()
    await database.closed
    return explain(error)
  }
}

const metricsFor = async ({ metricsPort }: Config, isServer: boolean): Promise<Metrics | null> =>
  isServer && metricsPort !== null ? openMetrics() : null

async function closeData(
  { blobs }: Deps,
  database: OpenDatabase,
  joined?: peers.Peers,
): Promise<void> {
  await blobs.close()
  await joined?.leave()
  database.close()
  await database.closed
}

const pathIn = (root: string): string => join(root, 'sync-node.db')

interface OpeningDatabase extends Omit<Parameters<typeof openFile>[0], 'path' | 'checkpointFirst'> {
  isServer: boolean
  space: Space
}

/** The database; `follow` comes when its schema is there. */
async function openDatabase(
  { root, database: server }: Config,
  { isServer, space, ...options }: OpeningDatabase,
): Promise<{ database: OpenDatabase; follow(): Promise<void> }> {
  if (server !== null) {
    const database = await openServer({ ...server, isServer, ...options })
    return { database, follow: database.follow }
  }
  if (isServer && space.free() < NEARLY_FULL_BYTES) space.giveUpReserve()
  const file = await openWithReserve(
    { path: pathIn(root), checkpointFirst: isServer, ...options },
    isServer ? space : null,
  )
  return { database: { ...file, ...yielding(file, space) }, follow: async () => undefined }
}

/** The secret of the data; a server makes it when there is none. Throws StartError. */
export async function findSecret(config: Config, isServer: boolean): Promise<string> {
  const { root, secretKey } = config
  if (config.database === null) refuseLoss(config, isServer)
  const kept = secretKey ?? secrets.read(root)
  if (kept === null) throw new StartError(`The file secret in ${root} holds no secret: restore it.`)
  return kept ?? secrets.create(root, randomBytes)
}

/** Opens the database; on a disk too full for that, once more with the reserve given up. */
async function openWithReserve(
  options: Parameters<typeof openFile>[0],
  space: { giveUpReserve(): boolean } | null,
) {
  try {
    return await openFile(options)
  } catch (error) {
    const isFull = error instanceof UnusableDatabase && error.code === 'SQLITE_FULL'
    if (!isFull || space?.giveUpReserve() !== true) return explain(error)
    return openFile(options).catch(explain)
  }
}

/** Nothing new is ever made beside data that is there. */
function refuseLoss({ root, secretKey }: Config, isServer: boolean): void {
  const isThere = (statSync(pathIn(root), { throwIfNoEntry: false })?.size ?? 0) > 0
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
  if (code === UNREACHABLE || code === UNKNOWN_OUTCOME) {
    if (/ answers 40[13]:/.test(message)) {
      throw new StartError(`The database server refuses DATABASE_AUTH_TOKEN: ${message}.`)
    }
    throw new StartError(`The database server at DATABASE_URL does not answer: ${message}.`)
  }
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

/** What need not be done before the first answer. */
function inBackground(deps: Deps, { wasClean }: { wasClean: boolean }): { stop(): Promise<void> } {
  // On a server other nodes write: what no row names may be of one that runs.
  if (deps.config.database !== null) return { stop: async () => undefined }
  const sweeping = sweepAtStart(deps)
  const check = wasClean ? undefined : checkWhole(deps)
  return {
    async stop() {
      await Promise.all([sweeping, check?.terminate()])
    },
  }
}

/** Looks through the database after an unclean stop: seconds for a million rows, minutes on a card. */
function checkWhole({ config, health, log }: Deps): Worker {
  const worker = startWorker('check', { path: pathIn(config.root) })
  worker.unref()
  worker.once('error', (error) => log.warn({ err: error }, 'the database could not be checked'))
  worker.once('message', ({ problems }: CheckMessage) => {
    if (problems.length === 0) return
    health.isDamaged = true
    log.error({ problems }, 'the database is damaged: restore a backup')
  })
  return worker
}
