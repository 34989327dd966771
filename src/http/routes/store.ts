// Owns the routes under /store.
import type { IncomingMessage } from 'node:http'
import * as v from 'valibot'
import type { Deps } from '../../deps.ts'
import { SyncError, malformed } from '../../errors.ts'
import { used } from '../../quota.ts'
import type { Session } from '../../session.ts'
import * as store from '../../store.ts'
import type { Store } from '../../store.ts'
import { isIntact } from '../../value.ts'
import { QUOTA_HEADERS, empty, jsonHeaders, quotaHeaders, valueHeaders } from '../answer.ts'
import { contentLength, readBody } from '../body.ts'
import {
  readCondition,
  readDigests,
  readMeta,
  readRange,
  readTags,
  type Range,
} from '../conditions.ts'
import { route } from '../route.ts'
import { listedStore } from '../schemas.ts'
import { sendLarge, sendText, toJsonArray } from '../stream.ts'

const VERSION_HEADERS = ['X-Sync-Key', 'X-Sync-Token', 'ETag']
const VALUE_HEADERS = [
  ...VERSION_HEADERS,
  'X-Sync-Meta',
  'Repr-Digest',
  'Content-Length',
  'Last-Modified',
  'Accept-Ranges',
]

const CONDITION_HEADERS = [
  { name: 'X-Sync-Token', description: 'The token the store has, or * for whatever is there.' },
  { name: 'If-Match', description: 'The same, as an ETag.' },
]
const READ_HEADERS = [
  { name: 'If-None-Match', description: 'ETags; 304 when one is current.' },
  { name: 'Range', description: 'One range of bytes.' },
  { name: 'If-Range', description: 'An ETag; the range counts only when it is current.' },
]

const readErrors = ['ERR01', 'KEY01', 'ERR02', 'ERR05'] as const
const writeErrors = ['ERR01', 'PERM01', 'KEY01', 'ERR04', 'ERR05'] as const

export const storeRoutes = [
  route({
    method: 'GET',
    path: '/store',
    summary: 'List all stores the account has a permission on, ordered by key',
    session: true,
    answers: {
      200: {
        description: 'The stores.',
        headers: QUOTA_HEADERS,
        schema: v.array(listedStore),
      },
    },
    errors: [],
    handle: async ({ deps, self, incoming, outgoing }) => {
      const pages = store.list(deps, self)
      const first = await pages.next()
      const headers = jsonHeaders(quotaHeaders(deps, await used(deps, self)))
      if (incoming.method === 'HEAD') return new Response(null, { headers })
      return sendText(outgoing, headers, toJsonArray(first.value ?? [], pages))
    },
  }),
  route({
    method: 'GET',
    path: '/store/{key}',
    summary: 'Read a value',
    session: true,
    requestHeaders: READ_HEADERS,
    answers: {
      200: { description: 'The bytes.', bytes: true, headers: VALUE_HEADERS },
      206: {
        description: 'One range of them.',
        bytes: true,
        headers: [...VALUE_HEADERS, 'Content-Range'],
      },
      304: { description: 'Not changed.', headers: VERSION_HEADERS },
    },
    errors: [...readErrors],
    handle: async (call) => {
      try {
        return await read(call)
      } catch (error) {
        // The row was read, then its file was superseded and collected: the row now names another.
        if (error instanceof MissingValue) return read(call)
        throw error
      }
    },
  }),
  route({
    method: 'HEAD',
    path: '/store/{key}',
    summary: 'Read what is known of a value',
    session: true,
    requestHeaders: [READ_HEADERS[0] as (typeof READ_HEADERS)[0]],
    answers: {
      200: { description: 'As for GET, without the bytes.', headers: VALUE_HEADERS },
      304: { description: 'Not changed.', headers: VERSION_HEADERS },
    },
    errors: [...readErrors],
    handle: (call) => read(call),
  }),
  route({
    method: 'PUT',
    path: '/store/{key}',
    summary: 'Create or replace a value and its meta',
    session: true,
    takesValue: true,
    requestHeaders: [
      ...CONDITION_HEADERS,
      { name: 'If-None-Match', description: '* creates, and never replaces.' },
      { name: 'X-Sync-Meta', description: 'Up to 8000 printable ASCII characters.' },
      { name: 'Content-Digest', description: 'sha-256 or sha-512 of the body, verified.' },
      { name: 'Repr-Digest', description: 'The same.' },
    ],
    answers: {
      201: { description: 'Created.', headers: [...VERSION_HEADERS, ...QUOTA_HEADERS] },
      204: { description: 'Replaced.', headers: [...VERSION_HEADERS, ...QUOTA_HEADERS] },
    },
    errors: [...writeErrors, 'SIZE01', 'SIZE02', 'SIZE03', 'RATE01'],
    handle: async ({ deps, self, key, incoming, outgoing }) => {
      refusePartial(incoming)
      const written = await store.put(deps, self, key, {
        condition: readCondition(incoming),
        meta: readMeta(incoming),
        incoming: {
          body: readBody(incoming, outgoing),
          length: contentLength(incoming),
          digests: readDigests(incoming),
        },
      })
      const headers = {
        'X-Sync-Key': written.key,
        'X-Sync-Token': written.token,
        ETag: `"${written.token}"`,
        ...quotaHeaders(deps, written.used),
      }
      return written.isNew ? empty({ ...headers, 'Content-Length': '0' }, 201) : empty(headers)
    },
  }),
  route({
    method: 'DELETE',
    path: '/store/{key}',
    summary: 'Delete a store for everyone',
    session: true,
    requestHeaders: CONDITION_HEADERS,
    answers: { 204: { description: 'Deleted.', headers: ['X-Sync-Key', ...QUOTA_HEADERS] } },
    errors: [...writeErrors],
    handle: async ({ deps, self, key, incoming }) => {
      const removed = await store.remove(deps, self, key, readCondition(incoming))
      return empty({ 'X-Sync-Key': removed.key, ...quotaHeaders(deps, removed.used) })
    },
  }),
]

function refusePartial({ headers }: IncomingMessage): void {
  if (headers['content-range'] !== undefined) throw malformed('A PUT replaces the whole value.')
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity') {
    throw malformed('Values are stored as they are sent: without Content-Encoding.')
  }
}

class MissingValue extends Error {}

async function read({ deps, self, key, incoming, outgoing }: Reading): Promise<Response> {
  const found = await store.get(deps, self, key)
  const headers = valueHeaders(found)
  if (!isStillWanted(incoming, found)) return new Response(null, { status: 304, headers })
  const range =
    incoming.method === 'HEAD'
      ? null
      : readRange(incoming, { size: found.size, etag: `"${found.token}"` })
  if (range === 'unsatisfiable') throw outside(found.size)
  if (found.file === null) return sendInline(found, { range, headers, method: incoming.method })
  const end = incoming.method === 'HEAD' ? 0 : found.size - 1
  const part = range ?? { start: 0, end }
  const reading = await deps.blobs.read(found.file, part)
  if (reading === undefined) throw new MissingValue('the file of a value is missing')
  return sendLarge(
    { deps, incoming, outgoing },
    { reading, name: found.file, size: found.size, digest: found.digest },
    { range, headers: withLength(headers, found.size, range) },
  )
}

interface Reading {
  deps: Deps
  self: Session
  key: string
  incoming: IncomingMessage
  outgoing: Parameters<typeof sendText>[0]
}

/** Preconditions of a GET (RFC 9110 §13.2.2), by token: dates are too coarse to tell versions apart. */
function isStillWanted({ headers }: IncomingMessage, found: Store): boolean {
  const names = (header: string): boolean =>
    header.trim() === '*' || readTags(header).includes(found.token)
  const ifMatch = headers['if-match']
  if (ifMatch !== undefined && !names(ifMatch)) {
    throw new SyncError('KEY01', 'The store has another version than If-Match names.', {
      headers: store.versionHeaders(found),
    })
  }
  const ifNoneMatch = headers['if-none-match']
  return ifNoneMatch === undefined || !names(ifNoneMatch)
}

const outside = (size: number): SyncError =>
  new SyncError('REQ01', 'The range lies outside the value.', {
    status: 416,
    headers: { 'Content-Range': `bytes */${size}` },
  })

function withLength(
  headers: Record<string, string>,
  size: number,
  range: Range | null,
): Record<string, string> {
  if (range === null) return { ...headers, 'Content-Length': String(size) }
  return {
    ...headers,
    'Content-Length': String(range.end - range.start + 1),
    'Content-Range': `bytes ${range.start}-${range.end}/${size}`,
  }
}

function sendInline(
  { inline, digest, size }: Store,
  {
    range,
    headers,
    method,
  }: { range: Range | null; headers: Record<string, string>; method: string | undefined },
): Response {
  if (inline === null || inline.length !== size || !isIntact(inline, digest)) {
    throw new Error('a value in the database is damaged')
  }
  const body = range === null ? inline : inline.subarray(range.start, range.end + 1)
  return new Response(method === 'HEAD' ? null : (body as Uint8Array<ArrayBuffer>), {
    status: range === null ? 200 : 206,
    headers: withLength(headers, size, range),
  })
}
