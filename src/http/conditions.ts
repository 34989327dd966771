// Owns what a request's headers say about versions, ranges and digests: read once, or refused.
import type { IncomingMessage } from 'node:http'
import { malformed } from '../errors.ts'
import type { Condition } from '../store.ts'
import type { Digest } from '../value.ts'

const TOKEN = /^[0-9a-v]{1,64}$/
const META = /^[\x20-\x7e]{0,8000}$/
const DIGEST_BYTES = { sha256: 32, sha512: 64 }

/**
 * The tokens of If-Match or If-None-Match. Proxies rewrite ETags when they compress, so `W/"t"`,
 * `"t-gzip"`, `"t-br"`, `"t;gzip"` and an unquoted tag all name `t`.
 */
export function readTags(header: string): string[] {
  return header
    .split(',')
    .map((tag) => tag.trim())
    .filter(Boolean)
    .map((tag) =>
      tag
        .replace(/^W\//i, '')
        .replace(/^"(.*)"$/, '$1')
        .replace(/[-;](?:gzip|br|zstd|deflate)$/i, ''),
    )
}

/** What a write's headers say about the version it changes. Throws REQ01 where they disagree. */
export function readCondition({ headers }: IncomingMessage): Condition {
  const syncToken = single(headers['x-sync-token'])
  const ifMatch = headers['if-match']
  const ifNoneMatch = headers['if-none-match']
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch.trim() !== '*') throw malformed('If-None-Match of a write takes only *.')
    if (ifMatch !== undefined || syncToken !== undefined) {
      throw malformed('If-None-Match goes with no token.')
    }
    return { kind: 'new' }
  }
  const matches = [ifMatch, syncToken].filter((header) => header !== undefined).map(readMatch)
  const [first, second] = matches
  if (first === undefined) return { kind: 'none' }
  if (second !== undefined && !agree(first, second)) {
    throw malformed('If-Match and X-Sync-Token name different tokens.')
  }
  return second ?? first
}

function readMatch(header: string): Condition {
  if (header.trim() === '*') return { kind: 'any' }
  const tokens = readTags(header)
  // One of another server's, or mangled: not malformed, but no version that a store here has.
  if (tokens.length === 0) throw malformed('The token is empty.')
  return { kind: 'match', tokens: tokens.filter((token) => TOKEN.test(token)) }
}

function agree(tag: Condition, token: Condition): boolean {
  if (tag.kind === 'match' && token.kind === 'match') {
    return token.tokens.every((one) => tag.tokens.includes(one))
  }
  return tag.kind === token.kind
}

/** X-Sync-Meta, or null without one. Throws REQ01. */
export function readMeta({ headers }: IncomingMessage): string | null {
  const meta = single(headers['x-sync-meta'])
  if (meta === undefined) return null
  if (!META.test(meta)) throw malformed('X-Sync-Meta takes up to 8000 printable ASCII characters.')
  return meta
}

const single = (header: string | string[] | undefined): string | undefined =>
  Array.isArray(header) ? header[0] : header

/** The digests of Content-Digest and Repr-Digest (RFC 9530) that are verified here. Throws REQ01. */
export function readDigests({ headers }: IncomingMessage): Digest[] {
  return [headers['content-digest'], headers['repr-digest']].flatMap((header) =>
    header === undefined ? [] : String(header).split(',').flatMap(readDigest),
  )
}

// A member of a structured dictionary (RFC 9651) whose value is a byte sequence.
function readDigest(member: string): Digest[] {
  const match = /^\s*([a-z*][\w.*-]*)=:([\w+/]*={0,2}):\s*(?:;.*)?$/.exec(member)
  if (match === null) throw malformed('A digest is sha-256=:base64: or sha-512=:base64:.')
  const [, name, base64 = ''] = match
  const algorithm = name === 'sha-256' ? 'sha256' : name === 'sha-512' ? 'sha512' : undefined
  if (algorithm === undefined) return []
  const value = Buffer.from(base64, 'base64')
  if (value.length !== DIGEST_BYTES[algorithm]) throw malformed('A digest has the wrong length.')
  return [{ algorithm, value }]
}

export interface Range {
  start: number
  /** Inclusive */
  end: number
}

/**
 * The one range of a GET (RFC 9110 §14): null for the whole value, 'unsatisfiable' for one outside.
 * What is no single byte range is ignored, as the RFC has it.
 */
export function readRange(
  { headers }: IncomingMessage,
  { size, etag }: { size: number; etag: string },
): Range | null | 'unsatisfiable' {
  const ifRange = headers['if-range']
  if (ifRange !== undefined && ifRange !== etag) return null
  const [, first, last] = /^bytes=(\d*)-(\d*)$/i.exec(headers.range?.trim() ?? '') ?? []
  if (first === undefined || last === undefined || first + last === '') return null
  const range =
    first === ''
      ? { start: size - Math.min(Number(last), size), end: size - 1 }
      : { start: Number(first), end: Math.min(last === '' ? size : Number(last), size - 1) }
  if (first !== '' && last !== '' && Number(last) < Number(first)) return null
  return range.start >= size ? 'unsatisfiable' : range
}
