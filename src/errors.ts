// Owns the closed list of error codes, the error that carries one to the edge, and the one for operators.

/** The codes of the protocol's table *Errors*. */
export type ErrorCode =
  | 'REQ01'
  | 'AUTH01'
  | 'AUTH02'
  | 'AUTH03'
  | 'ACCT01'
  | 'ACCT02'
  | 'ACCT03'
  | 'PERM01'
  | 'PERM02'
  | 'KEY01'
  | 'FEED01'
  | 'SIZE01'
  | 'SIZE02'
  | 'SIZE03'
  | 'RATE01'
  | 'ERR01'
  | 'ERR02'
  | 'ERR03'
  | 'ERR04'
  | 'ERR05'

export interface ErrorExtras {
  /** For a code that has several statuses; otherwise the table in http/problem.ts decides. */
  status?: number
  headers?: Record<string, string>
  /** Further members of the problem. */
  members?: Record<string, unknown>
  cause?: unknown
}

/** A refusal that the protocol knows. `detail` says what to do, and never echoes the request. */
export class SyncError extends Error {
  readonly code: ErrorCode
  readonly extras: ErrorExtras

  constructor(code: ErrorCode, detail: string, extras: ErrorExtras = {}) {
    super(detail, { cause: extras.cause })
    this.name = 'SyncError'
    this.code = code
    this.extras = extras
  }
}

/** A node cannot start: the message is one line that says what to do. */
export class StartError extends Error {}

/** What an operator asked for cannot be done: the message is one line that says why. */
export class Refusal extends Error {}

export const malformed = (detail: string): SyncError => new SyncError('REQ01', detail)

/** Absent and not-yours look the same, so every such refusal is this one. */
export const notFound = (): SyncError =>
  new SyncError(
    'ERR01',
    'There is nothing here for this account. If its name was yours before, use another name.',
  )

export const unauthorized = (): SyncError =>
  new SyncError('AUTH01', 'Log in again: the session token is missing, unknown or expired.')

export const busy = (cause?: unknown): SyncError =>
  new SyncError('ERR05', 'Nothing happened. Try again in a moment.', { cause })
