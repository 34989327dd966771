// Owns a replica's exchange with the server: the feed taken in, the queue sent, and what conflicts merged.
import { randomId } from './encoding.ts'
import { isDue, sent, ungrounded } from './entry.ts'
import { SyncError, type Failure } from './errors.ts'
import type { LocalEntry } from './local.ts'
import { isUnreadable, toRemote, Reconciler, type ReplicaParts } from './reconciler.ts'
import { linked, pause, stopIfAborted } from './signal.ts'
import { each } from './turns.ts'
import type { Change } from './types.ts'

export type SyncState = 'syncing' | 'live' | 'offline'

const MOST_AT_ONCE = 4
const MOST_WAITING = 1000
const MOST_WRITES = 20
const MAX_PAUSE_MS = 60_000

export class Syncer {
  readonly reconciler: Reconciler
  readonly #o: ReplicaParts
  readonly #onState: (state: SyncState, error: Error | null) => void
  #isLive = false
  /** All entries are known to the reconciler. */
  #isNoted = false
  /** It is known whose session it is. */
  #isIdentified = false
  #wake = (): void => undefined
  #endRest = (): void => undefined

  constructor(o: ReplicaParts, onState: (state: SyncState, error: Error | null) => void) {
    this.#o = o
    this.#onState = onState
    this.reconciler = new Reconciler(o, () => this.#wake())
  }

  /** Syncs until the signal. Throws AUTH01 and ACCOUNT, after which it can be run again. */
  async run(signal: AbortSignal): Promise<void> {
    this.#isNoted = false
    for (;;) await this.#runSession(signal)
  }

  /** Until the client has another session: whose that is has to be known before anything is sent. */
  async #runSession(signal: AbortSignal): Promise<void> {
    const link = linked(signal)
    let hasChanged = false
    this.#isIdentified = false
    const { client } = this.#o
    const stopWatching = client.onSession(() => {
      // Renewed, or ended, by the question whose it is, which goes on with it.
      if (!this.#isIdentified && client.user === null) return
      hasChanged = true
      link.abort(new Error('the session is another one'))
    })
    try {
      const both = [this.#pullOn(link.signal), this.#pushOn(link.signal)]
      // One that ends ends the other, and is waited for.
      for (const one of both) one.catch(link.abort)
      await Promise.allSettled(both)
      await Promise.all(both)
    } catch (error) {
      stopIfAborted(signal)
      if (!hasChanged) throw error
    } finally {
      stopWatching()
      link.release()
      this.#isLive = false
    }
  }

  // Pulling

  async #pullOn(signal: AbortSignal): Promise<void> {
    for (let failures = 0; ; failures++) {
      try {
        await this.#pull(signal, () => (failures = 0))
      } catch (thrown) {
        stopIfAborted(signal)
        const error = thrown as Failure
        if (isOver(error)) throw error
        this.#goOffline(error)
        await pause(this.#backOff(failures, error), signal)
      }
    }
  }

  async #pull(signal: AbortSignal, onSuccess: () => void): Promise<void> {
    const { client, local } = this.#o
    if (!this.#isLive) this.#onState('syncing', null)
    if (!this.#isNoted) {
      for (const entry of await local.all()) this.reconciler.note(entry.id, entry)
      this.#isNoted = true
    }
    const cursor = await this.#identify(signal)
    let last = cursor
    let waiting: Change[] = []
    const onOffline = (error: Error): void => this.#goOffline(error)
    const options = { since: cursor, live: true, includeData: true, signal, onOffline }
    for await (const event of client.changes(options)) {
      if (event.type === 'change') {
        waiting.push(event.change)
        // A page at a time.
        if (event.cursor === last && waiting.length < MOST_WAITING) continue
      }
      await this.reconciler.takeInAll(waiting, signal)
      waiting = []
      if (event.type === 'reset') await this.reconciler.doubtAll()
      if (event.type === 'live') await this.reconciler.settleDoubts()
      const next = event.type === 'reset' ? null : event.cursor
      // Only now: what comes before this cursor is kept.
      if (next !== last) await this.#keepCursor(next)
      last = next
      if (event.type !== 'live') continue
      onSuccess()
      if (!this.#isLive) await this.reconciler.retryUnreadable()
      this.#isLive = true
      this.#onState('live', null)
      this.#endRest()
      this.#wake()
    }
  }

  /** Answers where to go on from. Throws ACCOUNT for another account than the one whose stores these are. */
  async #identify(signal: AbortSignal): Promise<string | null> {
    const { local, client } = this.#o
    // The server's word, as what was handed in beside a token may be wrong.
    if (!this.#isIdentified) {
      await client.sessions({ signal })
      // It was renewed meanwhile.
      if (client.user === null) await client.sessions({ signal })
    }
    stopIfAborted(signal)
    this.#isIdentified = true
    const { user } = client
    const state = await local.readState()
    if (user === null || user !== (state.user ?? user)) throw otherAccount()
    if (state.user === null) await local.writeState({ ...state, user })
    return state.cursor
  }

  async #keepCursor(cursor: string | null): Promise<void> {
    const { local } = this.#o
    await local.writeState({ ...(await local.readState()), cursor })
  }

  #goOffline(error: Failure): void {
    this.#isLive = false
    this.#onState('offline', error)
  }

  // Pushing

  async #pushOn(signal: AbortSignal): Promise<void> {
    for (let failures = 0; ;) {
      await this.#untilDue(signal)
      const failure = await this.#pushAll(signal)
      failures = failure === null ? 0 : failures + 1
      if (failure !== null) await this.#rest(this.#backOff(failures, failure), failure, signal)
    }
  }

  #untilDue(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => reject(signal.reason as Error)
      this.#wake = () => {
        if (!this.#isLive || this.reconciler.due.size === 0) return
        this.#wake = () => undefined
        signal.removeEventListener('abort', stop)
        resolve()
      }
      if (signal.aborted) return stop()
      signal.addEventListener('abort', stop)
      this.#wake()
    })
  }

  /** A pause that ends when the feed is back, unless the server asked for it. */
  async #rest(ms: number, { retryAfterMs }: Failure, signal: AbortSignal): Promise<void> {
    const link = linked(signal)
    if (retryAfterMs === undefined) this.#endRest = () => link.abort(new Error('the feed is back'))
    try {
      await pause(ms, link.signal)
    } catch {
      stopIfAborted(signal)
    } finally {
      link.release()
    }
  }

  #backOff(failures: number, { retryAfterMs = 0 }: Failure): number {
    const { retryMs = 500 } = this.#o
    return retryAfterMs + Math.random() * Math.min(MAX_PAUSE_MS, retryMs * 2 ** failures)
  }

  /** Answers the last failure that may pass by itself. Throws AUTH01. */
  async #pushAll(signal: AbortSignal): Promise<Failure | null> {
    const ids = [...this.reconciler.due].sort(([, a], [, b]) => a - b).map(([id]) => id)
    let failure: Failure | null = null
    const push = async (id: string): Promise<void> => {
      try {
        await this.reconciler.turn(id, () => this.#push(id, signal))
      } catch (thrown) {
        stopIfAborted(signal)
        const error = thrown as Failure
        if (isOver(error) || error.code === 'NETWORK') throw error
        if (isPassing(error)) failure = error
        else await this.reconciler.park(id, error)
      }
    }
    try {
      await each(ids, MOST_AT_ONCE, push)
    } catch (thrown) {
      stopIfAborted(signal)
      if (isOver(thrown as Failure)) throw thrown
      failure = thrown as Failure
    }
    return failure
  }

  async #push(id: string, signal: AbortSignal): Promise<void> {
    const entry = await this.#o.local.read(id)
    if (entry === null || !isDue(entry)) return this.reconciler.note(id, entry)
    try {
      if (entry.queued === null) await this.reconciler.fetch(id, entry.key ?? id, { signal })
      else if (entry.value === null) await this.#pushDeletion(entry, signal)
      else await this.#pushValue(entry, signal)
    } catch (thrown) {
      const error = thrown as Failure
      const isGone = error.code === 'ERR01' && entry.base !== null
      if (isGone || error.current === null) return this.reconciler.loseGround(id)
      if (error.current === undefined) throw error
      this.reconciler.ahead.add(error.current.key)
      await this.reconciler.take(id, toRemote(error.current, undefined))
    }
  }

  async #pushValue({ id }: LocalEntry, signal: AbortSignal): Promise<void> {
    const write = randomId()
    // Kept before it is sent: an answer may be lost to the end of this process, too.
    const entry = await this.reconciler.update(
      id,
      (now) => now && { ...now, writes: [...now.writes, write].slice(-MOST_WRITES) },
    )
    if (entry === null || entry.value === null) return
    const { value, edits, meta } = entry
    const token = entry.base?.token ?? null
    const store = this.#o.client.store(entry.key ?? id)
    const taken = await store.put(value, { token, meta, write, signal })
    this.reconciler.ahead.add(taken.key)
    await this.reconciler.update(id, (now) => sent(now ?? entry, { ...taken, value, meta, edits }))
  }

  async #pushDeletion(entry: LocalEntry, signal: AbortSignal): Promise<void> {
    const store = this.#o.client.store(entry.key ?? entry.id)
    let token = entry.base?.token
    if (token === undefined) {
      // Made and deleted here, while it was being sent: it may have arrived.
      const current = await store.get({ signal })
      if (current?.write !== undefined && entry.writes.includes(current.write))
        ({ token } = current)
    }
    if (token !== undefined) {
      await store.delete({ token, signal })
      if (entry.key !== null) this.reconciler.ahead.add(entry.key)
    }
    await this.reconciler.update(entry.id, (now) =>
      now === null || now.edits === entry.edits ? null : ungrounded(now),
    )
  }
}

export const otherAccount = (): SyncError =>
  new SyncError('ACCOUNT', 'This copy is of another account: give each its own.')

/** Nothing goes on before somebody logs in. */
export const isOver = ({ code }: Failure): boolean => code === 'AUTH01' || code === 'ACCOUNT'

/** Everything else is refused for good. What a proxy says is not the server's last word. */
const isPassing = ({ code, status = 0 }: Failure): boolean =>
  ['NETWORK', 'PROXY', 'LOCAL', 'RATE01', 'SIZE03'].includes(code ?? '') ||
  status === 408 ||
  (status >= 500 && status !== 507 && !isUnreadable(code))
