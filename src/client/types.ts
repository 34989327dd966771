// Owns the shapes that the client's callers see.

export type Permission = 'READ' | 'WRITE' | 'OWN'

/** What travels with a value: the store's name, and whatever an app adds. */
export interface Meta {
  name?: string
  [member: string]: unknown
}

/** Every call takes a signal to give up by; it then throws the signal's reason. */
export interface CallOptions {
  signal?: AbortSignal | undefined
}

export interface ConnectOptions {
  /** Where the server is; may have a path. */
  url: string | URL
  /** Of a session that was opened before. */
  token?: string | null
  /** The handle of the session's account: with it, a replica refuses another's copy also offline. */
  user?: string | null
  fetch?: typeof fetch
  /** Encodes and decodes all values and meta: `passphraseCodec` makes them unreadable to the server. */
  codec?: Codec
  /** Called once for a session that has ended; a token that it answers is used from then on. */
  onUnauthorized?: () => Promise<string | null> | string | null
  /** Ends everything that this client does. */
  signal?: AbortSignal
  /** Whether fetch can read an answer while it comes; found out by itself where absent. */
  stream?: boolean
  retry?: Partial<Retry>
}

export interface Retry {
  /** How often a call is sent at most: 4. */
  attempts: number
  /** The longest first pause, 250 ms; the next ones may be twice as long each, up to 30 s. */
  baseMs: number
  /** A call that would have to wait longer fails at once, with `retryAfterMs`: 10 s. */
  maxWaitMs: number
}

export interface Codec {
  encode(bytes: Uint8Array, context: CodecContext): Promise<Uint8Array> | Uint8Array
  decode(bytes: Uint8Array, context: CodecContext): Promise<Uint8Array> | Uint8Array
}

export interface CodecContext {
  kind: 'value' | 'meta'
  /** Where it is known: a store that others shared is known by its key. */
  name?: string
}

export interface OpenedSession {
  token: string
  expiration: number
  /** The account's handle. */
  user: string
}

export interface SessionInfo {
  /** What `endSession` takes; not the secret. */
  token: string
  /** The account's handle. */
  user: string
  expiration: number
  device?: string
  created: number
  used: number
  current: boolean
}

export interface StoreInfo {
  key: string
  permission: Permission
  token: string
  size: number
  modified: number
  /** As it is on the server. */
  meta?: string
  /** From meta, where this client's codec can read it. */
  name?: string
  /** What else meta holds. */
  extra?: Meta
  /** The id of the write that it came by, where a client like this one wrote it. */
  write?: string
}

/** What a store holds. */
export interface Current {
  value: Uint8Array
  token: string
  /** null when there is none that this client's codec can read. */
  meta: Meta | null
  key: string
  /** The id of the write that it came by, where a client like this one wrote it. */
  write?: string
}

export type Change = (StoreInfo & { value?: Uint8Array }) | { key: string; deleted: true }

/**
 * `cursor` is where to go on from after this event; null in the first page of a first sync, which then
 * starts again. `reset`: what was known is from another history; all that there is follows anew.
 * `live`: all up to here was seen.
 */
export type FeedEvent =
  | { type: 'change'; cursor: string | null; change: Change }
  | { type: 'reset' }
  | { type: 'live'; cursor: string }

export interface FeedOptions extends CallOptions {
  since?: string | null | undefined
  /** Goes on for ever, through lost connections, until the signal. */
  live?: boolean
  /** Values up to 16 KiB come along. */
  includeData?: boolean
  /** Told of each lost connection. */
  onOffline?: ((error: Error) => void) | undefined
}

/** A version; null for "must be new"; * for whatever is there. */
export type Token = string | null

export interface PutOptions extends CallOptions {
  /** Absent: creates. null: creates, and says so. A token: replaces that version. *: whatever is there. */
  token?: Token | undefined
  /** Beside the name, which is put in by itself. */
  meta?: Meta | undefined
  /** An id for this write; random where absent. */
  write?: string | undefined
}

export type Operation =
  | { put: string; value: Uint8Array | string; token?: Token; meta?: Meta }
  | { delete: string; token: Token }
  | { check: string; token: Token }

export interface OperationResult {
  /** Absent where the answer was lost and the batch was found to be done. */
  key?: string
  token?: string
}

export interface ServerInfo {
  name: string
  version: string
  registration: 'open' | 'invite' | 'closed'
  durability: 'disk' | 'database'
  limits: {
    value: number
    inline: number
    quota: number | null
    key: number
    meta: number
    members: number
  }
}

export interface Credentials extends CallOptions {
  id: string
  password: string
  /** What the session is called in the list of sessions. */
  device?: string | undefined
}

export interface Client {
  /** The session's; null without one. */
  readonly token: string | null
  /** The account's handle, once it was handed in, a session was opened here, or `sessions` were asked for. */
  readonly user: string | null
  /** Tells of every login, logout and renewed session; answers how to stop. */
  onSession(listener: () => void): () => void
  /** Creates an account and remembers its session. Throws ACCT01, ACCT02, ACCT03, RATE01. */
  register(o: Credentials & { invitation?: string | undefined }): Promise<OpenedSession>
  /** Remembers the session. Throws AUTH02, RATE01. */
  login(o: Credentials): Promise<OpenedSession>
  /** Ends this session, which is forgotten at once. */
  logout(o?: CallOptions): Promise<void>
  sessions(o?: CallOptions): Promise<SessionInfo[]>
  /** Takes the `token` of a SessionInfo. Throws ERR01. */
  endSession(handle: string, o?: CallOptions): Promise<void>
  /** Every other session ends. Throws ACCT02, AUTH02. */
  changePassword(o: CallOptions & { password: string; current: string }): Promise<void>
  /** Every session ends. Throws ACCT02, AUTH02. */
  resetPassword(o: CallOptions & { password: string; token: string }): Promise<void>
  /** Asks for a mail with a reset token; whether there is such an account is not said. */
  requestReset(id: string, o?: CallOptions): Promise<void>
  /** With all stores that it alone OWNs. Throws AUTH03 unless the session is fresh. */
  deleteAccount(o?: CallOptions): Promise<void>
  info(o?: CallOptions): Promise<ServerInfo>
  /** By its name, or its store key (~ and 43 characters). Asks nothing. Throws REQ01 for no key. */
  store(nameOrKey: string): Store
  list(o?: CallOptions): Promise<{ stores: StoreInfo[]; used: number; limit: number | null }>
  /** Everything since `since`, oldest first, one entry a store. Throws AUTH01. */
  changes(o?: FeedOptions): AsyncIterable<FeedEvent>
  /** All or nothing, values up to 16 KiB. Throws the first failure, with all in `problem.failed`. */
  batch(operations: Operation[], o?: CallOptions): Promise<OperationResult[]>
}

export interface Store {
  /** null for what does not exist for this account. */
  get(o?: CallOptions): Promise<Current | null>
  /** Throws ConflictError, PERM01, SIZE01, SIZE02, SIZE03. */
  put(value: Uint8Array | string, o?: PutOptions): Promise<{ token: string; key: string }>
  /** Throws ConflictError, ERR01, PERM01. */
  delete(o: CallOptions & { token: string }): Promise<void>
  /** Reads, calls `fn`, writes; again with the newer value after a conflict. Keeps the rest of meta. */
  update(
    fn: (current: Uint8Array | null) => Uint8Array | string | Promise<Uint8Array> | Promise<string>,
    o?: CallOptions & { meta?: Meta | undefined },
  ): Promise<{ token: string; key: string }>
  /** `user` is an account id or a handle. Throws ERR01, PERM01, PERM02, RATE01. */
  share(user: string, permission: Permission, o?: CallOptions): Promise<void>
  revoke(users: string | string[], o?: CallOptions): Promise<void>
  /** Gives the own permission up. Throws PERM02. */
  leave(o?: CallOptions): Promise<void>
  members(o?: CallOptions): Promise<{ user: string; permission: Permission; current: boolean }[]>
}
