// Owns order among what is under way: turns, so that what is done to one thing is done one after the
// other, and a limit to how much is done at once.

export function turns(): <T>(name: string, work: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>()
  return async (name, work) => {
    const before = last.get(name)
    const mine = (async () => {
      await before?.catch(() => undefined)
      return work()
    })()
    last.set(name, mine)
    try {
      return await mine
    } finally {
      if (last.get(name) === mine) last.delete(name)
    }
  }
}

/** Does `work` on all of them, so many at once. What one throws ends the rest; it is thrown when all have settled. */
export async function each<T>(
  items: T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.values()
  let isOver = false
  const go = async (): Promise<void> => {
    for (const item of left) {
      if (isOver) return
      try {
        await work(item)
      } catch (error) {
        isOver = true
        throw error
      }
    }
  }
  const ended = await Promise.allSettled(Array.from({ length: atOnce }, go))
  for (const one of ended) if (one.status === 'rejected') throw one.reason
}
