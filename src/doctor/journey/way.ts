// Owns the way through the public address: one request at a time, as it stands on the wire, never
// waiting for ever.
import { Agent, request as plainRequest, type IncomingMessage } from 'node:http'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'

export interface Asked {
  headers?: Record<string, string>
  body?: Uint8Array | string
  /** In chunks, without Content-Length. */
  isChunked?: boolean
  /** Without the session. */
  isAnonymous?: boolean
  patienceMs?: number
}

export interface Answer {
  status: number
  /** A header by its lower-case name; '' without one. */
  header(name: string): string
  /** Each time that it stands there. */
  all(name: string): string[]
  body: Buffer
  /** The code of a problem of Sync Node's own; undefined when somebody else answered. */
  code: string | undefined
}

export interface Way {
  url: URL
  ask(method: string, path: string, asked?: Asked): Promise<Answer>
  /** An answer whose body is read as it comes. */
  open(path: string, asked?: Asked): Promise<IncomingMessage>
  close(): void
}

/** There was no answer: the message says why. */
export class NoAnswer extends Error {}

const PATIENCE_MS = 10_000

interface Line {
  url: URL
  /** The one of the name's addresses that is asked, so that all goes the same way. */
  address: string
  token: string
  /** Ends whatever is under way. */
  signal: AbortSignal
}

export function openWay(line: Line): Way {
  const { url, signal } = line
  const agent =
    url.protocol === 'https:' ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true })

  async function bounded<T>(asked: Asked, work: (late: AbortSignal) => Promise<T>): Promise<T> {
    const { patienceMs = PATIENCE_MS } = asked
    const late = AbortSignal.timeout(patienceMs)
    try {
      return await work(AbortSignal.any([signal, late]))
    } catch (error) {
      signal.throwIfAborted()
      if (late.aborted) throw new NoAnswer(`no answer within ${patienceMs / 1000} seconds`)
      const { code, message } = error as NodeJS.ErrnoException
      throw new NoAnswer(code === 'ECONNRESET' ? 'the connection was cut' : message)
    }
  }

  /** A connection that was kept may be closed by the other side just when it is used again. */
  async function respond(whole: Whole): Promise<IncomingMessage> {
    const { request, response } = begin(line, agent, whole)
    try {
      return await response
    } catch (error) {
      const isStale = (error as NodeJS.ErrnoException).code === 'ECONNRESET'
      if (!isStale || !request.reusedSocket) throw error
      return begin(line, agent, whole).response
    }
  }

  return {
    url,
    ask: (method, path, asked = {}) =>
      bounded(asked, async (end) => toAnswer(await respond({ method, path, end, ...asked }))),
    open: (path, asked = {}) =>
      bounded(asked, (end) => respond({ method: 'GET', path, end, ...asked })),
    close: () => agent.destroy(),
  }
}

interface Whole extends Asked {
  method: string
  path: string
  end: AbortSignal
}

function begin({ url, address, token }: Line, agent: Agent, whole: Whole) {
  const { method, path, headers = {}, body, isChunked = false, isAnonymous = false, end } = whole
  const family = isIP(address)
  const lookup: LookupFunction = (_, { all }, callback) =>
    all === true ? callback(null, [{ address, family }]) : callback(null, address, family)
  const request = (url.protocol === 'https:' ? tlsRequest : plainRequest)({
    method,
    agent,
    lookup,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port,
    path: url.pathname.replace(/\/$/, '') + path,
    // A wrong certificate was told of by then; what else is wrong is worth knowing.
    rejectUnauthorized: false,
    signal: end,
    headers: {
      Host: url.host,
      ...(isAnonymous ? {} : { Authorization: `Bearer ${token}` }),
      ...(isChunked ? { 'Transfer-Encoding': 'chunked' } : {}),
      ...(body === undefined || isChunked ? {} : { 'Content-Length': Buffer.byteLength(body) }),
      ...headers,
    },
  })
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve)
    // One that refuses a body may close before it has it all: the answer came first.
    request.on('error', reject)
  })
  request.end(body)
  return { request, response }
}

async function toAnswer(incoming: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  const { statusCode: status = 0, headersDistinct } = incoming
  const all = (name: string): string[] => headersDistinct[name] ?? []
  const header = (name: string): string => all(name).join(', ')
  const body = decode(Buffer.concat(chunks), header('content-encoding'))
  const isProblem = header('content-type').startsWith('application/problem+json')
  return { status, header, all, body, code: isProblem ? codeIn(body) : undefined }
}

function decode(body: Buffer, coding: string): Buffer {
  if (body.length === 0) return body
  if (coding === 'gzip') return gunzipSync(body)
  if (coding === 'br') return brotliDecompressSync(body)
  return coding === 'zstd' ? zstdDecompressSync(body) : body
}

function codeIn(body: Buffer): string | undefined {
  try {
    return (JSON.parse(body.toString()) as { code?: string }).code
  } catch {
    return undefined
  }
}

/** How an answer is told of: who gave it, and what. */
export const tell = ({ status, code }: Pick<Answer, 'status' | 'code'>): string =>
  code === undefined ? `the proxy answers ${status}` : `the server answers ${status} ${code}`
