// Owns reading the feed as a client does: page after page, or as server-sent events.
import assert from 'node:assert/strict'
import type { Client } from './client.ts'

export interface Change {
  key: string
  deleted?: true
  permission?: string
  token?: string
  meta?: string
  size?: number
  modified?: number
  data?: string
}

export interface Page {
  cursor: string
  more: boolean
  changes: Change[]
}

export async function readPage(client: Client, query = ''): Promise<Page> {
  const response = await client.request(`/changes${query}`)
  assert.equal(response.status, 200, await response.clone().text())
  return (await response.json()) as Page
}

/** All pages after a cursor, or from the beginning. */
export async function readAll(
  client: Client,
  since?: string,
  limit = 3,
): Promise<{ cursor: string; changes: Change[] }> {
  const changes: Change[] = []
  for (let cursor = since; ;) {
    const query = `?limit=${limit}${cursor === undefined ? '' : `&since=${cursor}`}`
    const page = await readPage(client, query)
    changes.push(...page.changes)
    ;({ cursor } = page)
    if (!page.more) return { cursor, changes }
  }
}

/** What a client knows that applied these changes in this order. */
export function apply(changes: Change[], before = new Map<string, string>()): Map<string, string> {
  const state = new Map(before)
  for (const { key, deleted, token, permission } of changes) {
    if (deleted === true) state.delete(key)
    else state.set(key, `${permission} ${token}`)
  }
  return state
}

interface Event {
  type: string
  id: string
  change: Change
}

export interface EventStream {
  /** The next event; undefined when the stream has ended. */
  next(): Promise<Event | undefined>
  close(): Promise<void>
}

// Less than until the next heartbeat, which would find what nobody was told of.
const MOST_MS = 15_000

/** Aborts what lasts too long; answers how to stop that. */
function bound(abort: AbortController): () => void {
  const late = new assert.AssertionError({ message: 'nothing was told in time' })
  const timer = setTimeout(() => abort.abort(late), MOST_MS)
  return () => clearTimeout(timer)
}

/** Asks for what comes after a cursor, and is held until something does; but not for ever. */
export function holdPoll(client: Client, cursor: string): Promise<Response> {
  const abort = new AbortController()
  const init = { signal: abort.signal }
  return client.request(`/changes?wait=50&since=${cursor}`, init).finally(bound(abort))
}

/** Opens an event stream; each wait of its is bounded. */
export async function openStream(
  client: Client,
  { query = '', headers = {} }: { query?: string; headers?: Record<string, string> } = {},
): Promise<EventStream> {
  const abort = new AbortController()
  const response = await client.request(`/changes${query}`, {
    headers: { Accept: 'text/event-stream', ...headers },
    signal: abort.signal,
  })
  assert.equal(response.status, 200)
  assert.equal(response.headers.get('content-type'), 'text/event-stream')
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  const decoder = new TextDecoder()
  let text = ''

  async function next(): Promise<Event | undefined> {
    const stopBound = bound(abort)
    try {
      for (;;) {
        const end = text.indexOf('\n\n')
        if (end === -1) {
          const { done, value } = await reader.read()
          if (done) return undefined
          text += decoder.decode(value, { stream: true })
          continue
        }
        const event = parse(text.slice(0, end))
        text = text.slice(end + 2)
        if (event !== undefined) return event
      }
    } finally {
      stopBound()
    }
  }

  return {
    next,
    async close() {
      await reader.cancel().catch(() => undefined)
      abort.abort()
    },
  }
}

/** The event that these lines make; undefined for a comment. */
function parse(block: string): Event | undefined {
  const lines = block.split('\n')
  const field = (name: string): string =>
    lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? ''
  if (field('event') === '') return undefined
  return { type: field('event'), id: field('id'), change: JSON.parse(field('data')) as Change }
}
