// Owns the feed: pages until all was seen, then a stream of events, or where fetch cannot stream, held polls.
import { fromBase64 } from './encoding.ts'
import { SyncError } from './errors.ts'
import { eventParser, type ServerEvent } from './events.ts'
import { withName } from './meta.ts'
import { events, linked, pause, stopIfAborted } from './signal.ts'
import { decodeValue } from './store.ts'
import type { Session, Transport } from './transport.ts'
import type { Change, Codec, FeedEvent, FeedOptions, StoreInfo } from './types.ts'

// The server has something to say every 20 s. A stream whose first bytes are held back by a proxy is
// not one: then the feed is polled, until it is worth another look.
const SILENCE_MS = 50_000
const FIRST_BYTES_MS = 10_000
const POLL_SECONDS = 25
const POLLS_BEFORE_STREAM = 20

type WireChange = (StoreInfo & { data?: string }) | { key: string; deleted: true }

interface Page {
  cursor: string
  more: boolean
  changes: WireChange[]
}

interface Feed extends FeedOptions {
  transport: Transport
  codec: Codec
  mayStream: boolean
  signal: AbortSignal
  session: Session
}

/** Where the feed stands; null before the first page is through. */
interface Place {
  cursor: string | null
  /** Connections in a row that brought nothing. */
  failures: number
  /** Held polls that are left before a stream is tried. */
  polls: number
}

export async function* readFeed(
  o: Omit<Feed, 'signal' | 'session'> & {
    ends: AbortSignal | undefined
    signal?: AbortSignal | undefined
  },
): AsyncGenerator<FeedEvent, void, undefined> {
  const link = linked(o.ends, o.signal)
  const feed: Feed = { ...o, signal: link.signal, session: o.transport.session }
  const place: Place = { cursor: o.since ?? null, failures: 0, polls: 0 }
  try {
    for (;;) {
      try {
        yield* feed.live === true ? follow(feed, place) : pages(feed, place, 0)
        return
      } catch (error) {
        stopIfAborted(link.signal)
        if (isUnknownCursor(error) && place.cursor !== null) {
          place.cursor = null
          yield { type: 'reset' }
          continue
        }
        // Answered, and not by asking again: the session has ended, or this is no such server.
        if (feed.live !== true || !(error instanceof SyncError) || !isPassing(error)) throw error
        feed.onOffline?.(error)
        await pause(feed.transport.backOff(place.failures++, error.retryAfterMs), link.signal)
      }
    }
  } finally {
    link.abort(new Error('the feed is no longer read'))
    link.release()
  }
}

const isUnknownCursor = (error: unknown): boolean =>
  error instanceof SyncError && error.code === 'FEED01'

const isPassing = ({ code, status }: SyncError): boolean =>
  ['NETWORK', 'PROXY', 'RATE01'].includes(code) || status >= 500

async function* follow(feed: Feed, place: Place): AsyncGenerator<FeedEvent> {
  yield* pages(feed, place, 0)
  for (;;) {
    while (feed.mayStream && place.polls === 0) yield* stream(feed, place)
    yield* pages(feed, place, POLL_SECONDS)
    if (place.polls > 0) place.polls--
  }
}

/** Pages until there is no more for now; with `wait`, the first is held until there is something. */
async function* pages(feed: Feed, place: Place, wait: number): AsyncGenerator<FeedEvent> {
  for (let isMore = true, held = wait; isMore; held = 0) {
    const query = [
      ...(place.cursor === null ? [] : [`since=${place.cursor}`]),
      ...(held > 0 ? [`wait=${held}`] : []),
      ...(feed.includeData === true ? ['include=data'] : []),
    ]
    const path = `/changes${query.length === 0 ? '' : '?'}${query.join('&')}`
    const { session, signal } = feed
    const asked = { method: 'GET', read: 'json', path, session, signal } as const
    // A live feed has its own pauses, and says that it is offline.
    const { body } = await feed.transport.call({ ...asked, once: feed.live === true })
    if (held > 0) place.failures = 0
    const { cursor, more, changes } = body as Page
    const last = changes.length - 1
    for (const [i, change] of changes.entries()) {
      // Only after the last of a page is the page's cursor the place to go on from.
      if (i === last) place.cursor = cursor
      yield { type: 'change', cursor: place.cursor, change: await decode(feed, change) }
    }
    place.cursor = cursor
    isMore = more
  }
  if (place.cursor !== null) yield { type: 'live', cursor: place.cursor }
}

/**
 * One connection, until it ends, which it does by throwing: NETWORK, or what refuses it. Returns where
 * it is none: polls go on then.
 */
async function* stream(feed: Feed, place: Place): AsyncGenerator<FeedEvent> {
  const link = linked(feed.signal)
  let watch: ReturnType<typeof setTimeout> | undefined
  const expectWithin = (ms: number, fail: () => void): void => {
    clearTimeout(watch)
    watch = setTimeout(fail, ms)
  }
  const silent = (): void => link.abort(new SyncError('NETWORK', 'The stream is silent.'))
  // The connection may take a minute to break, and may not break at all.
  const cut = (): void => link.abort(new SyncError('NETWORK', 'The device went offline.'))
  events.addEventListener?.('offline', cut)
  try {
    expectWithin(FIRST_BYTES_MS, () => {
      place.polls = POLLS_BEFORE_STREAM
      silent()
    })
    const { body } = await openStream(feed, place, link.signal)
    // What some platforms, and wrappers of fetch, answer cannot be read while it comes.
    feed.mayStream = typeof body?.getReader === 'function'
    if (body === null || !feed.mayStream) return
    for await (const event of readEvents(body)) {
      expectWithin(SILENCE_MS, silent)
      if (event?.type === 'reset') throw new SyncError('FEED01', 'The cursor is unknown.')
      if (event?.type !== 'change') continue
      const change = await decode(feed, JSON.parse(event.data) as WireChange)
      place.cursor = event.id
      place.failures = 0
      // The time that the reader takes is no silence of the server.
      clearTimeout(watch)
      yield { type: 'change', cursor: event.id, change }
      expectWithin(SILENCE_MS, silent)
    }
    throw new SyncError('NETWORK', 'The server ended the stream.')
  } catch (error) {
    stopIfAborted(feed.signal)
    if (place.polls > 0) return
    if (error instanceof SyncError) throw error
    throw new SyncError('NETWORK', 'The stream broke off.', { cause: error })
  } finally {
    clearTimeout(watch)
    events.removeEventListener?.('offline', cut)
    link.abort(new Error('the stream is no longer read'))
    link.release()
  }
}

async function openStream(feed: Feed, { cursor }: Place, signal: AbortSignal) {
  const include = feed.includeData === true ? '&include=data' : ''
  const path = `/changes?since=${cursor}${include}`
  const headers = { Accept: 'text/event-stream' }
  const { transport, session } = feed
  return transport.open({ method: 'GET', path, headers, session, signal })
}

/** The events of an answer, and null for bytes that end none. */
async function* readEvents(
  body: NonNullable<Response['body']>,
): AsyncGenerator<ServerEvent | null> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  const parse = eventParser()
  try {
    for (;;) {
      const { done, value } = (await reader.read()) as { done: boolean; value?: Uint8Array }
      if (done) return
      yield null
      yield* parse(decoder.decode(value, { stream: true }))
    }
  } finally {
    reader.cancel().catch(() => undefined) // it has failed already, or nobody wants the rest
  }
}

async function decode({ codec }: Feed, wire: WireChange): Promise<Change> {
  if ('deleted' in wire) return { key: wire.key, deleted: true }
  const { data, ...info } = wire
  const named = await withName(codec, info)
  if (data === undefined) return named
  try {
    return { ...named, value: await decodeValue(codec, fromBase64(data), named.name) }
  } catch {
    // Who wants the value asks for it, and is told then.
    return named
  }
}

/** React Native's fetch answers when all has come, which a stream never has. */
export const canStream = (): boolean =>
  typeof Response === 'function' && 'body' in Response.prototype
