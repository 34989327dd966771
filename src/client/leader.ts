// Owns the agreement between tabs of a browser on one that syncs, and what they tell each other.
// Both need only what is there: without Web Locks every tab syncs, which costs requests but no data.

interface Locks {
  request(name: string, o: { signal: AbortSignal }, held: () => Promise<void>): Promise<void>
}

interface Channel {
  postMessage(message: unknown): void
  close(): void
  onmessage: ((event: { data: unknown }) => void) | null
}

const globals = globalThis as {
  navigator?: { locks?: Locks }
  BroadcastChannel?: new (name: string) => Channel
}

/** Runs `work` when this tab is the one, and as long as it is open. `name` null: nobody shares. */
export async function lead(
  name: string | null,
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  const locks = globals.navigator?.locks
  if (name === null || locks === undefined) return work()
  await locks.request(`sync-node:${name}`, { signal }, work)
}

/** The id of an entry that changed; whether the tab that syncs follows the server; null asks it that. */
export type Word = string | { isLive: boolean | null }

export interface Peers {
  tell(word: Word): void
  close(): void
}

export function openPeers(name: string | null, onTold: (word: Word) => void): Peers {
  const { BroadcastChannel } = globals
  if (name === null || BroadcastChannel === undefined) {
    return { tell: () => undefined, close: () => undefined }
  }
  const channel = new BroadcastChannel(`sync-node:${name}`)
  channel.onmessage = ({ data }) => onTold(data as Word)
  return { tell: (word) => channel.postMessage(word), close: () => channel.close() }
}
