// Owns answers that are too large to hold: written straight to the socket, as fast as it takes them.
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { createHash, type Hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { constantTimeEqual } from 'oslo/crypto'
import type { Reading } from '../blobs/blobs.ts'
import type { Deps } from '../deps.ts'
import type { Range } from './conditions.ts'

interface Value {
  reading: Reading
  name: string
  size: number
  digest: Uint8Array
}

const CHUNK_BYTES = 64 * 1024

/**
 * Sends a value or a range of it from where it is open, and closes that. The end of a whole value is held
 * back until its digest agrees: a damaged one is cut short, never sent whole.
 */
export async function sendLarge(
  { deps, incoming, outgoing }: { deps: Deps; incoming: IncomingMessage; outgoing: ServerResponse },
  { reading, name, size, digest }: Value,
  { range, headers }: { range: Range | null; headers: Record<string, string> },
): Promise<Response> {
  try {
    if (reading.size !== size) deps.blobs.damaged.add(name)
    if (deps.blobs.damaged.has(name)) throw new Error('the file of a value is damaged')
    const status = range === null ? 200 : 206
    if (incoming.method === 'HEAD') return new Response(null, { status, headers })
    outgoing.writeHead(status, headers)
    const part = range ?? { start: 0, end: size - 1 }
    const isWhole = await pump(outgoing, reading, part, range === null ? digest : undefined)
    if (!isWhole && !outgoing.destroyed) {
      deps.blobs.damaged.add(name)
      deps.log.error('the file of a value is damaged: run the checks of the disk')
      outgoing.destroy()
    }
    return RESPONSE_ALREADY_SENT
  } catch (error) {
    if (!outgoing.headersSent) throw error
    outgoing.destroy() // the client went away, or the disk failed half-way
    return RESPONSE_ALREADY_SENT
  } finally {
    await reading.close()
  }
}

/** Copies a part of a value to the socket, two buffers in turn; false when it is not what it should be. */
async function pump(
  outgoing: ServerResponse,
  reading: Reading,
  { start, end }: Range,
  digest: Uint8Array | undefined,
): Promise<boolean> {
  const hash: Hash | undefined = digest && createHash('sha256')
  const buffers = [Buffer.allocUnsafe(CHUNK_BYTES), Buffer.allocUnsafe(CHUNK_BYTES)]
  let sent = Promise.resolve()
  for (let position = start; position <= end;) {
    const buffer = buffers.reverse()[0] as Buffer
    // The odd bytes go first: what is held back at the end is a whole chunk.
    const length = ((end - position) % CHUNK_BYTES) + 1
    const bytes = await reading.read(buffer, length, position)
    if (bytes === 0) return false
    const chunk = buffer.subarray(0, bytes)
    position += bytes
    hash?.update(chunk)
    await sent
    if (position > end && hash !== undefined && !isEqual(hash, digest)) return false
    sent = write(outgoing, chunk)
    sent.catch(() => undefined) // looked at when the next chunk is ready
  }
  await sent
  outgoing.end()
  return true
}

const isEqual = (hash: Hash, digest: Uint8Array | undefined): boolean =>
  digest !== undefined && constantTimeEqual(hash.digest(), digest)

/**
 * Resolves when the socket has taken the chunk; rejects when the client went away, also for an answer
 * that waits for earlier ones on its connection and never gets a socket.
 */
function write(outgoing: ServerResponse, chunk: Uint8Array | string): Promise<void> {
  return new Promise((resolve, reject) => {
    const { socket } = outgoing.req
    const gone = (): void => reject(new Error('the client went away'))
    if (socket.destroyed) return gone()
    socket.once('close', gone)
    outgoing.write(chunk, (error) => {
      socket.off('close', gone)
      if (error) reject(error)
      else resolve()
    })
  })
}

/** Sends a text of which the rest is made as the socket takes it. */
export async function sendText(
  outgoing: ServerResponse,
  headers: Record<string, string>,
  parts: AsyncIterable<string>,
): Promise<Response> {
  outgoing.writeHead(200, headers)
  try {
    for await (const part of parts) await write(outgoing, part)
    outgoing.end()
  } catch {
    outgoing.destroy() // what is cut short must not look whole
  }
  return RESPONSE_ALREADY_SENT
}

/** Pages of a list as one JSON array. */
export async function* toJsonArray(
  first: unknown[],
  rest: AsyncIterable<unknown[]>,
): AsyncGenerator<string> {
  yield `[${first.map((item) => JSON.stringify(item)).join(',')}`
  let isEmpty = first.length === 0
  for await (const page of rest) {
    const items = page.map((item) => JSON.stringify(item)).join(',')
    if (items !== '') yield isEmpty ? items : `,${items}`
    isEmpty &&= items === ''
  }
  yield ']'
}
