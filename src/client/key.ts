// Owns keys in paths.
import { SyncError } from './errors.ts'

/** A store by itself, as one that others shared; anything else is a name. */
export const isStoreKey = (key: string): boolean => /^~[\w-]{43}$/.test(key)

// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f]/
const MAX_CODE_POINTS = 8000

/** Whether a store can have this name: what meta says of one that others shared may be anything. */
export function isName(name: string): boolean {
  if (isStoreKey(name) || CONTROL.test(name) || [...name].length > MAX_CODE_POINTS) return false
  try {
    keyPath(name)
    return true
  } catch {
    return false
  }
}

/** The key as it stands in a path. Throws REQ01 for what a URL would fold into another path. */
export function keyPath(key: string): string {
  const segments = key.split('/')
  if (segments.some((segment) => ['', '.', '..'].includes(segment))) {
    throw new SyncError('REQ01', 'No segment of a key is empty, . or ..', { status: 400 })
  }
  try {
    // Not %2F: some proxies refuse it.
    return segments.map(encodeURIComponent).join('/')
  } catch (cause) {
    throw new SyncError('REQ01', 'The key is no well-formed Unicode.', { status: 400, cause })
  }
}
