// Owns a request's way to the server and back: session, retries, time limits, and every refusal as an error.
import { SyncError, type Problem } from './errors.ts'
import { tellAll } from './listeners.ts'
import { linked, pause, stopIfAborted, type Link } from './signal.ts'
import type { ConnectOptions, Retry } from './types.ts'

/** Who a client is, or nobody. */
export interface Session {
  token: string | null
  /** The account's handle, where it is known: as it was handed in, or the server's word. */
  user: string | null
  /** The same for one that was renewed; every login, and a logout, begins another. */
  line: object
}

export interface Ask {
  method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  path: string
  headers?: Record<string, string>
  json?: unknown
  bytes?: Uint8Array
  /** What to make of the answer's body; absent where there is none. */
  read?: 'json' | 'bytes'
  /** Without the session: for calls that open one. */
  anonymous?: boolean
  /** Whose call it is, where that was decided before: nobody else's session is ever taken for it. */
  session?: Session | undefined
  /** For calls that must not be sent twice. */
  once?: boolean
  signal?: AbortSignal | undefined
}

export interface Reply {
  status: number
  headers: Headers
  body: unknown
  /** Of a refusal; null after a 2xx. */
  error: SyncError | null
  /** An earlier attempt got no answer, so it may be what this one ran into. */
  isRepeat: boolean
}

const LIMIT_MS = 60_000
const MAX_PAUSE_MS = 30_000
// Slower than this, an upload is given up: the server's own limit is lower still.
const MIN_BYTES_PER_MS = 1
// Of an answer that was compressed on its way.
const UNKNOWN_BYTES = 600_000
// These were answered before anything was done.
const NOTHING_HAPPENED = ['ERR05', 'RATE01']

export class Transport {
  session: Session
  readonly #watchers = new Set<() => void>()
  readonly #renewals = new WeakMap<Session, Promise<string | null>>()
  readonly #base: string
  readonly #options: ConnectOptions
  readonly #retry: Retry

  constructor(o: ConnectOptions) {
    this.session = { token: o.token ?? null, user: o.user ?? null, line: {} }
    this.#options = o
    this.#base = String(o.url)
      .replace(/[?#].*$/, '')
      .replace(/\/+$/, '')
    this.#retry = { attempts: 4, baseMs: 250, maxWaitMs: 10_000, ...o.retry }
  }

  /** Calls from now on are of this session; those of another login go no further. */
  enter({ token, user, line = {} }: Omit<Session, 'line'> & { line?: object }): void {
    this.session = { token, user, line }
    tellAll(this.#watchers, undefined)
  }

  /** Tells of every session that is entered; answers how to stop. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  /** Throws refusals. */
  async call(o: Ask): Promise<Reply> {
    const reply = await this.ask(o)
    if (reply.error !== null) throw reply.error
    return reply
  }

  /** Answers refusals too; throws only where no answer came. */
  async ask(o: Ask): Promise<Reply> {
    const link = linked(this.#options.signal, o.signal)
    try {
      return await this.#repeat(o, link.signal)
    } finally {
      link.release()
    }
  }

  /** Sends once, with the session; the body is for the caller to read. Throws refusals. */
  async open(o: Ask): Promise<Response> {
    const { line } = o.session ?? this.session
    for (let isRenewed = false; ; isRenewed = true) {
      const session = this.#sessionOf(o, line)
      const { response } = await this.#begin(o, o.signal)
      if (response.ok) return response
      const error = await toError(response)
      if (error.code !== 'AUTH01' || isRenewed || !(await this.#renew(session))) throw error
    }
  }

  /** The pause before the nth attempt: full jitter, beyond what the server asks for. */
  backOff(attempt: number, retryAfterMs = 0): number {
    const longest = Math.min(MAX_PAUSE_MS, this.#retry.baseMs * 2 ** attempt)
    return retryAfterMs + Math.random() * longest
  }

  async #repeat(o: Ask, signal: AbortSignal): Promise<Reply> {
    let isRepeat = false
    let isRenewed = false
    const { line } = o.session ?? this.session
    for (let attempt = 1; ; attempt++) {
      const session = this.#sessionOf(o, line)
      const reply = await this.#attempt(o, signal)
      const { error } = reply
      if (error === null) return { ...reply, isRepeat }
      if (error.code === 'AUTH01' && o.anonymous !== true && !isRenewed) {
        isRenewed = true
        if (await this.#renew(session)) continue
      }
      const mayRepeat = o.once !== true && attempt < this.#retry.attempts && isPassing(error)
      if (!mayRepeat || (error.retryAfterMs ?? 0) > this.#retry.maxWaitMs) {
        if (reply.status === 0) throw error
        return { ...reply, isRepeat }
      }
      isRepeat ||= !NOTHING_HAPPENED.includes(error.code)
      await pause(this.backOff(attempt - 1, error.retryAfterMs), signal)
    }
  }

  async #attempt(o: Ask, signal: AbortSignal): Promise<Omit<Reply, 'isRepeat'>> {
    try {
      const { response, link } = await this.#begin(o, signal)
      const { status, headers } = response
      const bytes = Number(headers.get('content-length') ?? UNKNOWN_BYTES)
      return await within(LIMIT_MS + bytes / MIN_BYTES_PER_MS, link, async () =>
        response.ok
          ? { status, headers, body: await readAs(o, response), error: null }
          : { status, headers, body: null, error: await toError(response) },
      )
    } catch (error) {
      stopIfAborted(signal)
      const failure = toFailure(error)
      return { status: failure.status, headers: new Headers(), body: null, error: failure }
    }
  }

  /** The answer, once it has begun; the link can end its body. Throws NETWORK, and the signal's reason. */
  async #begin(o: Ask, signal: AbortSignal | undefined) {
    stopIfAborted(signal)
    const { method, path, json, bytes } = o
    const { token } = this.session
    const link = linked(signal)
    // A browser's fetch takes no other `this` than its own.
    const send = this.#options.fetch ?? ((...args: Parameters<typeof fetch>) => fetch(...args))
    const limitMs = LIMIT_MS + (bytes?.length ?? 0) / MIN_BYTES_PER_MS
    const body = json === undefined ? bytes : JSON.stringify(json)
    const isSession = o.anonymous !== true && token !== null
    const init: RequestInit = {
      method,
      headers: {
        ...(json !== undefined && { 'Content-Type': 'application/json' }),
        ...(bytes !== undefined && { 'Content-Type': 'application/octet-stream' }),
        ...(isSession && { Authorization: `Bearer ${token}` }),
        ...o.headers,
      },
      ...(body !== undefined && { body: body as NonNullable<RequestInit['body']> }),
      signal: link.signal,
    }
    try {
      return { link, response: await within(limitMs, link, () => send(this.#base + path, init)) }
    } catch (error) {
      stopIfAborted(signal)
      throw toFailure(error)
    }
  }

  /** Throws AUTH01 when somebody else has logged in since, or the session was ended here. */
  #sessionOf({ anonymous }: Ask, line: object): Session {
    if (anonymous === true || this.session.line === line) return this.session
    throw new SyncError('AUTH01', 'The session of this call was ended here.', { status: 401 })
  }

  /** True when there is a session to try again with. Calls that fail together ask once. */
  async #renew(failed: Session): Promise<boolean> {
    const { onUnauthorized } = this.#options
    if (this.session === failed && onUnauthorized !== undefined) {
      const asked = this.#renewals.get(failed) ?? (async () => onUnauthorized())()
      this.#renewals.set(failed, asked)
      const token = await asked.finally(() => this.#renewals.delete(failed))
      const { session } = this
      if (token === null) return false
      if (session === failed) this.enter({ token, user: null, line: failed.line })
      // It logged in here.
      else if (session.token === token) session.line = failed.line
    }
    const { session } = this
    return session !== failed && session.line === failed.line
  }
}

const toFailure = (error: unknown): SyncError =>
  error instanceof SyncError ? error : new SyncError('NETWORK', UNREACHED, { cause: error })

const UNREACHED = 'The server cannot be reached.'
const TOO_SLOW = 'The server did not answer in time.'

/** Ends what runs on the link after so long. */
async function within<T>(ms: number, link: Link, work: () => Promise<T>): Promise<T> {
  // A timer takes no more than 31 bits.
  const limit = Math.min(ms, 2 ** 31 - 1)
  const timer = setTimeout(() => link.abort(new SyncError('NETWORK', TOO_SLOW)), limit)
  try {
    return await work()
  } finally {
    clearTimeout(timer)
  }
}

/** Throws PROXY for a 2xx that the server does not give: of a login page for a network, say. */
async function readAs({ read, method }: Ask, response: Response): Promise<unknown> {
  const { status, headers } = response
  if (read === 'bytes' && headers.has('x-sync-token')) {
    return new Uint8Array(await response.arrayBuffer())
  }
  const text = await response.text()
  try {
    if (read === 'json') return JSON.parse(text) as unknown
  } catch {
    throw new SyncError('PROXY', 'This is no Sync Node: the answer is not JSON.', { status })
  }
  const isExpected =
    method === 'HEAD' ? headers.has('x-sync-token') : status === 201 || status === 204
  if (read === undefined && isExpected) return null
  throw new SyncError('PROXY', 'This is no Sync Node: the answer is another.', { status })
}

/** May pass by itself: worth another attempt. */
function isPassing({ code, status }: SyncError): boolean {
  if (['NETWORK', 'ERR04', 'ERR05', 'RATE01', 'DIGEST'].includes(code)) return true
  return status === 408 || (code === 'PROXY' && [502, 503, 504].includes(status))
}

/** A refusal as an error, also one that a proxy wrote in HTML. */
async function toError(response: Response): Promise<SyncError> {
  const { status } = response
  const seconds = response.headers.get('retry-after')
  const retryAfterMs = seconds === null ? Number.NaN : toMs(seconds)
  const problem = await readProblem(response)
  const common = { status, ...(Number.isFinite(retryAfterMs) && { retryAfterMs }) }
  if (problem !== null) {
    const message = problem.detail ?? problem.title ?? `The server answered ${status}.`
    return new SyncError(problem.code as string, message, { ...common, problem })
  }
  // What proxies refuse in words of their own.
  if (status === 413)
    return new SyncError('SIZE01', 'Larger than a proxy before the server takes.', common)
  if (status === 429)
    return new SyncError('RATE01', 'A proxy before the server is asked too often.', common)
  return new SyncError(
    'PROXY',
    `Not the server, but something before it, answered ${status}.`,
    common,
  )
}

/** Seconds, or a date (RFC 9110 §10.2.3). */
const toMs = (header: string): number =>
  /^\d+$/.test(header) ? Number(header) * 1000 : Math.max(0, Date.parse(header) - Date.now())

async function readProblem(response: Response): Promise<Problem | null> {
  try {
    const problem = JSON.parse(await response.text()) as Problem | null
    return typeof problem?.code === 'string' ? problem : null
  } catch {
    return null
  }
}
