// Owns a raw connection for a test: any bytes to the server, and its answers one by one, as they
// stand on the wire. No wait of it is without an end.
import { connect, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

export interface WireAnswer {
  status: number
  /** By lower-case name; one that stands twice is joined by a comma. */
  headers: Record<string, string>
  body: Buffer
  /** False when the connection ended before the body did. */
  isWhole: boolean
  /** The answer as it came, headers and all. */
  text: string
}

export interface Wire {
  socket: Socket
  /** Strings go out byte by byte: `\xff` is the byte 255. */
  send(...parts: (string | Uint8Array)[]): void
  /** The next answer, 1xx included; null when the connection ended without one. */
  answer(options?: { toHead?: boolean }): Promise<WireAnswer | null>
  /** Resolves when the connection has ended, whoever ended it. */
  closed(): Promise<void>
}

const WAIT_MS = 15_000

/** Connects; the end of the test closes. */
export async function openWire(t: TestContext, port: number): Promise<Wire> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  t.after(() => socket.destroy())
  let received: Buffer[] = []
  let size = 0
  let isEnded = false
  socket.on('data', (chunk: Buffer) => {
    received.push(chunk)
    size += chunk.length
  })
  for (const event of ['end', 'close', 'error'] as const) {
    socket.on(event, () => {
      isEnded = true
    })
  }
  await waitFor(socket, () => (socket.readyState === 'open' ? true : undefined))
  return {
    socket,
    send(...parts) {
      for (const part of parts) {
        socket.write(typeof part === 'string' ? Buffer.from(part, 'latin1') : part)
      }
    },
    async answer({ toHead = false } = {}) {
      let needed = 0
      const found = await waitFor(socket, () => {
        if (size < needed && !isEnded) return undefined
        received = [Buffer.concat(received)]
        const read = readAnswer(received[0] as Buffer, { toHead, isEnded })
        if ('answer' in read) return read
        needed = read.needed
        return isEnded ? null : undefined
      })
      if (found === null) return null
      received = [(received[0] as Buffer).subarray(found.length)]
      size -= found.length
      return found.answer
    },
    async closed() {
      await waitFor(socket, () => (isEnded ? true : undefined))
    },
  }
}

/** What `look` finds; it looks again after every event of the socket. */
function waitFor<T>(socket: Socket, look: () => T | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const events = ['connect', 'data', 'end', 'close', 'error']
    const timer = setTimeout(() => {
      stop()
      reject(new Error('the server neither answered nor closed in time'))
    }, WAIT_MS)
    const stop = (): void => {
      clearTimeout(timer)
      for (const event of events) socket.off(event, again)
    }
    const again = (): void => {
      const found = look()
      if (found === undefined) return
      stop()
      resolve(found)
    }
    for (const event of events) socket.on(event, again)
    again()
  })
}

/** The answer that `bytes` begin with, and its length; or how many bytes it has at least. */
function readAnswer(
  bytes: Buffer,
  { toHead, isEnded }: { toHead: boolean; isEnded: boolean },
): { answer: WireAnswer; length: number } | { needed: number } {
  const headLength = bytes.indexOf('\r\n\r\n') + 4
  if (headLength < 4) return { needed: bytes.length + 1 }
  const [first = '', ...lines] = bytes.toString('latin1', 0, headLength - 4).split('\r\n')
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1])
  const headers = readHeaders(lines)
  const isBare = toHead || status < 200 || status === 204 || status === 304
  const rest = bytes.subarray(headLength)
  const body = isBare ? { bytes: Buffer.alloc(0), length: 0 } : readBody(rest, headers)
  if (body === undefined && !isEnded) {
    const contentLength = Number(headers['content-length'] ?? 0)
    return { needed: Math.max(bytes.length + 1, headLength + contentLength) }
  }
  const length = headLength + (body?.length ?? rest.length)
  return {
    length,
    answer: {
      status,
      headers,
      body: body?.bytes ?? rest,
      isWhole: body !== undefined,
      text: bytes.toString('latin1', 0, length),
    },
  }
}

function readHeaders(lines: string[]): Record<string, string> {
  const headers = Object.create(null) as Record<string, string>
  for (const line of lines) {
    const [, name = '', value = ''] = /^([^:]+): ?(.*)$/.exec(line) ?? []
    const before = headers[name.toLowerCase()]
    headers[name.toLowerCase()] = before === undefined ? value : `${before}, ${value}`
  }
  return headers
}

interface Body {
  bytes: Buffer
  /** On the wire. */
  length: number
}

function readBody(rest: Buffer, headers: Record<string, string>): Body | undefined {
  if (headers['transfer-encoding'] === 'chunked') return readChunks(rest)
  const length = Number(headers['content-length'])
  return rest.length >= length ? { bytes: rest.subarray(0, length), length } : undefined
}

function readChunks(rest: Buffer): Body | undefined {
  const chunks: Buffer[] = []
  for (let at = 0; ;) {
    const lineEnd = rest.indexOf('\r\n', at)
    if (lineEnd < 0) return undefined
    const start = lineEnd + 2
    const end = start + parseInt(rest.toString('latin1', at, lineEnd), 16)
    if (!(rest.length >= end + 2)) return undefined
    if (end === start) return { bytes: Buffer.concat(chunks), length: end + 2 }
    chunks.push(rest.subarray(start, end))
    at = end + 2
  }
}
