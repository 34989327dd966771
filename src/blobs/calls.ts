// Owns a call to a store that speaks S3: signed, tried again when that may help, and what its failure
// means. Only what every such store has is used: no conditional PUT.
import { AwsV4Signer } from 'aws4fetch'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { SyncError } from '../errors.ts'
import type { State } from './blobs.ts'
import { valueOf } from './xml.ts'

/** What BLOB_URL and its credentials say. */
export interface Place {
  bucket: string
  /** Empty, or with a slash at its end. */
  prefix: string
  endpoint: string
  region: string
  accessKeyId: string
  secretAccessKey: string
  /** Of credentials that end after some hours. */
  sessionToken?: string
}

/** The bucket did not do it, and nothing happened. */
export class Away extends SyncError {
  readonly state: State
  /** What it answered, in a few words for the operator. */
  readonly reason: string

  constructor(state: State, reason: string) {
    super('ERR05', 'Large values cannot be reached now. Nothing happened: try again in a moment.', {
      cause: new Error(reason),
    })
    this.state = state
    this.reason = reason
  }
}

/** It may be done if it is tried once more. */
export class Transient extends Error {}

export interface Call {
  method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  /** Below the prefix; without it, the bucket itself. */
  name?: string
  query?: Record<string, string>
  headers?: Record<string, string>
  body?: Uint8Array
  /** Of the body, in hex: the store compares it, so that no byte changes on the way. */
  sha256?: string
  /** Silence after which it is given up. */
  idleMs?: number
}

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  text: string
}

export type Calls = ReturnType<typeof openCalls>

const ATTEMPTS = 4
const FIRST_PAUSE_MS = 100
const MOST_PAUSE_MS = 2000
// After so long nothing is tried anew: somebody waits for the answer.
const PATIENCE_MS = 15_000
const IDLE_MS = 10_000
const MOST_TEXT = 8 * 1024 * 1024
export const LATE = 'it did not answer in time'
// SHA-256 of no bytes.
const NOTHING = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

/** `onState` hears of each change, and why. */
export function openCalls(place: Place, onState: (state: State, reason: string) => void) {
  const { send, close } = openSender(place)
  let isClosed = false
  let state: State = 'ok'
  let contactMs = Number.NEGATIVE_INFINITY

  function note(now: State, reason = ''): void {
    contactMs = performance.now()
    if (now === state) return
    state = now
    onState(now, reason)
  }

  /** An answer that is read to its end. Throws Transient, Away. */
  async function ask(call: Call): Promise<Answer> {
    const incoming = await send(call)
    const text = await readText(incoming, call.idleMs)
    return judge({ status: incoming.statusCode ?? 0, headers: incoming.headers, text })
  }

  /** Does it until it is done or cannot be; with the store away already, once. Throws Away. */
  async function insist<T>(work: (attempt: number) => Promise<T>): Promise<T> {
    const startMs = performance.now()
    const most = state === 'unreachable' ? 1 : ATTEMPTS
    for (let attempt = 1; ; attempt++) {
      try {
        const result = await work(attempt)
        note('ok')
        return result
      } catch (error) {
        if (error instanceof Away) note(error.state, error.reason)
        if (!(error instanceof Transient)) throw error
        if (isClosed || attempt >= most || performance.now() - startMs > PATIENCE_MS) {
          note('unreachable', error.message)
          throw new Away('unreachable', error.message)
        }
      }
      await sleep(Math.random() * Math.min(MOST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt))
    }
  }

  return {
    send,
    ask,
    insist,
    call: (one: Call): Promise<Answer> => insist(() => ask(one)),
    state: () => state,
    /** How long ago the store was heard of, or was not. */
    quietMs: () => performance.now() - contactMs,
    close(): void {
      isClosed = true
      close()
    },
  }
}

function openSender({ bucket, prefix, endpoint, region, ...credentials }: Place) {
  const isSecure = endpoint.startsWith('https:')
  const agent = new (isSecure ? HttpsAgent : HttpAgent)({ keepAlive: true })
  const request = isSecure ? httpsRequest : httpRequest
  const cache = new Map<string, ArrayBuffer>()
  return {
    close: () => agent.destroy(),

    /** Resolves when the answer begins; from there on whoever reads it says how long to wait. */
    async send({ method, name, query = {}, ...more }: Call): Promise<IncomingMessage> {
      const { headers = {}, body, sha256 = NOTHING, idleMs = IDLE_MS } = more
      const url = new URL(`${endpoint}/${bucket}/${name === undefined ? '' : prefix + name}`)
      for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value)
      const signed = await new AwsV4Signer({
        ...credentials,
        method,
        url: url.href,
        headers: { ...headers, 'x-amz-content-sha256': sha256 },
        service: 's3',
        region,
        cache,
      }).sign()
      const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
      const sent = request(signed.url, {
        method,
        agent,
        headers: {
          ...Object.fromEntries(signed.headers),
          ...(method === 'PUT' || method === 'POST' ? { 'content-length': body?.length ?? 0 } : {}),
        },
        timeout: idleMs,
      })
      sent.once('timeout', () => sent.destroy(new Error(LATE)))
      sent.on('error', (error) => reject(new Transient(wordsOf(error), { cause: error })))
      sent.once('response', (incoming) => {
        sent.setTimeout(0)
        incoming.on('error', () => undefined) // heard of by whoever reads
        resolve(incoming)
      })
      sent.end(body)
      return promise
    },
  }
}

/** Throws what an answer means that is neither what was asked for nor that it is not there. */
export function judge(answer: Answer): Answer {
  const { status, text } = answer
  const code = valueOf(text, 'Code')
  const reason = `it answers ${status}${code === undefined ? '' : ` ${code}`}`
  if ([408, 429].includes(status) || (status >= 500 && status !== 501)) throw new Transient(reason)
  if (status === 400 && /^(?:RequestTimeout|SlowDown)$/.test(code ?? ''))
    throw new Transient(reason)
  if (status < 300 || status === 416) return answer
  if (status === 404 && code !== 'NoSuchBucket') return answer
  throw new Away('refused', reason)
}

/** Throws Transient. */
export async function readText(incoming: IncomingMessage, idleMs = IDLE_MS): Promise<string> {
  let text = ''
  incoming.setEncoding('utf8')
  const timer = setTimeout(() => incoming.destroy(new Error(LATE)), idleMs)
  try {
    for await (const chunk of incoming) {
      timer.refresh()
      text += String(chunk)
      if (text.length > MOST_TEXT) throw new Error('its answer has no end')
    }
    return text
  } catch (error) {
    throw new Transient(wordsOf(error), { cause: error })
  } finally {
    clearTimeout(timer)
  }
}

/** The message of a failed call; that of several addresses has only a code. */
function wordsOf(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException
  return message === '' ? String(code) : message
}
