// Owns the errors that calls throw.
import type { Current } from './types.ts'

/** What the server says of a refusal (RFC 9457). `failed` is a batch's. */
export interface Problem {
  code?: string
  status?: number
  title?: string
  detail?: string
  failed?: { index: number; code: string; token?: string; digest?: string; meta?: string }[]
  [member: string]: unknown
}

/** What calls throw, by its members: a replica may be bundled apart from its client. */
export type Failure = Error & {
  code?: string
  status?: number
  retryAfterMs?: number
  problem?: Problem
  current?: Current | null
}

/**
 * A call that failed. `code` is one of the protocol's (`AUTH01`, `PERM01`, `SIZE01` …), or one of the
 * client's own: `NETWORK` no answer came (`status` 0), and whether a write happened is not known;
 * `PROXY` something before the server answered; `CODEC` the codec cannot read this (a wrong
 * passphrase) or is missing; `DIGEST` the value did not arrive as it was stored.
 */
export class SyncError extends Error {
  readonly code: string
  readonly status: number
  /** How long the server asks to wait, when it does. */
  readonly retryAfterMs: number | undefined
  readonly problem: Problem | undefined

  constructor(
    code: string,
    message: string,
    o: { status?: number; retryAfterMs?: number; problem?: Problem; cause?: unknown } = {},
  ) {
    super(message, { cause: o.cause })
    this.name = 'SyncError'
    this.code = code
    this.status = o.status ?? 0
    this.retryAfterMs = o.retryAfterMs
    this.problem = o.problem
  }
}

/** The store has another version than the write named (KEY01). `current` is what it has, null for nothing. */
export class ConflictError extends SyncError {
  readonly current: Current | null

  constructor(refusal: SyncError, current: Current | null) {
    super(refusal.code, refusal.message, { status: refusal.status, cause: refusal })
    this.name = 'ConflictError'
    this.current = current
  }
}
