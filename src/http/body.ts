// Owns reading a request's body: at once or as it flows, never more than allowed, never for ever.
import type { HttpBindings } from '@hono/node-server'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { SyncError, busy, malformed } from '../errors.ts'
import { gather } from '../gather.ts'
import type { Memory } from '../memory.ts'

export interface Rate {
  windowMs: number
  /** At least so many in each window. */
  bytes: number
}

// A slow phone may take its time for a gigabyte; one that sends less than this holds a socket for nothing.
export const SLOW: Rate = { windowMs: 30_000, bytes: 4096 }
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Says `100 Continue` to a client that waits for it, now that its body is wanted. */
export const EXPECTS_CONTINUE = Symbol('expects 100-continue')
export type WithContinue = IncomingMessage & { [EXPECTS_CONTINUE]?: boolean }

/** The body as it flows, until `ended` rejects. Throws REQ01, as 408 when it is too slow. */
export async function* readBody(
  incoming: WithContinue,
  outgoing: ServerResponse,
  ended?: Promise<never>,
): AsyncGenerator<Buffer> {
  if (incoming[EXPECTS_CONTINUE] === true) outgoing.writeContinue()
  incoming[EXPECTS_CONTINUE] = false
  const chunks = incoming.iterator({ destroyOnReturn: false })
  let bytes = 0
  let giveUp: ((reason: unknown) => void) | undefined
  ended?.catch((reason: unknown) => giveUp?.(reason))
  const timer = setInterval(() => {
    if (bytes < SLOW.bytes) giveUp?.(tooSlow())
    bytes = 0
  }, SLOW.windowMs)
  timer.unref()
  try {
    for (;;) {
      const { done, value } = await new Promise<IteratorResult<Buffer>>((resolve, reject) => {
        giveUp = reject
        chunks.next().then(resolve, (error: unknown) => reject(endedEarly(error)))
      })
      if (done === true) return
      bytes += value.length
      yield value
    }
  } finally {
    clearInterval(timer)
    // Lets go of the request, so that what is left of it can be drained. Not awaited: behind a chunk
    // that never comes, it never returns.
    void chunks.return?.()
  }
}

const tooSlow = (): SyncError =>
  new SyncError('REQ01', 'The request came too slowly: send it again.', { status: 408 })

const endedEarly = (cause: unknown): SyncError =>
  new SyncError('REQ01', 'The request ended before its body: send it again.', { cause })

/** The body's length as the client says it, in bytes. */
export function contentLength(incoming: IncomingMessage): number | undefined {
  const length = incoming.headers['content-length']
  return length === undefined ? undefined : Number(length)
}

/**
 * A JSON body, whatever its Content-Type. A large one has its share of `memory` until `held` is disposed
 * of. Throws REQ01, SIZE01, ERR05.
 */
export async function readJson(
  { incoming, outgoing }: HttpBindings,
  maxBytes: number,
  { memory, held }: { memory: Memory; held: DisposableStack },
): Promise<unknown> {
  const length = contentLength(incoming) ?? maxBytes
  if (length > maxBytes) throw tooLarge()
  const evicted = Promise.withResolvers<never>()
  const share =
    length > SMALL_BYTES ? await memory.take(length, () => evicted.reject(busy())) : undefined
  held.defer(() => share?.release())
  const body = gather()
  let size = 0
  for await (const chunk of readBody(incoming, outgoing, evicted.promise)) {
    size += chunk.length
    if (size > maxBytes) throw tooLarge()
    body.add(chunk)
  }
  share?.send()
  const bytes = body.bytes()
  if (bytes.length > SMALL_BYTES && hasTooManyParts(bytes)) throw tooLarge()
  try {
    return JSON.parse(utf8.decode(bytes)) as unknown
  } catch {
    throw malformed('The body is not JSON in UTF-8.')
  }
}

const tooLarge = (): SyncError => new SyncError('SIZE01', 'The body is larger than this takes.')

/** A body up to here is no burden, whatever it says. */
export const SMALL_BYTES = 64 * 1024
// The largest body there is, a batch, has a few thousand. Millions would keep everybody waiting while
// they are parsed.
const MAX_PARTS = 10_000
const [QUOTE, BACKSLASH, COMMA, OPEN_LIST, OPEN_OBJECT] = Buffer.from('"\\,[{')

/** Counts what JSON text has outside of its strings: commas, and what opens a list or an object. */
function hasTooManyParts(bytes: Uint8Array): boolean {
  let parts = 0
  let isInside = false
  for (let i = 0; i < bytes.length && parts <= MAX_PARTS; i++) {
    const byte = bytes[i]
    if (byte === QUOTE) isInside = !isInside
    else if (isInside) i += byte === BACKSLASH ? 1 : 0
    else if (byte === COMMA || byte === OPEN_LIST || byte === OPEN_OBJECT) parts++
  }
  return parts > MAX_PARTS
}
