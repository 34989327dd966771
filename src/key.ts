// Owns key names: what one may look like, and the store key that is kept in its place.
import { createHmac } from 'node:crypto'
import { malformed } from './errors.ts'

const MAX_CODE_POINTS = 8000
const STORE_KEY = /^~[\w-]{43}$/
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f]/

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The key in a raw request target: all after the route's slash, percent-decoded exactly once.
 * Throws REQ01. (A URL parser would fold `..` and decode loosely: two keys could meet.)
 */
export function parse(raw: string): string {
  if (/%(?![0-9a-f]{2})/i.test(raw)) throw malformed('The key has a % without two hex digits.')
  return check(raw.includes('%') ? decode(raw) : raw)
}

function decode(raw: string): string {
  const bytes = Buffer.from(
    raw.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16))),
    'latin1',
  )
  try {
    return utf8.decode(bytes)
  } catch {
    throw malformed('The key is not UTF-8.')
  }
}

/** Throws REQ01 unless `name` may be a key; answers it. */
export function check(name: string): string {
  if (!name.isWellFormed()) throw malformed('The key is not UTF-8.')
  if (CONTROL.test(name)) throw malformed('A key has no control characters.')
  if (name.length > MAX_CODE_POINTS && [...name].length > MAX_CODE_POINTS) {
    throw malformed(`A key has 1 to ${MAX_CODE_POINTS} characters.`)
  }
  for (const segment of name.split('/')) {
    if (segment === '' || segment === '.' || segment === '..') {
      throw malformed('No segment of a key is empty, . or .. (proxies fold them).')
    }
  }
  return name
}

/** True for a key that names a store directly, as one does that others shared. */
export const isStoreKey = (key: string): boolean => STORE_KEY.test(key)

/** The store key of a name in this account: two accounts may use a name without meeting. */
export const toStoreKey = (key: string, keySalt: Uint8Array): string =>
  isStoreKey(key) ? key : `~${createHmac('sha256', keySalt).update(key).digest('base64url')}`
