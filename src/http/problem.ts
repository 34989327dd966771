// Owns how a refusal looks on the wire: the one table from code to status, and problem+json (RFC 9457).
import type { ErrorCode } from '../errors.ts'
import { SyncError } from '../errors.ts'

interface Problem {
  status: number
  headers: Record<string, string>
  body: string
}

const STATUS = {
  REQ01: [400, 'Malformed request'],
  AUTH01: [401, 'Not logged in'],
  AUTH02: [401, 'Wrong login'],
  AUTH03: [403, 'A fresh login is needed'],
  ACCT01: [403, 'Registration is not open to you'],
  ACCT02: [422, 'The id or password does not meet the rules'],
  ACCT03: [409, 'The id is in use'],
  PERM01: [403, 'Not enough permission'],
  PERM02: [409, 'The store would have no OWN'],
  KEY01: [412, 'The token does not match'],
  FEED01: [410, 'The cursor is unknown'],
  SIZE01: [413, 'Too large'],
  SIZE02: [507, 'The quota is full'],
  SIZE03: [507, 'The disk is full'],
  RATE01: [429, 'Too many attempts'],
  ERR01: [404, 'Not found'],
  ERR02: [500, 'Unexpected error'],
  ERR03: [405, 'Method not allowed'],
  ERR04: [503, 'Outcome unknown'],
  ERR05: [503, 'Busy'],
} as const satisfies Record<ErrorCode, readonly [number, string]>

const RETRY_AFTER_SECONDS: Record<number, string> = { 429: '60', 503: '5' }

export const CODES = Object.keys(STATUS) as ErrorCode[]

export const statusOf = (code: ErrorCode): number => STATUS[code][0]

export const titleOf = (code: ErrorCode): string => STATUS[code][1]

/** When each is answered, for the documents. */
export const MEANING: Record<ErrorCode, string> = {
  REQ01:
    'Malformed: JSON, a parameter, a header, a key or a digest; too slow; a range outside the value; headers too large.',
  AUTH01: 'The session token is missing, unknown or expired.',
  AUTH02:
    'The id or the password is wrong, or the account is disabled; or a reset token is wrong, spent or expired.',
  AUTH03: 'The session was opened more than 10 minutes ago, and this needs a fresh login.',
  ACCT01: 'Registration is closed, or the invitation is missing or spent.',
  ACCT02: 'The id or the password does not meet the rules: `detail` says which.',
  ACCT03: 'The id is in use.',
  PERM01: 'The account has a permission on the store, but not enough for this.',
  PERM02: 'The store would be left without an OWN.',
  KEY01:
    'The token is wrong (412) or missing (428). The answer carries the X-Sync-Key, and the current X-Sync-Token, ETag, Repr-Digest and X-Sync-Meta.',
  FEED01: "The cursor is not one of this account's on this history: start again without `since`.",
  SIZE01: 'Larger than the server takes.',
  SIZE02: "The account's quota is full.",
  SIZE03: "The server's disk is (nearly) full. Nothing happened.",
  RATE01: 'Too many attempts, uploads or event streams at once: see Retry-After.',
  ERR01: 'Nothing here for this account. What is absent and what is not yours look the same.',
  ERR02: 'Unexpected. It is logged under the X-Request-Id of the answer.',
  ERR03: 'The path does not take the method: Allow names those it takes.',
  ERR04: 'The disk or the database failed at the commit: the write may or may not have happened.',
  ERR05: 'Too busy, or a disk that refuses. Nothing happened: try again after Retry-After.',
}

/** The answer to a refusal. Anything that is not one is ERR02: say what it was in the log. */
export function toProblem(error: unknown, requestId: string): Problem {
  const { code, message, extras } =
    error instanceof SyncError
      ? error
      : new SyncError('ERR02', 'Something unexpected happened: tell the operator the X-Request-Id.')
  const [usualStatus, title] = STATUS[code]
  const status = extras.status ?? usualStatus
  const retryAfter = RETRY_AFTER_SECONDS[status]
  return {
    status,
    headers: {
      'Content-Type': 'application/problem+json',
      'X-Request-Id': requestId,
      ...(status === 401 ? { 'WWW-Authenticate': 'Bearer' } : {}),
      ...(retryAfter === undefined ? {} : { 'Retry-After': retryAfter }),
      ...extras.headers,
    },
    body: JSON.stringify({
      type: 'about:blank',
      title,
      status,
      detail: message,
      code,
      ...extras.members,
    }),
  }
}
