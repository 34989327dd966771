// Owns the bar that shows on a terminal how far something long has come.
import { toSize } from '../units.ts'

const WIDTH = 30
const AGAIN_MS = 100

export interface Progress {
  show(done: number, total: number): void
  /** Takes the bar off the terminal, before other lines are printed and at the end. */
  clear(): void
}

/** Draws on stderr, and nothing where that is no terminal. */
export function progress(what: string): Progress {
  let shownAt = Number.NEGATIVE_INFINITY
  let isShown = false
  return {
    show(done, total) {
      const now = performance.now()
      if (!process.stderr.isTTY || now - shownAt < AGAIN_MS) return
      shownAt = now
      isShown = true
      const share = total === 0 ? 1 : Math.min(1, done / total)
      const bar = '#'.repeat(Math.round(share * WIDTH)).padEnd(WIDTH, '.')
      process.stderr.write(`\r\u001b[K[${bar}] ${what}: ${toSize(done)} of ${toSize(total)}`)
    },
    clear() {
      if (isShown) process.stderr.write('\r\u001b[K')
      isShown = false
    },
  }
}
