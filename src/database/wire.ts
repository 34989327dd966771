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
  fetch(request: Request): Promise<Response>
  /** True while a connection is up: then the server behind it is the one that it was. */
  isUp(): boolean
  close(): void
}

const MAX_SOCKETS = 64
const CONNECT_MS = 3000
const ANSWER_MS = 10_000
// Less than what servers and balancers between usually close after: a request does not meet that.
const IDLE_MS = 5000

export function openWire(url: URL, answerMs = ANSWER_MS): Wire {
  const isTls = url.protocol === 'https:'
  const options = { keepAlive: true, maxSockets: MAX_SOCKETS, timeout: IDLE_MS }
  const agent = isTls ? new HttpsAgent(options) : new HttpAgent(options)
  const up = new Set<Socket>()
  const known = new WeakSet<Socket>()

  /** Calls `begin` once the connection is up, from when on what is written may arrive. */
  function whenUp(socket: Socket, begin: () => void): void {
    const connected = isTls ? 'secureConnect' : 'connect'
    if (!known.has(socket)) {
      known.add(socket)
      socket.once(connected, () => up.add(socket))
      socket.once('close', () => up.delete(socket))
    }
    if (up.has(socket)) begin()
    else socket.once(connected, begin)
  }

  return {
    async fetch(request) {
      const body = Buffer.from(await request.arrayBuffer())
      const outgoing = (isTls ? httpsRequest : httpRequest)(request.url, {
        agent,
        method: request.method,
        headers: { ...Object.fromEntries(request.headers), 'content-length': body.length },
        signal: AbortSignal.timeout(answerMs),
      })
      const answer = await answerOf(outgoing, body, whenUp)
      if (answer.status < 400) return new Response(new Uint8Array(answer.bytes), answer)
      const text = answer.bytes.toString().slice(0, 200)
      const reason = `the database server answers ${answer.status}: ${text}`
      throw answer.status >= 500 ? new NoAnswer(reason) : new NotSent(reason)
    },
    isUp: () => up.size > 0,
    close: () => agent.destroy(),
  }
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
    }),
  )
  outgoing.once('response', (answer) => {
    const headers = { 'content-type': String(answer.headers['content-type']) }
    buffer(answer).then(
      (bytes) => resolve({ status: answer.statusCode ?? 0, headers, bytes }),
      fail,
    )
  })
  outgoing.end(body)
  return promise
}
