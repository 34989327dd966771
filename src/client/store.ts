// Owns the calls on one store.
import { reprDigest } from './digest.ts'
import { randomId, toBytes } from './encoding.ts'
import { ConflictError, SyncError } from './errors.ts'
import { isStoreKey, keyPath } from './key.ts'
import { contextOf, decodeMeta, encodeMeta } from './meta.ts'
import type { Reply, Session, Transport } from './transport.ts'
import type {
  CallOptions,
  Codec,
  Current,
  Meta,
  Permission,
  PutOptions,
  Store,
  Token,
} from './types.ts'

/** Whose call it is, for one of several steps: somebody else may log in between. */
interface Whose {
  signal?: AbortSignal | undefined
  session?: Session | undefined
}

// Of update(): so many conflicts in a row are somebody who writes in a loop.
const MAX_CONFLICTS = 20

export class RemoteStore implements Store {
  readonly #transport: Transport
  readonly #codec: Codec
  readonly #key: string
  readonly #path: string
  readonly #members: string
  /** Of a store that is known by its key, whoever made it gave it a name: a write must keep that. */
  #name: string | undefined

  constructor(transport: Transport, codec: Codec, key: string) {
    this.#transport = transport
    this.#codec = codec
    this.#key = key
    this.#path = `/store/${keyPath(key)}`
    this.#members = `/permission/${keyPath(key)}`
    this.#name = isStoreKey(key) ? undefined : key
  }

  async get({ signal, session }: Whose = {}): Promise<Current | null> {
    const asked = { method: 'GET', path: this.#path, read: 'bytes', signal, session } as const
    for (let attempt = 1; ; attempt++) {
      const reply = await this.#transport.ask(asked)
      if (reply.error?.code === 'ERR01') return null
      if (reply.error !== null) throw reply.error
      const bytes = reply.body as Uint8Array
      const expected = reply.headers.get('repr-digest')
      const isWhole = expected === null || expected === (await reprDigest(bytes))
      if (isWhole) return this.#toCurrent(reply, bytes)
      if (attempt === 2) throw new SyncError('DIGEST', 'The value arrived damaged, twice.')
    }
  }

  async put(value: Uint8Array | string, o: PutOptions & Whose = {}) {
    const { signal, session = this.#transport.session, write = randomId() } = o
    const whose = { signal, session }
    if (this.#name === undefined && o.meta?.name === undefined) await this.#learnName(whose)
    const meta: Meta = { ...(this.#name !== undefined && { name: this.#name }), ...o.meta }
    const bytes = await this.#codec.encode(toBytes(value), contextOf('value', meta.name))
    const encodedMeta = await encodeMeta(this.#codec, meta, write)
    const digest = await reprDigest(bytes)
    const headers = { 'X-Sync-Meta': encodedMeta, 'Repr-Digest': digest, ...condition(o.token) }
    const asked = { method: 'PUT', path: this.#path, headers, bytes, ...whose } as const
    const { error, headers: answered } = await this.#transport.ask(asked)
    if (error === null) return toWritten(answered)
    if (error.code !== 'KEY01') throw error
    // Whoever sent it twice (this client, the browser, a proxy): what is there is what was sent.
    const isOwn =
      answered.get('repr-digest') === digest && answered.get('x-sync-meta') === encodedMeta
    if (!isOwn) throw new ConflictError(error, await this.get(whose))
    // Nothing is asked again: by now it could be told of a version that others wrote.
    return toWritten(answered)
  }

  async delete({ token, signal }: CallOptions & { token: string }): Promise<void> {
    const whose = { signal, session: this.#transport.session }
    const headers = condition(token)
    const asked = { method: 'DELETE', path: this.#path, headers, ...whose } as const
    const { error, isRepeat } = await this.#transport.ask(asked)
    if (error === null || (error.status === 404 && isRepeat)) return
    if (error.code === 'KEY01') throw new ConflictError(error, await this.get(whose))
    throw error
  }

  async update(
    fn: Parameters<Store['update']>[0],
    o: CallOptions & { meta?: Meta | undefined } = {},
  ) {
    const whose = { signal: o.signal, session: this.#transport.session }
    let current = await this.get(whose)
    for (let conflicts = 0; ; conflicts++) {
      const next = await fn(current?.value ?? null)
      const meta = { ...current?.meta, ...o.meta }
      try {
        return await this.put(next, { token: current?.token ?? null, meta, ...whose })
      } catch (error) {
        if (!(error instanceof ConflictError) || conflicts === MAX_CONFLICTS) throw error
        ;({ current } = error)
      }
    }
  }

  async share(user: string, permission: Permission, { signal }: CallOptions = {}): Promise<void> {
    const json = [{ user, permission }]
    await this.#transport.call({ method: 'PUT', path: this.#members, json, read: 'json', signal })
  }

  async revoke(users: string | string[], { signal, session }: Whose = {}): Promise<void> {
    const query = [users].flat().map((user) => `users=${encodeURIComponent(user)}`)
    const path = `${this.#members}?${query.join('&')}`
    await this.#transport.call({ method: 'DELETE', path, signal, session })
  }

  async leave({ signal }: CallOptions = {}): Promise<void> {
    const whose = { signal, session: this.#transport.session }
    const own = (await this.members(whose)).find(({ current }) => current)
    if (own === undefined) return
    try {
      await this.revoke(own.user, whose)
    } catch (error) {
      // Looked at a moment ago: gone now means that an attempt without an answer did it.
      if (!(error instanceof SyncError) || error.code !== 'ERR01') throw error
    }
  }

  async members({ signal }: CallOptions = {}): ReturnType<Store['members']> {
    const asked = { method: 'GET', path: this.#members, read: 'json', signal } as const
    return (await this.#transport.call(asked)).body as Awaited<ReturnType<Store['members']>>
  }

  async #toCurrent({ headers }: Reply, bytes: Uint8Array): Promise<Current> {
    const decoded = await decodeMeta(this.#codec, headers.get('x-sync-meta'))
    if (isStoreKey(this.#key)) this.#name = decoded?.meta.name
    return {
      value: await decodeValue(this.#codec, bytes, this.#name),
      token: headers.get('x-sync-token') ?? '',
      meta: decoded?.meta ?? null,
      key: headers.get('x-sync-key') ?? this.#key,
      ...(decoded?.write !== undefined && { write: decoded.write }),
    }
  }

  async #learnName(whose: Whose): Promise<void> {
    const asked = { method: 'HEAD', path: this.#path, ...whose } as const
    const { error, headers } = await this.#transport.ask(asked)
    // What does not exist is for the write to find out.
    if (error !== null && error.status !== 404) throw error
    this.#name = (await decodeMeta(this.#codec, headers.get('x-sync-meta')))?.meta.name
  }
}

/** Throws CODEC. */
export async function decodeValue(
  codec: Codec,
  bytes: Uint8Array,
  name: string | undefined,
): Promise<Uint8Array> {
  try {
    return await codec.decode(bytes, contextOf('value', name))
  } catch (cause) {
    throw cause instanceof SyncError
      ? cause
      : new SyncError('CODEC', 'The codec cannot read this value.', { cause })
  }
}

const toWritten = (headers: Headers) => ({
  token: headers.get('x-sync-token') ?? '',
  key: headers.get('x-sync-key') ?? '',
})

function condition(token: Token | undefined): Record<string, string> {
  if (token === undefined) return {}
  return token === null ? { 'If-None-Match': '*' } : { 'X-Sync-Token': token }
}
