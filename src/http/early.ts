// Owns refusals that come before the request's body has. To close on a client that still sends resets
// the connection, and the answer may be lost: nginx and Apache make a 502 of it, and a conflict is none.
import type { HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { IncomingMessage } from 'node:http'
import { EXPECTS_CONTINUE, SLOW, type Rate, type WithContinue } from './body.ts'

// Who sends faster than this is answered when all has come: HTTP/2 clients of Caddy can lose an answer
// that comes before. Who sends slower is spared the rest, if they listen.
const FAST: Rate = { windowMs: 500, bytes: 32 * 1024 }

/** True for the refusal of a body that is on its way, and that nobody will read. */
export const isEarly = ({ status }: Response, { incoming, outgoing }: HttpBindings): boolean =>
  status >= 400 && status !== 408 && !outgoing.headersSent && isComing(incoming)

const isComing = (incoming: WithContinue): boolean =>
  !incoming.complete && !incoming.destroyed && incoming[EXPECTS_CONTINUE] !== true

/** Sends the refusal, and ends it when the body has ended, or nearly stopped. */
export async function sendEarly(
  refusal: Response,
  { incoming, outgoing }: HttpBindings,
  stopped: AbortSignal,
): Promise<Response> {
  const body = Buffer.from(await refusal.arrayBuffer())
  const headers = Object.fromEntries(refusal.headers)
  await readOn(incoming, FAST, stopped)
  outgoing.writeHead(refusal.status, { ...headers, 'Content-Length': body.length })
  outgoing.write(body)
  await readOn(incoming, SLOW, stopped)
  outgoing.end()
  return RESPONSE_ALREADY_SENT
}

/** Reads what nobody wants, for as long as it comes at this rate. */
async function readOn(incoming: IncomingMessage, rate: Rate, stopped: AbortSignal): Promise<void> {
  if (!isComing(incoming) || stopped.aborted) return
  await new Promise<void>((resolve) => {
    let bytes = 0
    const count = (chunk: Buffer): void => void (bytes += chunk.length)
    const timer = setInterval(() => {
      if (bytes < rate.bytes) done()
      bytes = 0
    }, rate.windowMs)
    const done = (): void => {
      clearInterval(timer)
      incoming.off('data', count).off('end', done).off('close', done)
      stopped.removeEventListener('abort', done)
      resolve()
    }
    incoming.on('data', count).once('end', done).once('close', done)
    stopped.addEventListener('abort', done)
  })
}
