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
