// Owns the listening socket: its time limits, what it refuses before there is a request to route, and
// how it stops.
import { getRequestListener, type HttpBindings } from '@hono/node-server'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Deps } from '../deps.ts'
import { SyncError, malformed } from '../errors.ts'
import { unique } from '../token.ts'
import { API_HEADERS } from './answer.ts'
import { createApp, methodNotAllowed, refuse } from './app.ts'
import { EXPECTS_CONTINUE, type WithContinue } from './body.ts'
import { inOrder, limitUnfinished } from './connections.ts'
import { isEarly, sendEarly } from './early.ts'
import { measure } from './metrics.ts'
import { toProblem } from './problem.ts'

export interface Listening {
  port: number
  /** No new connections; running requests end, or are cut after ten seconds. */
  stop(): Promise<void>
}

// A header that stands twice means one thing to a proxy and another to us.
const SINGLE = new Set([
  'authorization',
  'content-digest',
  'content-encoding',
  'content-length',
  'content-range',
  'host',
  'if-range',
  'range',
  'repr-digest',
  'transfer-encoding',
  'x-sync-meta',
  'x-sync-token',
])
// A raw backslash or fragment in a target is read differently by different programs.
const TARGET = /^\/[!"$-[\]-~]*$/
const STOP_MS = 10_000
const FILES = 256
const LINGER_MS = 2000
const UNREAD_MS = 30_000

const SERVER_OPTIONS = {
  // Reverse proxies keep connections for up to two minutes: to close first makes their 502s.
  keepAliveTimeout: 130_000,
  headersTimeout: 20_000,
  // A gigabyte over a slow line is rightful; too slow a body is refused as it flows: see body.ts.
  requestTimeout: 0,
  // Node's own refusal of a missing Host is no problem+json.
  requireHostHeader: false,
  connectionsCheckingInterval: 5000,
}
const IDLE_MS = 120_000

export async function listen(deps: Deps): Promise<Listening> {
  const app = createApp(deps)
  const stopped = new AbortController()
  const toApp = getRequestListener(respondBy(app, stopped.signal), {
    hostname: 'localhost',
    errorHandler: () => refuse(deps, malformed('The request target or Host is malformed.')),
  })
  const running = new Set<Promise<void>>()

  function take(incoming: IncomingMessage, outgoing: ServerResponse): void {
    if (stopped.signal.aborted || wouldUpgrade(incoming)) outgoing.setHeader('Connection', 'close')
    if (deps.metrics !== null) measure(deps.metrics, incoming, outgoing)
    if (hasBody(incoming)) outgoing.once('finish', () => endUnread(incoming))
    const refusal = check(incoming)
    if (refusal === null) {
      const done = toApp(incoming, outgoing).finally(() => running.delete(done))
      running.add(done)
    } else {
      const { status, headers, body } = toProblem(refusal, unique(deps.random))
      outgoing.writeHead(status, { ...API_HEADERS, ...headers, Connection: 'close' })
      outgoing.end(body)
    }
  }

  const server = createServer(SERVER_OPTIONS, inOrder(take))
  server.setTimeout(IDLE_MS)
  // Each answer on a connection listens for its end, and a client may ask for many in a row.
  server.on('connection', (socket) => socket.setMaxListeners(0))
  server.on('checkContinue', (incoming: WithContinue, outgoing: ServerResponse) => {
    incoming[EXPECTS_CONTINUE] = true
    server.emit('request', incoming, outgoing)
  })
  server.on('checkExpectation', inOrder(take))
  server.on('connect', (_: IncomingMessage, socket: Duplex) => {
    hangUp(deps, socket, methodNotAllowed('GET, HEAD, PUT, POST, DELETE, OPTIONS'))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    hangUp(deps, socket, ofParser(error))
  })
  server.maxConnections = maxConnections()
  limitUnfinished(server)
  await bind(server, deps.config)
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      stopped.abort()
      const closed = new Promise((resolve) => server.close(resolve))
      const idle = setInterval(() => server.closeIdleConnections(), 100)
      const cut = setTimeout(() => server.closeAllConnections(), STOP_MS)
      await closed
      clearInterval(idle)
      clearTimeout(cut)
      // What clients began that are gone may still be at work on the database.
      await Promise.allSettled(running)
    },
  }
}

/** Node drops what stands behind such a request in the same segment: nobody may wait for its answers. */
const wouldUpgrade = ({ headers }: IncomingMessage): boolean => headers.upgrade !== undefined

function respondBy(
  app: ReturnType<typeof createApp>,
  stopped: AbortSignal,
): Parameters<typeof getRequestListener>[0] {
  return async (request, bindings) => {
    const env = bindings as HttpBindings
    const response = await app.fetch(request, env)
    if (isEarly(response, env)) return sendEarly(response, env, stopped)
    await endOfTurn()
    return response
  }
}

let turn: Promise<void> | undefined

/**
 * Answers that are ready in one turn of the event loop leave at its end: to send each alone, between the
 * work for two others, wakes its reader's process every time. (Not by `cork`: the end of an answer undoes it.)
 */
const endOfTurn = (): Promise<void> =>
  (turn ??= new Promise((resolve) => {
    setImmediate(() => {
      turn = undefined
      resolve()
    })
  }))

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined

/** A body that nobody reads, as of a GET, may come for a while; then the connection ends. */
function endUnread(incoming: IncomingMessage): void {
  if (incoming.complete) return
  setTimeout(() => incoming.complete || incoming.destroy(), UNREAD_MS).unref()
}

/** Some descriptors stay free for files: a server that is out of them can neither read nor write. */
function maxConnections(): number {
  const limits = readFileSync('/proc/self/limits', 'utf8')
  const [, soft] = /^Max open files\s+(\d+)/m.exec(limits) ?? []
  return soft === undefined ? Number.POSITIVE_INFINITY : Math.max(16, Number(soft) - FILES)
}

function bind(server: Server, { host, port }: Deps['config']): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      // A machine without IPv6 has no `::` to listen on.
      if (error.code === 'EAFNOSUPPORT' && host === '::') {
        server.listen(port, '0.0.0.0', resolve)
      } else reject(error)
    })
    server.listen(port, host, resolve)
  })
}

/** What is refused before routing, or null. */
function check(incoming: IncomingMessage): SyncError | null {
  const { method, url = '', rawHeaders, headers } = incoming
  if (method === 'TRACE') return methodNotAllowed('GET, HEAD, PUT, POST, DELETE, OPTIONS')
  if (!TARGET.test(url)) {
    return malformed('The request target is malformed.')
  }
  if (headers.host === undefined && incoming.httpVersion !== '1.0') {
    return malformed('The Host header is missing.')
  }
  if (headers.expect !== undefined && !/^100-continue$/i.test(headers.expect)) {
    return malformed('Expect takes only 100-continue.')
  }
  // Node takes the chunks off and leaves any other coding on: that would be stored as the value.
  const coding = headers['transfer-encoding']
  if (coding !== undefined && !/^chunked$/i.test(coding)) {
    return malformed('Transfer-Encoding takes only chunked.')
  }
  const seen = new Set<string>()
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (!SINGLE.has(name)) continue
    if (seen.has(name)) return malformed('A header stands twice that may stand once.')
    seen.add(name)
  }
  return null
}

const ofParser = ({ code }: NodeJS.ErrnoException): SyncError => {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new SyncError('REQ01', 'The headers are larger than this server takes.', { status: 431 })
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new SyncError('REQ01', 'The request came too slowly: send it again.', { status: 408 })
  }
  return malformed('The request is not HTTP/1.1 as it should be.')
}

/** Answers what is no request, and closes the socket when the client had time to read. */
function hangUp({ random }: Pick<Deps, 'random'>, socket: Duplex, error: SyncError): void {
  socket.on('error', () => undefined)
  if (!socket.writable) {
    socket.destroy()
    return
  }
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
  // An earlier request on this socket is still to be answered: nothing may be mixed into that. (One
  // whose body is what is broken gets this as its answer.)
  const { _httpMessage: earlier } = socket as Socket & { _httpMessage?: ServerResponse | null }
  if (earlier?.req.complete === true) {
    earlier.once('finish', () => socket.end())
    return
  }
  if (earlier?.headersSent === true) {
    socket.end()
    return
  }
  const { status, headers, body } = toProblem(error, unique(random))
  const lines = Object.entries({
    ...API_HEADERS,
    ...headers,
    Connection: 'close',
    'Content-Length': String(Buffer.byteLength(body)),
    Date: new Date().toUTCString(),
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${status} ${REASONS[status] ?? 'Error'}\r\n${lines.join('')}\r\n${body}`)
}

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
}
