// Owns what a replica makes of the server's word: taken in, merged with what was edited here, or parked.
import {
  confirmed,
  discarded,
  emptyEntry,
  grounded,
  isDue,
  mergedMeta,
  ungrounded,
  type Remote,
} from './entry.ts'
import { SyncError, type Failure } from './errors.ts'
import { isName, isStoreKey } from './key.ts'
import type { LocalEntry, LocalStore } from './local.ts'
import { ownKeysOf } from './own.ts'
import { each, turns } from './turns.ts'
import type { Change, Client, Current, Meta, Permission, StoreInfo } from './types.ts'

/**
 * Called when a store changed here and on the server; answers what both become, null for a deletion.
 * `base` is what both started from, null where that is not known. null as `local` or `remote`: deleted
 * there. It may be called again with newer values. What it throws parks the entry. Meta is merged
 * member by member, where what was changed here wins.
 */
export type Merge = (conflict: {
  key: string
  base: Uint8Array | null
  local: Uint8Array | null
  remote: Uint8Array | null
}) => Uint8Array | null | Promise<Uint8Array | null>

export interface ReplicaParts {
  client: Client
  local: LocalStore
  merge: Merge
  /** Which stores of the account are kept here. */
  accepts: (store: StoreInfo) => boolean
  retryMs?: number
  /** An entry is another now; what the app sees of it, too, if `isSeen`. */
  onChange(id: string, entry: LocalEntry | null, isSeen: boolean): void
}

// Of a page: each may ask for a value, or wait for the local store.
const MOST_AT_ONCE = 100

type OwnKeys = () => Promise<Map<string, string>>

interface Known {
  /** The feed's token; null for its deletion; absent where it is not the feed that asks. */
  said?: string | null
  permission?: Permission | undefined
  meta?: Meta | undefined
  signal: AbortSignal
}

export class Reconciler {
  readonly turn = turns()
  /** By store key: apart from the turns by id, as an id may be whatever somebody else chose. */
  readonly #keyTurn = turns()
  /** What is to be sent or fetched, by when it got into the queue. */
  readonly due = new Map<string, number>()
  /**
   * Keys of which this side knows a state by other means than the feed. The feed may still be on its
   * way with an older one: until it has caught up, its word is checked with the server.
   */
  readonly ahead = new Set<string>()
  readonly #o: ReplicaParts
  readonly #onNote: () => void
  /** Ids by store key. */
  readonly #ids = new Map<string, string>()
  readonly #doubtful = new Set<string>()
  readonly #unreadable = new Set<string>()

  constructor(o: ReplicaParts, onNote: () => void) {
    this.#o = o
    this.#onNote = onNote
  }

  /** Told of an entry that changed, here or in another tab. */
  note(id: string, entry: LocalEntry | null): void {
    if (entry !== null && isDue(entry)) this.due.set(id, entry.queued ?? 0)
    else this.due.delete(id)
    if (entry?.isDoubtful === true) this.#doubtful.add(id)
    else this.#doubtful.delete(id)
    if (isUnreadable(entry?.parked?.code)) this.#unreadable.add(id)
    else this.#unreadable.delete(id)
    if (entry !== null && entry.key !== null && !this.#isAlias(entry)) this.#ids.set(entry.key, id)
    this.#onNote()
  }

  /** Takes in what the feed says; all of a page at once. */
  async takeInAll(changes: Change[], signal: AbortSignal): Promise<void> {
    let asked: Promise<Map<string, string>> | undefined
    const ownKeys = () => (asked ??= ownKeysOf(this.#o.client, this.#newNames(changes), signal))
    await each(changes, MOST_AT_ONCE, (change) => this.#takeIn(change, ownKeys, signal))
  }

  #newNames(changes: Change[]): string[] {
    return changes.flatMap((change) => {
      if ('deleted' in change || change.permission !== 'OWN' || this.#ids.has(change.key)) return []
      return this.#o.accepts(change) ? (nameOf(change) ?? []) : []
    })
  }

  #takeIn(change: Change, ownKeys: OwnKeys, signal: AbortSignal): Promise<void> {
    return this.#keyTurn(change.key, async () => {
      const name = 'deleted' in change ? undefined : nameOf(change)
      const likely = this.#ids.get(change.key) ?? name ?? change.key
      await this.turn(likely, async () => {
        if ('deleted' in change) {
          const id = this.#ids.get(change.key)
          if (id !== undefined) await this.#takeGone(id, change.key, signal)
          return
        }
        const id = this.#ids.get(change.key) ?? (await this.#chooseId(change, ownKeys, signal))
        if (id === likely) await this.#takeStore(id, change, signal)
        else if (id !== null) await this.turn(id, () => this.#takeStore(id, change, signal))
      })
    })
  }

  /**
   * What the app calls a store that is new here; null for one that is none of its business. A store that
   * somebody else shared is never met by a name, which anybody can give it: what the app then writes
   * under that name would be theirs.
   */
  async #chooseId(info: StoreInfo, ownKeys: OwnKeys, signal: AbortSignal): Promise<string | null> {
    if (!this.#o.accepts(info)) return null
    const name = nameOf(info)
    if (name === undefined || info.permission !== 'OWN') return info.key
    const known = (await this.#o.local.read(name))?.key ?? (await ownKeys()).get(name)
    if (known !== undefined) return known === info.key ? name : info.key
    // Not own, or deleted again since the feed said so; or made again since that was asked.
    const { client } = this.#o
    if (!(await ownKeysOf(client, [info.key], signal)).has(info.key)) return null
    return (await ownKeysOf(client, [name], signal)).get(name) === info.key ? name : info.key
  }

  /** Known by its key, while the name under which this account has it is known, too. */
  #isAlias({ id, key }: LocalEntry): boolean {
    const known = key === null ? undefined : this.#ids.get(key)
    return id === key && known !== undefined && known !== id
  }

  /** An own store that was taken for a shared one (its permission was changed, say) is kept once. */
  async #dropAlias(entry: LocalEntry): Promise<void> {
    const { id, key } = entry
    if (key === null || (id === key && !this.#isAlias(entry))) return
    const alias = id === key ? entry : await this.#o.local.read(key)
    // One with something to send is sent first.
    if (alias === null || alias.queued !== null) return
    const left = await this.#o.local.update(key, (now) => (now?.queued === null ? null : now))
    this.note(key, left)
    if (left === null) this.#o.onChange(key, null, true)
  }

  async #takeStore(
    id: string,
    info: StoreInfo & { value?: Uint8Array },
    signal: AbortSignal,
  ): Promise<void> {
    const { key, token, permission, value, write } = info
    const entry = await this.#o.local.read(id)
    if (entry?.base?.token === token && !entry.isStale) {
      this.ahead.delete(key)
      await this.#confirm(entry, permission)
    } else if (value !== undefined && !this.ahead.has(key)) {
      await this.take(id, { key, token, value, meta: metaOf(info), permission, write })
    } else {
      await this.fetch(id, key, { said: token, permission, meta: metaOf(info), signal })
    }
  }

  async #takeGone(id: string, key: string, signal: AbortSignal): Promise<void> {
    const entry = await this.#o.local.read(id)
    if (entry?.key === key && entry.base !== null) {
      if (this.ahead.has(key)) await this.fetch(id, key, { said: null, signal })
      else await this.loseGround(id)
      return
    }
    this.ahead.delete(key)
    // One that could never be read, unless it was edited here.
    if (entry?.key !== key || !entry.isStale) return
    await this.update(id, (now) => now && (now.queued === null ? null : ungrounded(now)))
  }

  /** Takes what the server has now, which may be newer than what the feed says. */
  async fetch(id: string, key: string, { said, permission, meta, signal }: Known): Promise<void> {
    let current: Current | null
    try {
      current = await this.#o.client.store(key).get({ signal })
    } catch (error) {
      const { code = '' } = error as Failure
      if (code !== 'CODEC' && !isUnreadable(code)) throw error
      return this.park(id, error as Failure, (now) => ({
        ...now,
        key,
        isStale: true,
        permission: permission ?? now.permission,
        meta: now.queued === null ? (meta ?? now.meta) : now.meta,
      }))
    }
    if ((current?.token ?? null) === said) this.ahead.delete(key)
    else this.ahead.add(key)
    if (current !== null) await this.take(id, toRemote(current, permission))
    // Where the feed says that there is something, it has yet to say that it is gone.
    else if (said === null || said === undefined) await this.loseGround(id)
  }

  /** The server has `remote`. */
  async take(id: string, remote: Remote): Promise<void> {
    for (let isTaken = false; !isTaken;) {
      const entry = await this.#o.local.read(id)
      // No conflict, whatever is queued here: the feed was late with what this side has seen already.
      if (entry?.base?.token === remote.token) return this.#confirm(entry, remote.permission)
      const edits = entry?.edits ?? 0
      let both: Pick<LocalEntry, 'value' | 'meta'> = remote
      if (entry !== null && isOwnWrite(entry, remote)) both = entry
      else if (entry !== null && (entry.queued !== null || entry.isDoubtful)) {
        // The conflict is found again when it is retried.
        if (entry.parked !== null) return this.#mark(id, { isStale: true })
        const merged = await this.#merge(entry, remote.value)
        if (merged === undefined) return this.#mark(id, { isStale: true })
        both = { value: merged, meta: mergedMeta(entry, remote.meta) }
      }
      isTaken = await this.#updateUnless(id, edits, (now) => grounded(now, remote, both))
    }
  }

  /** The server has what `base` says. */
  async #confirm(entry: LocalEntry, permission: Permission | undefined): Promise<void> {
    if (confirmed(entry, permission) === entry) return
    await this.update(entry.id, (now) => now && confirmed(now, permission))
  }

  /** The server has nothing under this id any more, or it is not for this account. */
  async loseGround(id: string): Promise<void> {
    for (let isTaken = false; !isTaken;) {
      const entry = await this.#o.local.read(id)
      if (entry === null) return
      if (entry.parked !== null && entry.queued !== null) {
        await this.update(id, (now) => now && ungrounded(now))
        return
      }
      const isEdited = entry.queued !== null && entry.value !== null
      const merged = isEdited ? await this.#merge(entry, null) : null
      if (merged === undefined) return
      isTaken = await this.#updateUnless(id, entry.edits, (now) =>
        merged === null ? null : { ...ungrounded(now), value: merged, edits: now.edits + 1 },
      )
    }
  }

  /** undefined when the app could not: the entry is parked then. */
  async #merge(
    entry: LocalEntry,
    remote: Uint8Array | null,
  ): Promise<Uint8Array | null | undefined> {
    const base = entry.isDoubtful ? null : (entry.base?.value ?? null)
    try {
      return await this.#o.merge({ key: entry.id, base, local: entry.value, remote })
    } catch (error) {
      await this.park(entry.id, { code: 'MERGE', message: String(error) })
      return undefined
    }
  }

  // After FEED01: the server was restored from a backup, or this device was away for too long. Which of
  // the two cannot be told, so nothing here is given up for what the server has or lacks.

  async doubtAll(): Promise<void> {
    for (const { id } of await this.#o.local.all()) await this.#mark(id, { isDoubtful: true })
  }

  async settleDoubts(): Promise<void> {
    for (const id of this.#doubtful) {
      await this.turn(id, async () => {
        const entry = await this.#o.local.read(id)
        if (entry === null || !entry.isDoubtful) return
        const isLost = entry.value === null || (isStoreKey(id) && entry.queued === null)
        await this.update(id, (now) => (isLost || now === null ? null : ungrounded(now)))
      })
    }
  }

  /** Tries those anew that could not be read: whoever runs the server may have mended them. */
  async retryUnreadable(): Promise<void> {
    for (const id of this.#unreadable) await this.#mark(id, { parked: null })
  }

  /** Takes back what was not sent. */
  discard(id: string): Promise<void> {
    return this.turn(id, async () => {
      await this.update(id, (now) => now && discarded(now))
    })
  }

  async park(
    id: string,
    { code, message }: { code?: string; message: string },
    change = (entry: LocalEntry): LocalEntry => entry,
  ): Promise<void> {
    await this.update(id, (now) => ({
      ...change(now ?? emptyEntry(id)),
      parked: { code: code ?? 'UNKNOWN', message },
    }))
  }

  async #mark(id: string, change: Partial<LocalEntry>): Promise<void> {
    await this.update(id, (now) => now && { ...now, ...change })
  }

  /** False when the entry was edited meanwhile. */
  async #updateUnless(
    id: string,
    edits: number,
    change: (entry: LocalEntry) => LocalEntry | null,
  ): Promise<boolean> {
    let isTaken = false
    await this.update(id, (now) => {
      isTaken = (now?.edits ?? 0) === edits
      return isTaken ? change(now ?? emptyEntry(id)) : now
    })
    return isTaken
  }

  async update(id: string, change: (entry: LocalEntry | null) => LocalEntry | null) {
    let before: LocalEntry | null = null
    const updating = this.#o.local.update(id, (now) => change((before = now)))
    const entry = await updating.catch((cause: unknown) => {
      throw new SyncError('LOCAL', 'The local store failed.', { cause })
    })
    this.note(id, entry)
    if (entry !== null) await this.#dropAlias(entry)
    const old = before as LocalEntry | null
    this.#o.onChange(id, entry, seenOf(old) !== seenOf(entry))
    return entry
  }
}

/** Damaged on the server, or on its way: the trouble of one store, which ends nothing else. */
export const isUnreadable = (code: string | undefined): boolean =>
  code === 'ERR02' || code === 'DIGEST'

/** The app's name of an own store. */
const nameOf = ({ name }: StoreInfo): string | undefined =>
  name !== undefined && isName(name) ? name : undefined

const metaOf = ({ name, extra }: StoreInfo): Meta => ({
  ...(name !== undefined && { name }),
  ...extra,
})

export const toRemote = (
  current: Current,
  permission: StoreInfo['permission'] | undefined,
): Remote => ({
  key: current.key,
  token: current.token,
  value: current.value,
  meta: current.meta ?? {},
  write: current.write,
  ...(permission && { permission }),
})

/** What an app can see of an entry changes with this; `edits` stands for the value. */
const seenOf = (entry: LocalEntry | null): string | null =>
  entry && JSON.stringify([entry.edits, entry.permission, entry.meta])

/** An earlier write of this entry, whose answer was lost: what was edited since is based on it. */
const isOwnWrite = ({ writes }: LocalEntry, { write }: Remote): boolean =>
  write !== undefined && writes.includes(write)
