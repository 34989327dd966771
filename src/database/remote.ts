// Owns the database on a server (sqld, Turso): the libSQL client over HTTP, with what it lacks. It says
// what became of a write, tries again what cannot have happened, and hears what other nodes change.
import { setTimeout as pause } from 'node:timers/promises'
import { LibsqlBatchError, LibsqlError, type Client, type ResultSet } from '@libsql/core/api'
import { turns } from '../turns.ts'
import {
  UNKNOWN_OUTCOME,
  UNREACHABLE,
  type Database,
  type OpenDatabase,
  type Statement,
} from './database.ts'
import { FOLLOWED, follow } from './follow.ts'
import { openHistory } from './history.ts'
import { isRead, toStatement, toStatements } from './statement.ts'
import { NoAnswer, NotSent, isLate, openWire, type Wire } from './wire.ts'

export interface RemoteOptions {
  /** http: or https: */
  url: string
  authToken: string | null
  /** For a server: it follows what other nodes write, and begins a new range of the history after each break. */
  isServer: boolean
  onWarning: (reason: string) => void
  /** What these accounts can see has changed; `null`: perhaps anybody's. */
  onChange: (accounts: number[] | null) => void
}

// Writes at once, of a node: the database takes one after the other. With six of them there, of all nodes, sqld
// was seen to take none any more (see README); with one, a call that is slow would hold up all.
const MAX_WRITES = 2
const MAX_WAITING = 512
const MAX_CALLS = 128
const ATTEMPTS = 4
const FIRST_PAUSE_MS = 40

// Failures of a whole batch after which nothing can have happened.
const HARMLESS =
  /^(?:SQLITE_(?:BUSY|LOCKED|FULL|CONSTRAINT|READONLY)|SQL_|ARGS_|TRANSACTION_CLOSED|AUTH)/

export async function open(
  options: RemoteOptions,
): Promise<OpenDatabase & { follow(): Promise<void> }> {
  const wire = openWire(new URL(options.url))
  const client = await connect(options, wire.fetch)
  const inTurn = turns(MAX_WRITES, MAX_WAITING)
  const history = openHistory(await connect(options, wire.fetchAnyway), wire, options)
  const nodes = follow(client, history, options)

  async function call<T>(work: () => Promise<T>): Promise<T> {
    await history.sure()
    try {
      return await work()
    } catch (error) {
      if (error instanceof NotSent || error instanceof NoAnswer) history.doubt()
      throw error
    }
  }

  const read = <T>(work: () => Promise<T>): Promise<T> =>
    again(() => call(work), isAway).catch(refuseRead)

  const write = (statements: Statement[]): Promise<ResultSet[]> =>
    inTurn(() => {
      const work = (): Promise<ResultSet[]> => client.batch(statements, 'write')
      return again(() => call(work), hasNotHappened).catch(refuseWrite)
    })

  return {
    closed: Promise.resolve(),
    look: () => undefined,
    async follow() {
      if (!options.isServer) return
      await write(FOLLOWED)
      await nodes.begin()
    },
    async execute(statement: Parameters<Database['execute']>[0], args?: unknown) {
      const one = toStatement(statement, args)
      if (isRead(one.sql)) return read(() => client.execute(one))
      return (await write([one]))[0] as ResultSet
    },
    batch: async (statements, mode) =>
      mode === 'write'
        ? write(toStatements(statements))
        : read(() => client.batch(toStatements(statements), 'read')),
    close() {
      nodes.stop()
      client.close()
      wire.close()
    },
  }
}

async function connect({ url, authToken }: RemoteOptions, fetch: Wire['fetch']): Promise<Client> {
  // Only where somebody has such a database.
  const { createClient } = await import('@libsql/client/http')
  const secret = authToken === null ? {} : { authToken }
  return createClient({ url, ...secret, fetch, concurrency: MAX_CALLS })
}

/** Runs `work`, and again after a pause for as long as `mayRetry` what it throws, some times. */
async function again<T>(work: () => Promise<T>, mayRetry: (error: unknown) => boolean): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (attempt === ATTEMPTS || !mayRetry(error)) throw error
    }
    // Not all at one moment: who was refused together would be refused together again.
    await pause(FIRST_PAUSE_MS * 2 ** attempt * (0.5 + Math.random() / 2))
  }
}

const isBusy = (error: unknown): boolean =>
  error instanceof LibsqlError && ['SQLITE_BUSY', 'SQLITE_LOCKED'].includes(error.code)

const hasNotHappened = (error: unknown): boolean =>
  isBusy(error) || (error instanceof NotSent && !isLate(error))

/** For reads. */
const isAway = (error: unknown): boolean =>
  hasNotHappened(error) || (error instanceof NoAnswer && !isLate(error))

function refuseRead(error: unknown): never {
  if (error instanceof NotSent || error instanceof NoAnswer) throw unreachable(error)
  throw error
}

function refuseWrite(error: unknown): never {
  if (error instanceof NotSent) throw unreachable(error)
  // With a statement that failed, the commit was not tried.
  const isRefused =
    error instanceof LibsqlBatchError || (error instanceof LibsqlError && HARMLESS.test(error.code))
  const isOpen = error instanceof NoAnswer || (error instanceof LibsqlError && !isRefused)
  if (!isOpen) throw error
  throw new LibsqlError(error.message, UNKNOWN_OUTCOME, undefined, undefined, error)
}

const unreachable = (error: Error): LibsqlError =>
  new LibsqlError(error.message, UNREACHABLE, undefined, undefined, error)
