// Owns the bar that shows on a terminal how far something long has come.
import { toSize } from '../units.ts'

const WIDTH = 30
const AGAIN_MS = 100

export interface Bar {
  /** Of 0 bytes nobody knows how far it has come: there is no bar. */
  begin(what: string, bytes: number): void
  add(bytes: number): void
  /** Takes the bar off the terminal, before other lines are printed and at the end. */
  end(): void
}

/** Draws on stderr, and nothing where that is no terminal. */
export function openBar(): Bar {
  let at = { what: '', done: 0, total: 0 }
  let shownAt = Number.NEGATIVE_INFINITY
  let isShown = false

  function end(): void {
    if (isShown) process.stderr.write('\r\u001b[K')
    isShown = false
  }

  return {
    begin(what, total) {
      end()
      at = { what, done: 0, total }
    },
    add(bytes) {
      at.done += bytes
      const now = performance.now()
      if (!process.stderr.isTTY || at.total === 0 || now - shownAt < AGAIN_MS) return
      shownAt = now
      isShown = true
      const share = Math.min(1, at.done / at.total)
      const bar = '#'.repeat(Math.round(share * WIDTH)).padEnd(WIDTH, '.')
      process.stderr.write(
        `\r\u001b[K[${bar}] ${at.what}: ${toSize(at.done)} of ${toSize(at.total)}`,
      )
    },
    end,
  }
}
