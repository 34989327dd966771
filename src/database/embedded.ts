// Owns the database in a file: the libSQL `Client` interface on node:sqlite, reads on this thread,
// writes through the writer's.
import { LibsqlBatchError, LibsqlError, type ResultSet, type Row } from '@libsql/core/api'
import { startWorker } from '../packed.ts'
import type { Database, OpenDatabase, Statement } from './database.ts'
import { connect, toLibsqlError, type Connection } from './sqlite.ts'
import { isRead, toStatement, toStatements } from './statement.ts'
import type {
  Argument,
  WriteAnswer,
  WriteRequest,
  WriterData,
  WriterMessage,
  WrittenStatement,
} from './writer.ts'

export interface EmbeddedOptions {
  path: string
  /** For a server: the WAL is empty before this resolves. */
  checkpointFirst: boolean
  /** The writer found the disk failing, and answers nothing any more: the process has to stop. */
  onFatal: (reason: string) => void
  onWarning: (reason: string) => void
  /** So many writes were committed together, by one sync. */
  onCommit?: (group: { writes: number; seconds: number }) => void
  /** What these accounts can see has changed, and is durable; `null`: perhaps anybody's. */
  onChange: (accounts: number[] | null) => void
}

interface Waiting {
  resolve: (results: ResultSet[]) => void
  reject: (error: unknown) => void
}

const READ_TIMEOUT_MS = 1000

/** A database that cannot be opened: the message says what is wrong with the file. */
export class UnusableDatabase extends Error {
  readonly code: string | undefined

  constructor(code: string | undefined, message: string) {
    super(message)
    this.code = code
  }
}

export async function open(options: EmbeddedOptions): Promise<OpenDatabase> {
  const writer = await startWriter(options)
  const reader = openReader(options.path, writer)
  const reads = statementsOn(reader)

  return {
    closed: writer.closed,
    look: () => writer.look(),
    async execute(statement: Parameters<Database['execute']>[0], args?: unknown) {
      const one = toStatement(statement, args)
      return isRead(one.sql) ? reads.execute(one) : ((await writer.write([one]))[0] as ResultSet)
    },
    batch: async (statements, mode) =>
      mode === 'write' ? writer.write(toStatements(statements)) : reads.batch(statements),
    close() {
      reader.database.close()
      writer.close()
    },
  }
}

/** The same interface on one connection, which does all of it on this thread. */
export function statementsOn({
  database,
  prepare,
}: Connection): Pick<Database, 'execute' | 'batch'> {
  function run({ sql, args }: Statement): ResultSet {
    const rows = prepare(sql).all(...toArguments(args)) as Record<string, unknown>[]
    return toResultSet({ rows, changes: 0, lastInsertRowid: 0 })
  }

  return {
    async execute(statement: Parameters<Database['execute']>[0], args?: unknown) {
      try {
        return run(toStatement(statement, args))
      } catch (error) {
        throw toLibsqlError(error)
      }
    },
    async batch(statements) {
      const all = toStatements(statements)
      try {
        database.exec('BEGIN')
        try {
          return all.map(run)
        } finally {
          database.exec('COMMIT')
        }
      } catch (error) {
        throw toLibsqlError(error)
      }
    },
  }
}

function openReader(path: string, writer: { close(): void }): Connection {
  try {
    return connect(path, { writes: false, busyTimeoutMs: READ_TIMEOUT_MS })
  } catch (error) {
    writer.close()
    throw toLibsqlError(error)
  }
}

async function startWriter(options: EmbeddedOptions) {
  const { path, checkpointFirst } = options
  const worker = startWorker('writer', { path, checkpointFirst } satisfies WriterData)
  const waiting = new Map<number, Waiting>()
  const toRequest = requests()
  const ready = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()

  function fail(reason: string): void {
    const error = new LibsqlError(reason, 'UNKNOWN_OUTCOME')
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
  }

  function receive(message: WriterMessage): void {
    if ('answers' in message) {
      for (const answer of message.answers) settle(waiting, answer)
      if (message.touched.length > 0) options.onChange(message.touched)
      tellOf(message, options)
    } else if ('foreign' in message) options.onChange(null)
    else if ('ready' in message) ready.resolve()
    else if ('refused' in message) {
      ready.reject(new UnusableDatabase(message.refused.code, message.refused.message))
      // Not ended: that would close the database, and try again what has just failed.
      worker.unref()
    } else if ('warning' in message) options.onWarning(message.warning)
    else if ('fatal' in message) options.onFatal(message.fatal)
    else {
      closed.resolve()
      worker.unref() // one that could not close stays until the process ends
    }
  }

  worker.on('message', receive)
  worker.on('error', (error) => {
    const reason = `the writer stopped: ${error instanceof Error ? error.message : String(error)}`
    ready.reject(new Error(reason))
    fail(reason)
    closed.resolve()
    options.onFatal(reason)
  })
  await ready.promise

  return {
    closed: closed.promise,
    write: (statements: Statement[]): Promise<ResultSet[]> =>
      new Promise((resolve, reject) => {
        const request = toRequest(statements)
        waiting.set(request.id, { resolve, reject })
        worker.postMessage(request)
      }),
    look: () => worker.postMessage('look'),
    close: () => worker.postMessage('close'),
  }
}

function settle(waiting: Map<number, Waiting>, answer: WriteAnswer): void {
  const one = waiting.get(answer.id)
  waiting.delete(answer.id)
  if ('results' in answer) one?.resolve(answer.results.map(toResultSet))
  else {
    const { message, code, statement } = answer.failure
    one?.reject(new LibsqlBatchError(message, statement, code))
  }
}

function tellOf(
  { answers, commitMs }: { answers: unknown[]; commitMs?: number },
  { onCommit }: EmbeddedOptions,
): void {
  if (commitMs !== undefined) onCommit?.({ writes: answers.length, seconds: commitMs / 1000 })
}

/** Answers what makes requests: ids count up, and SQL text is sent once. */
function requests(): (statements: Statement[]) => WriteRequest {
  const texts = new Map<string, number>()
  let nextId = 1
  return (statements) => {
    const request: WriteRequest = { id: nextId++, statements: [], bytes: 0 }
    for (const { sql, args } of statements) {
      const known = texts.get(sql)
      const text = known ?? texts.size
      if (known === undefined) texts.set(sql, text)
      const values = toArguments(args)
      for (const value of values) {
        if (value instanceof Uint8Array) request.bytes += value.byteLength
      }
      const isNew = known === undefined
      request.statements.push(isNew ? { text, sql, args: values } : { text, args: values })
    }
    return request
  }
}

function toArguments(args: Statement['args']): Argument[] {
  if (!Array.isArray(args)) throw new TypeError('arguments are given by position')
  return args.map((value) => {
    if (typeof value === 'boolean') return value ? 1 : 0
    if (value instanceof Date) return value.getTime()
    if (value instanceof ArrayBuffer) return new Uint8Array(value)
    // A view into a larger buffer would travel to the writer with all of that buffer.
    if (value instanceof Uint8Array && value.byteLength < value.buffer.byteLength) {
      return Uint8Array.from(value)
    }
    return value
  })
}

function toResultSet({ rows, changes, lastInsertRowid }: WrittenStatement): ResultSet {
  return {
    columns: rows.length > 0 ? Object.keys(rows[0] as object) : [],
    columnTypes: [],
    rows: rows as unknown as Row[],
    rowsAffected: changes,
    lastInsertRowid: BigInt(lastInsertRowid),
    toJSON: () => ({ rows }),
  }
}
