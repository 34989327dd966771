// Owns who waits for changes of which account: in memory only, since the feed itself is a table.

export interface Listeners {
  /** Calls `wake` when something of the account may have changed; answers how to stop. */
  add(account: number, wake: () => void): () => void
  /** Wakes those of these accounts, or with null everybody. */
  announce(accounts: number[] | null): void
  /** How many wait. */
  count(): number
  /** Wakes everybody for the last time: `isOver` is true then. */
  end(): void
  isOver(): boolean
}

// Everybody at once would keep the event loop for long; between portions others get their answers.
const PORTION = 100

export function listeners(): Listeners {
  const waiting = new Map<number, Set<() => void>>()
  let isEnded = false
  let size = 0

  function wakeAll(): void {
    const all = [...waiting.values()].flatMap((ofAccount) => [...ofAccount])
    const next = (): void => {
      for (const wake of all.splice(0, PORTION)) wake()
      if (all.length > 0) setImmediate(next)
    }
    next()
  }

  return {
    add(account, wake) {
      const ofAccount = waiting.get(account) ?? new Set()
      waiting.set(account, ofAccount.add(wake))
      size++
      return () => {
        if (!ofAccount.delete(wake)) return
        size--
        if (ofAccount.size === 0) waiting.delete(account)
      }
    },
    announce(accounts) {
      if (accounts === null) return wakeAll()
      for (const account of accounts) for (const wake of waiting.get(account) ?? []) wake()
    },
    count: () => size,
    end() {
      isEnded = true
      wakeAll()
    },
    isOver: () => isEnded,
  }
}
