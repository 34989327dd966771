// Owns what a replica keeps on the device, the interface to where it is kept, and the store in memory.
import type { Meta, Permission } from './types.ts'

export interface LocalEntry {
  /** What the app calls the store: its name, or its store key where somebody else shared it. */
  id: string
  /** Once the server has it. */
  key: string | null
  meta: Meta
  permission: Permission
  /** What the app sees; null when it was deleted here and the server does not know yet. */
  value: Uint8Array | null
  /** What the server had when both agreed; null for nothing. `meta` is missing in older copies. */
  base: { token: string; value: Uint8Array; meta?: Meta } | null
  /** When it got into the queue; null with nothing to send. */
  queued: number | null
  /** Counts the changes of `value`, from no particular number on. */
  edits: number
  /** The ids of writes that were sent and may have landed without an answer. */
  writes: string[]
  /** Why the server (or `merge`) refused it for good: it stays here until it is edited, retried or discarded. */
  parked: { code: string; message: string } | null
  /** The server has another version, which is to be fetched. */
  isStale: boolean
  /** The server has lost the history that `base` is of (a restored backup): nothing is concluded from it. */
  isDoubtful: boolean
}

export interface LocalState {
  cursor: string | null
  /** The account's handle, once known: another account's replica is another one. */
  user: string | null
}

/** Where a replica keeps its entries. All that resolves has to survive a restart. */
export interface LocalStore {
  /** Where several tabs share it: by this name they agree on who syncs. */
  readonly name: string | null
  read(id: string): Promise<LocalEntry | null>
  /** Reads and writes in one step; null removes. `change` may be called again; what it throws is thrown. */
  update(
    id: string,
    change: (entry: LocalEntry | null) => LocalEntry | null,
  ): Promise<LocalEntry | null>
  all(): Promise<LocalEntry[]>
  readState(): Promise<LocalState>
  writeState(state: LocalState): Promise<void>
  close(): Promise<void>
}

export const NO_STATE: LocalState = { cursor: null, user: null }

/** Forgets everything with the page: for tests, and where nothing else is. */
export function memoryStore(): LocalStore {
  const entries = new Map<string, LocalEntry>()
  let state = NO_STATE
  return {
    name: null,
    read: async (id) => entries.get(id) ?? null,
    async update(id, change) {
      const entry = change(entries.get(id) ?? null)
      if (entry === null) entries.delete(id)
      else entries.set(id, entry)
      return entry
    },
    all: async () => [...entries.values()],
    readState: async () => state,
    async writeState(next) {
      state = next
    },
    close: async () => undefined,
  }
}
