// Owns the listening socket: its time limits, what it refuses before there is a request to route, and
// how it stops.
import { getRequestListener } from '@hono/node-server'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Deps } from '../deps.ts'
import { SyncError, malformed } from '../errors.ts'
import { unique } from '../token.ts'
import { API_HEADERS } from './answer.ts'
import { createApp, methodNotAllowed, refuse } from './app.ts'
import { EXPECTS_CONTINUE } from './body.ts'
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
const LINGER_MS = 2000

const SERVER_OPTIONS = {
  // Reverse proxies keep connections for a minute: to close first makes their 502s.
  keepAliveTimeout: 75_000,
  headersTimeout: 20_000,
  // A gigabyte over a slow line is rightful; too slow a body is refused as it flows: see body.ts.
  requestTimeout: 0,
  connectionsCheckingInterval: 5000,
}
const IDLE_MS = 120_000

type WithContinue = IncomingMessage & { [EXPECTS_CONTINUE]?: boolean }

export async function listen(deps: Deps): Promise<Listening> {
  const app = createApp(deps)
  const toApp = getRequestListener(app.fetch, {
    hostname: 'localhost',
    errorHandler: () => refuse(deps, malformed('The request target or Host is malformed.')),
  })
  let isStopping = false

  function take(incoming: IncomingMessage, outgoing: ServerResponse): void {
    if (isStopping) outgoing.setHeader('Connection', 'close')
    const refusal = check(incoming)
    if (refusal === null) void toApp(incoming, outgoing)
    else {
      const { status, headers, body } = toProblem(refusal, unique(deps.random))
      outgoing.writeHead(status, { ...API_HEADERS, ...headers, Connection: 'close' })
      outgoing.end(body)
    }
  }

  const server = createServer(SERVER_OPTIONS, take)
  server.setTimeout(IDLE_MS)
  server.on('checkContinue', (incoming: WithContinue, outgoing: ServerResponse) => {
    incoming[EXPECTS_CONTINUE] = true
    take(incoming, outgoing)
  })
  server.on('checkExpectation', take)
  server.on('connect', (_: IncomingMessage, socket: Duplex) => {
    hangUp(deps, socket, methodNotAllowed('GET, HEAD, PUT, POST, DELETE, OPTIONS'))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    hangUp(deps, socket, ofParser(error))
  })
  await bind(server, deps.config)
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      isStopping = true
      const closed = new Promise((resolve) => server.close(resolve))
      const idle = setInterval(() => server.closeIdleConnections(), 100)
      const cut = setTimeout(() => server.closeAllConnections(), STOP_MS)
      await closed
      clearInterval(idle)
      clearTimeout(cut)
    },
  }
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
  const { method, url = '', rawHeaders } = incoming
  if (method === 'TRACE') return methodNotAllowed('GET, HEAD, PUT, POST, DELETE, OPTIONS')
  if (!TARGET.test(url)) {
    return malformed('The request target is malformed.')
  }
  if (incoming.headers.expect !== undefined && !/^100-continue$/i.test(incoming.headers.expect)) {
    return malformed('Expect takes only 100-continue.')
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

/** Answers on a socket that has no request, and closes it when the client had time to read. */
function hangUp({ random }: Pick<Deps, 'random'>, socket: Duplex, error: SyncError): void {
  if (socket.destroyed || !socket.writable || hasAnswered(socket)) {
    socket.destroy()
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
  socket.on('error', () => undefined)
  socket.end(`HTTP/1.1 ${status} ${REASONS[status] ?? 'Error'}\r\n${lines.join('')}\r\n${body}`)
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
}

/** True while an earlier request's answer is on its way on this socket: no second may be mixed in. */
function hasAnswered(socket: Duplex): boolean {
  const { _httpMessage: message } = socket as Socket & { _httpMessage?: ServerResponse | null }
  return message?.headersSent === true
}
