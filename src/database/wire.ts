// Owns the way to a database server: HTTP requests of which is known whether they left this machine, and
// connections of which is known whether the server behind them can have been exchanged.
import { Agent as HttpAgent, request as httpRequest, type ClientRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'

/** Nothing of the request reached a database: nothing happened. */
export class NotSent extends Error {}

/** It was sent, and no answer came: what it asked for may have happened. */
export class NoAnswer extends Error {}

/** It took its whole time, and would again. */
export const isLate = ({ cause }: Error): boolean =>
  cause instanceof Error && ['AbortError', 'TimeoutError'].includes(cause.name)

export interface Wire {
  /** For @libsql/client. Throws NotSent, NoAnswer. */
  fetch: Fetch
  /** The same for what finds out whether the server can be trusted. */
  fetchAnyway: Fetch
  /** From now on the server is the one that is known, until no connection is left, or `doubt`. */
  trust(): void
  /** It can have been exchanged: nothing is sent before it is trusted again. */
  doubt(): void
  isTrusted(): boolean
  close(): void
}

type Fetch = (request: Request) => Promise<Response>

const MAX_SOCKETS = 64
const CONNECT_MS = 3000
const ANSWER_MS = 10_000
// Less than what servers and balancers between usually close after: a request does not meet that.
const IDLE_MS = 5000

export function openWire(url: URL): Wire {
  const isTls = url.protocol === 'https:'
  const options = { keepAlive: true, maxSockets: MAX_SOCKETS, timeout: IDLE_MS }
  const agent = isTls ? new HttpsAgent(options) : new HttpAgent(options)
  const up = new Set<Socket>()
  const known = new WeakSet<Socket>()
  // Nothing is refused before the server was known for the first time.
  let isGuarded = false
  let isTrusted = true

  function doubt(): void {
    isTrusted = !isGuarded
  }

  /** Calls `begin` once the connection is up, from when on what is written may arrive. */
  function whenUp(socket: Socket, begin: () => void): void {
    if (up.has(socket)) return begin()
    const connected = isTls ? 'secureConnect' : 'connect'
    if (!known.has(socket)) {
      known.add(socket)
      socket.once(connected, () => up.add(socket))
      socket.once('close', () => {
        up.delete(socket)
        if (up.size === 0) doubt()
      })
    }
    // Not before it is known what has become of the others.
    socket.once(connected, () => setImmediate(begin))
  }

  async function send(request: Request, isAnyway: boolean): Promise<Response> {
    const body = Buffer.from(await request.arrayBuffer())
    const outgoing = (isTls ? httpsRequest : httpRequest)(request.url, {
      agent,
      method: request.method,
      headers: { ...Object.fromEntries(request.headers), 'content-length': body.length },
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    const { status, headers, bytes } = await answerOf(outgoing, body, (socket, begin) =>
      whenUp(socket, () => {
        if (isAnyway || isTrusted) begin()
        else outgoing.destroy(new Error('the connection is a new one'))
      }),
    )
    return checked(new Response(new Uint8Array(bytes), { status, headers }))
  }

  return {
    fetch: (request) => send(request, false),
    fetchAnyway: (request) => send(request, true),
    trust() {
      isGuarded = true
      isTrusted = up.size > 0
    },
    doubt,
    isTrusted: () => isTrusted,
    close: () => agent.destroy(),
  }
}

/** Throws unless it is an answer of the database. Whoever is on the way may have passed on what he says failed. */
async function checked(response: Response): Promise<Response> {
  const { status } = response
  if (status < 400) return response
  const reason = `the database server answers ${status}: ${(await response.text()).slice(0, 200)}`
  throw status >= 500 ? new NoAnswer(reason) : new NotSent(reason)
}

interface Answer {
  status: number
  headers: Record<string, string>
  bytes: Buffer
}

function answerOf(
  outgoing: ClientRequest,
  body: Buffer,
  whenUp: (socket: Socket, begin: () => void) => void,
): Promise<Answer> {
  let isSent = false
  const connecting = setTimeout(
    () => outgoing.destroy(new DOMException('no connection in time', 'TimeoutError')),
    CONNECT_MS,
  )
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const fail = (error: Error): void =>
    reject(new (isSent ? NoAnswer : NotSent)(error.message, { cause: error }))
  outgoing.on('error', fail)
  outgoing.once('close', () => clearTimeout(connecting))
  outgoing.once('socket', (socket) =>
    whenUp(socket, () => {
      isSent = true
      clearTimeout(connecting)
      outgoing.end(body)
    }),
  )
  outgoing.once('response', (answer) => {
    const headers = { 'content-type': String(answer.headers['content-type']) }
    buffer(answer).then(
      (bytes) => resolve({ status: answer.statusCode ?? 0, headers, bytes }),
      fail,
    )
  })
  return promise
}
