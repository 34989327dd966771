// Owns the progress bar on a terminal; anywhere else there is none.
import { performance } from 'node:perf_hooks'
import { toSize } from '../units.ts'

export interface Bar {
  /** 0 bytes: nobody knows how many there will be. */
  begin(what: string, bytes: number): void
  add(bytes: number): void
  /** Takes it away. */
  end(): void
}

const WIDTH = 30
const EVERY_MS = 100

export function openBar(): Bar {
  if (!process.stderr.isTTY) {
    return { begin: () => undefined, add: () => undefined, end: () => undefined }
  }
  let at = { what: '', total: 0, done: 0, shown: 0 }

  function show(): void {
    at.shown = performance.now()
    if (at.total === 0) {
      process.stderr.write(`\r${at.what} ${toSize(at.done)}\x1b[K`)
      return
    }
    const share = Math.min(1, at.done / at.total)
    const bar = '#'.repeat(Math.round(share * WIDTH)).padEnd(WIDTH)
    const percent = String(Math.floor(share * 100)).padStart(3)
    const sizes = `${toSize(at.done)} of ${toSize(at.total)}`
    process.stderr.write(`\r${at.what} [${bar}] ${percent} % ${sizes}\x1b[K`)
  }

  return {
    begin(what, bytes) {
      at = { what, total: bytes, done: 0, shown: 0 }
      show()
    },
    add(bytes) {
      at.done += bytes
      if (at.done === at.total || performance.now() - at.shown > EVERY_MS) show()
    },
    end: () => void process.stderr.write('\r\x1b[K'),
  }
}
