// Owns a reverse proxy for a test, with the faults that real ones are configured to have.
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { gzipSync } from 'node:zlib'

export interface Faults {
  tls?: { key: string; cert: string }
  /** Bytes of a body above which it answers 413. */
  mostBody?: number
  /** Characters of one header above which it answers 431. */
  mostHeader?: number
  /** Compresses values, and marks their ETags, or makes its own. */
  gzip?: 'marked' | 'own'
  /** Keeps event streams until they end. */
  buffers?: true
  /** Answers 504 when a poll is held. */
  cutsPolls?: true
  /** Decodes the path once too often. */
  decodes?: true
  /** Headers of requests and answers that it drops. */
  drops?: string[]
  dropsOfAnswers?: string[]
  /** Adds CORS headers of its own. */
  addsCors?: true
  /** What it does with X-Forwarded-For in place of appending to it. */
  forwards?: 'nothing' | 'what it was sent'
  refuses?: string[]
  redirects?: string
  /** Headers that it adds to answers. */
  adds?: Record<string, string>
  /** Methods that it takes and never answers. */
  swallows?: string[]
}

let proxies = 0

export async function startProxy(t: TestContext, target: string, faults: Faults = {}) {
  // To the server behind, clients come from elsewhere; each proxy's, as failures are counted by it.
  const client = `198.51.100.${++proxies}`
  const take: RequestListener = (incoming, outgoing) => {
    incoming.on('error', () => undefined)
    const status = refusal(incoming, faults)
    if (faults.swallows?.includes(incoming.method ?? '') === true) return
    if (status !== null) {
      outgoing.writeHead(status, { ...faults.adds, Location: faults.redirects ?? '' })
      outgoing.end('<html>the proxy has said no</html>')
      return
    }
    pass({ target, faults, client }, incoming, outgoing)
  }
  const server = faults.tls === undefined ? createServer(take) : createTlsServer(faults.tls, take)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  return `${faults.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`
}

function refusal({ headers, method }: IncomingMessage, faults: Faults): number | null {
  const { mostBody = Infinity, mostHeader = Infinity, refuses = [], redirects } = faults
  if (redirects !== undefined) return 301
  if (refuses.includes(method ?? '')) return 403
  if (Number(headers['content-length'] ?? 0) > mostBody) return 413
  return Object.values(headers).some((value) => String(value).length > mostHeader) ? 431 : null
}

function pass(
  { target, faults, client }: { target: string; faults: Faults; client: string },
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): void {
  const { url = '/', method, headers } = incoming
  const behind = httpRequest(
    target + (faults.decodes ? url.replace(/%(?:25|2F)/g, decodeURIComponent) : url),
    {
      method,
      headers: without({ ...headers, ...forwarded(headers, client, faults) }, faults.drops),
      agent: false,
    },
  )
  behind.on('error', () => outgoing.headersSent || outgoing.destroy())
  behind.on('response', (answer) => void answerWith(answer, faults, incoming, outgoing))
  outgoing.on('close', () => behind.destroy())
  if (faults.cutsPolls && url.includes('wait=')) outgoing.writeHead(504).end()
  let bytes = 0
  incoming.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > (faults.mostBody ?? Infinity) && !outgoing.headersSent) {
      outgoing.writeHead(413).end()
      behind.destroy()
    }
  })
  incoming.pipe(behind)
}

function forwarded(
  headers: IncomingMessage['headers'],
  client: string,
  { forwards }: Faults,
): Record<string, string | string[] | undefined> {
  const before = headers['x-forwarded-for']
  if (forwards === 'nothing') return { 'x-forwarded-for': undefined }
  if (forwards === 'what it was sent') return { 'x-forwarded-for': before ?? client }
  return { 'x-forwarded-for': before === undefined ? client : `${String(before)}, ${client}` }
}

async function answerWith(
  answer: IncomingMessage,
  faults: Faults,
  asked: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  if (outgoing.headersSent) return
  const { statusCode = 0 } = answer
  const headers = without({ ...answer.headers, ...faults.adds }, faults.dropsOfAnswers)
  if (faults.addsCors) headers['access-control-allow-origin'] = ['*', '*']
  const isStream = headers['content-type'] === 'text/event-stream'
  const packs = faults.gzip !== undefined && mayPack(asked, answer)
  if (packs) markAsPacked(headers, faults.gzip)
  if (packs || (isStream && faults.buffers)) {
    const body = await buffer(answer).catch(() => null)
    if (body === null) outgoing.destroy()
    else outgoing.writeHead(statusCode, headers).end(packs ? gzipSync(body) : body)
    return
  }
  outgoing.writeHead(statusCode, headers)
  answer.on('error', () => outgoing.destroy())
  answer.pipe(outgoing)
}

const mayPack = (asked: IncomingMessage, { headers, statusCode }: IncomingMessage): boolean =>
  asked.method === 'GET' &&
  /gzip/.test(String(asked.headers['accept-encoding'])) &&
  headers['content-type'] === 'application/octet-stream' &&
  statusCode === 200

function markAsPacked(headers: Record<string, string | string[]>, how: Faults['gzip']): void {
  const etag = String(headers['etag']).replaceAll('"', '')
  delete headers['content-length']
  headers['content-encoding'] = 'gzip'
  headers['etag'] = how === 'own' ? '"5f0-6a"' : `"${etag}-gzip"`
}

/** What is not there, is not sent. */
function without(
  headers: Record<string, string | string[] | undefined>,
  names: string[] = [],
): Record<string, string | string[]> {
  const dropped = ['connection', 'keep-alive', ...names]
  const kept = Object.entries(headers).filter(
    ([name, value]) => value !== undefined && !dropped.includes(name),
  )
  return Object.fromEntries(kept) as Record<string, string | string[]>
}
