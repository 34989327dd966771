// Owns what every answer carries. Each is made once, with all its headers: a header added afterwards
// costs the adapter a second set.
import type { Deps } from '../deps.ts'
import { ALLOWED, EXPOSED } from '../headers.ts'
import type { Store } from '../store.ts'
import { versionHeaders } from '../store.ts'

/** On every answer: any origin may ask, without credentials, and a browser guesses no type. */
const COMMON_HEADERS = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Expose-Headers': EXPOSED.join(', '),
  'X-Content-Type-Options': 'nosniff',
}

/** The policy of what is no page: should a browser show it all the same, nothing in it runs. */
export const INERT = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"

/** On every answer that is no store's value. */
export const API_HEADERS = {
  ...COMMON_HEADERS,
  'Cache-Control': 'no-store',
  'Content-Security-Policy': INERT,
}

type Headers = Record<string, string>

export const json = (value: unknown, headers?: Headers, status = 200): Response =>
  new Response(JSON.stringify(value), {
    status,
    headers: { ...API_HEADERS, 'Content-Type': 'application/json', ...headers },
  })

export const jsonHeaders = (headers: Headers): Headers => ({
  ...API_HEADERS,
  'Content-Type': 'application/json',
  ...headers,
})

export const empty = (headers?: Headers, status = 204): Response =>
  new Response(null, { status, headers: { ...API_HEADERS, ...headers } })

export const text = (body: string, status: number, headers: Headers): Response =>
  new Response(body, { status, headers: { ...API_HEADERS, ...headers } })

export const QUOTA_HEADERS = ['X-Sync-Quota-Used', 'X-Sync-Quota-Limit']

/** How much the caller OWNs and may, in bytes. */
export const quotaHeaders = ({ config }: Pick<Deps, 'config'>, usedBytes: number): Headers => ({
  'X-Sync-Quota-Used': String(usedBytes),
  ...(config.quota === null ? {} : { 'X-Sync-Quota-Limit': String(config.quota) }),
})

/** A page or part of one, which a browser keeps and asks for again by its ETag. */
export const pageHeaders = (type: string, etag: string, csp: string): Headers => ({
  ...COMMON_HEADERS,
  'Cache-Control': 'no-cache',
  'Content-Security-Policy': csp,
  'Content-Type': type,
  ETag: etag,
  'Referrer-Policy': 'no-referrer',
})

/** Without X-Accel-Buffering nginx holds events back, without Content-Encoding Caddy's compression does. */
export const eventStreamHeaders = (): Headers => ({
  ...COMMON_HEADERS,
  'Cache-Control': 'no-store, no-transform',
  'Content-Security-Policy': INERT,
  'Content-Type': 'text/event-stream',
  'Content-Encoding': 'identity',
  'X-Accel-Buffering': 'no',
})

/** The answer to a preflight, for any path: what is not allowed says so by its own answer. */
export const preflight = (): Response =>
  new Response(null, {
    status: 204,
    headers: {
      ...API_HEADERS,
      Allow: 'GET, HEAD, PUT, POST, DELETE, OPTIONS',
      'Access-Control-Allow-Methods': 'GET, HEAD, PUT, POST, DELETE',
      'Access-Control-Allow-Headers': ALLOWED.join(', '),
      'Access-Control-Max-Age': '7200',
    },
  })

/** The headers of an answer that stands for a store's value, with or without it. */
export const valueHeaders = (store: Store): Headers => ({
  ...COMMON_HEADERS,
  ...versionHeaders(store),
  'Last-Modified': new Date(store.modified).toUTCString(),
  'Accept-Ranges': 'bytes',
  'Cache-Control': 'private, no-cache, no-transform',
  'Content-Type': 'application/octet-stream',
  'Content-Disposition': 'attachment',
  'Content-Security-Policy': "sandbox; default-src 'none'",
})
