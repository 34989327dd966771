// Owns waiting for what happens in the background: looked at again and again, never for ever.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'

const LOOK_MS = 20
const GIVE_UP_MS = 30_000

/** Resolves when `look` answers what is expected; fails with what it answered last. */
export async function eventually<T>(look: () => T | Promise<T>, expected: T): Promise<void> {
  const until = performance.now() + GIVE_UP_MS
  for (;;) {
    const found = await look()
    try {
      assert.deepEqual(found, expected)
      return
    } catch (error) {
      if (performance.now() > until) throw error
    }
    await pause(LOOK_MS)
  }
}
