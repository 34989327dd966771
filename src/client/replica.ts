// Owns the offline half: a copy of the account's stores that is read and written at once, and synced in
// the background.
import { toBytes } from './encoding.ts'
import { edited, isDue } from './entry.ts'
import { SyncError, type Failure } from './errors.ts'
import { keyPath } from './key.ts'
import { lead, openPeers, type Peers, type Word } from './leader.ts'
import { tellAll } from './listeners.ts'
import type { LocalEntry, LocalStore } from './local.ts'
import type { Merge } from './reconciler.ts'
import { isOver, otherAccount, Syncer } from './syncer.ts'
import type { Client, Meta, Permission, StoreInfo } from './types.ts'

export { indexedDbStore } from './indexeddb.ts'
export { memoryStore } from './local.ts'
export type { LocalEntry, LocalState, LocalStore } from './local.ts'
export type { Merge } from './reconciler.ts'

export interface ReplicaOptions {
  /** With a session, now or later: see `start`. */
  client: Client
  /** Of this account alone. */
  local: LocalStore
  merge: Merge
  /** Which stores of the account are kept here: all where absent. */
  accepts?: (store: StoreInfo) => boolean
  /** The longest first pause after a failure, 500 ms; the next may be twice as long each, up to a minute. */
  retryMs?: number
}

export interface Parked {
  id: string
  /** The protocol's, `CODEC` for what cannot be decoded, or `MERGE` for what merge threw. */
  code: string
  message: string
}

/**
 * `waiting`: another tab syncs. `syncing`: catching up. `live`: all is here, and what comes is taken in.
 * `unauthorized`: the session has ended (AUTH01), or is of another account than what is here (ACCOUNT):
 * log in and `start`.
 */
export interface ReplicaStatus {
  state: 'stopped' | 'waiting' | 'syncing' | 'live' | 'offline' | 'unauthorized'
  /** Stores with something to send. */
  pending: number
  /**
   * What the server refused for good: it stays here until it is edited, retried or discarded. What is
   * damaged there (ERR02, DIGEST) is tried again with each connection.
   */
  parked: Parked[]
  /** Why it is not live. */
  error: Error | null
}

export type ReplicaEvent =
  | { type: 'status'; status: ReplicaStatus }
  /**
   * Of the value, the permission or meta. `origin` is `local` for what this replica's own put and delete did.
   */
  | { type: 'change'; id: string; value: Uint8Array | null; origin: 'local' | 'remote' }

export interface ReplicaItem {
  /** The name of an own store; the store key of one that somebody else shared. */
  id: string
  /** From meta: of a shared store, what its owner calls it. */
  name: string | null
  value: Uint8Array
  permission: Permission
  meta: Meta
  isPending: boolean
}

/** Opens the copy and begins to sync. Throws ACCOUNT when it is another account's. */
export async function openReplica(o: ReplicaOptions): Promise<Replica> {
  const { user } = await o.local.readState()
  if (user !== null && o.client.user !== null && user !== o.client.user) {
    throw otherAccount()
  }
  const replica = new Replica(o, await o.local.all())
  replica.start()
  return replica
}

class Replica {
  readonly #o: ReplicaOptions
  readonly #syncer: Syncer
  readonly #peers: Peers
  readonly #listeners = new Set<(event: ReplicaEvent) => void>()
  readonly #pending = new Set<string>()
  readonly #parked = new Map<string, Parked>()
  #state: ReplicaStatus['state'] = 'stopped'
  #error: Error | null = null
  /** Of the tab that syncs while this one waits. */
  #isLiveElsewhere = false
  #run: { stop: AbortController; ended: Promise<void> } | null = null

  constructor(o: ReplicaOptions, entries: LocalEntry[]) {
    this.#o = o
    const parts = {
      ...o,
      accepts: o.accepts ?? (() => true),
      onChange: (id: string, entry: LocalEntry | null, isSeen: boolean) => {
        this.#note(id, entry)
        this.#peers.tell(id)
        if (isSeen) this.#announce(id, entry, 'remote')
      },
    }
    this.#syncer = new Syncer(parts, (state, error) => this.#become(state, error))
    this.#peers = openPeers(o.local.name, (word) => {
      // What the local store refuses to this tab, the next word may bring.
      this.#heard(word).catch(() => undefined)
    })
    for (const entry of entries) this.#note(entry.id, entry)
  }

  /** What is here now; null for nothing. Needs no network. */
  async get(id: string): Promise<Uint8Array | null> {
    return (await this.#o.local.read(id))?.value ?? null
  }

  /** Everything that is here. */
  async list(): Promise<ReplicaItem[]> {
    return (await this.#o.local.all()).flatMap(({ id, value, meta, permission, queued }) =>
      value === null
        ? []
        : [{ id, name: meta.name ?? null, value, permission, meta, isPending: queued !== null }],
    )
  }

  /**
   * Replaces what is here, also what came in since the app looked: see `update`. Resolves when it
   * survives a restart; it is sent when that is possible. The members of `meta` are set beside those
   * that are there; undefined removes one. Throws REQ01 for no key, and for a name and meta that are too long.
   */
  async put(id: string, value: Uint8Array | string, o: { meta?: Meta } = {}): Promise<void> {
    await this.update(id, () => value, o)
  }

  /** Reads and writes in one step, so that nothing comes in between. `fn` may be called again. */
  async update(
    id: string,
    fn: (now: Uint8Array | null) => Uint8Array | string,
    o: { meta?: Meta } = {},
  ): Promise<void> {
    keyPath(id)
    // A copy: the app may go on writing into its own.
    await this.#edit(id, (now) => ({ value: toBytes(fn(now)).slice(), ...o }))
  }

  /** Throws CODEC for what cannot be decoded: delete that on the server. */
  async delete(id: string): Promise<void> {
    const entry = await this.#o.local.read(id)
    if (entry !== null && entry.isStale && entry.base === null) {
      throw new SyncError(entry.parked?.code ?? 'CODEC', 'This store was never read here.')
    }
    await this.#edit(id, () => ({ value: null }))
  }

  status(): ReplicaStatus {
    const parked = [...this.#parked.values()]
    return { state: this.#state, pending: this.#pending.size, parked, error: this.#error }
  }

  /** Tells of every change and status from now on; answers how to stop. */
  subscribe(listener: (event: ReplicaEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Resolves when all is sent that is not parked, and the server is followed, by whichever tab. Throws AUTH01, ACCOUNT, and the signal's reason. */
  synced({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (signal?.aborted === true) finish(() => reject(signal.reason as Error))
        else if (this.#state === 'unauthorized') finish(() => reject(this.#error as Error))
        else if (this.#isFollowing() && this.#pending.size === 0) finish(resolve)
      }
      const finish = (settle: () => void): void => {
        stopListening()
        signal?.removeEventListener('abort', look)
        settle()
      }
      const stopListening = this.subscribe(look)
      signal?.addEventListener('abort', look)
      look()
    })
  }

  /** Tries what was parked once more. */
  async retry(id: string): Promise<void> {
    const entry = await this.#o.local.update(id, (now) => now && { ...now, parked: null })
    this.#changed(id, entry)
  }

  /** Takes back what was not sent: the store is again what the server last said. */
  async discard(id: string): Promise<void> {
    await this.#syncer.reconciler.discard(id)
  }

  /** Begins to sync, as opening did: after `stop`, or a login that `unauthorized` asked for. */
  start(): void {
    if (this.#run !== null) return
    const stop = new AbortController()
    const { signal } = stop
    this.#become('waiting', null)
    const work = lead(this.#o.local.name, signal, () => this.#syncer.run(signal))
    const ended = work.then(
      () => undefined,
      (error: unknown) => {
        this.#run = null
        if (signal.aborted) return this.#become('stopped', null)
        this.#become(isOver(error as Failure) ? 'unauthorized' : 'offline', error as Error)
      },
    )
    this.#run = { stop, ended }
  }

  /** Ends the syncing; reading and writing go on. */
  async stop(): Promise<void> {
    this.#run?.stop.abort(new SyncError('STOPPED', 'The replica was stopped.'))
    await this.#run?.ended
  }

  async close(): Promise<void> {
    await this.stop()
    this.#peers.close()
    this.#listeners.clear()
    await this.#o.local.close()
  }

  async #edit(
    id: string,
    edit: (now: Uint8Array | null) => { value: Uint8Array | null; meta?: Meta },
  ): Promise<void> {
    const entry = await this.#o.local.update(id, (now) => edited(now, id, edit(now?.value ?? null)))
    this.#changed(id, entry)
    this.#announce(id, entry, 'local')
  }

  #changed(id: string, entry: LocalEntry | null): void {
    this.#note(id, entry)
    this.#syncer.reconciler.note(id, entry)
    this.#peers.tell(id)
  }

  #isFollowing(): boolean {
    return this.#state === 'live' || (this.#state === 'waiting' && this.#isLiveElsewhere)
  }

  async #heard(word: Word): Promise<void> {
    if (typeof word === 'string') {
      const entry = await this.#o.local.read(word)
      this.#note(word, entry)
      this.#syncer.reconciler.note(word, entry)
      this.#announce(word, entry, 'remote')
    } else if (word.isLive === null) {
      if (this.#state === 'live') this.#peers.tell({ isLive: true })
    } else {
      // What was sent before this tab listened was not told.
      for (const id of this.#pending) this.#note(id, await this.#o.local.read(id))
      this.#isLiveElsewhere = word.isLive
      this.#emit({ type: 'status', status: this.status() })
    }
  }

  #note(id: string, entry: LocalEntry | null): void {
    const before = JSON.stringify([this.#pending.size, this.#parked.get(id)])
    if (entry !== null && isDue(entry)) this.#pending.add(id)
    else this.#pending.delete(id)
    const parked = entry?.parked ?? null
    if (parked === null) this.#parked.delete(id)
    else this.#parked.set(id, { id, ...parked })
    const after = JSON.stringify([this.#pending.size, this.#parked.get(id)])
    if (before !== after) this.#emit({ type: 'status', status: this.status() })
  }

  #become(state: ReplicaStatus['state'], error: Error | null): void {
    if (state === this.#state && error === this.#error) return
    this.#state = state
    this.#error = error
    if (state === 'waiting') this.#peers.tell({ isLive: null })
    else if (state !== 'stopped') this.#peers.tell({ isLive: state === 'live' })
    this.#emit({ type: 'status', status: this.status() })
  }

  #announce(id: string, entry: LocalEntry | null, origin: 'local' | 'remote'): void {
    this.#emit({ type: 'change', id, value: entry?.value ?? null, origin })
  }

  #emit(event: ReplicaEvent): void {
    tellAll(this.#listeners, event)
  }
}

export type { Replica }
