// Owns the clock of a server that is to live through months: compiles clock.c, and moves it on.
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/** False, or why there is nothing to test with. In CI that is a failure. */
export const noClock: string | false =
  process.env['CI'] === undefined && spawnSync('cc', ['--version']).status !== 0
    ? 'NOT TESTED: months of use. Install gcc.'
    : false

export interface MovedClock {
  environment: Record<string, string>
  /** How far the time of day is ahead, and the time since the start of the machine. */
  set(ahead: { wallMs: number; uptimeMs: number }): void
  close(): void
}

export function openClock(folder: string): MovedClock {
  const library = join(folder, 'clock.so')
  const source = join(import.meta.dirname, 'clock.c')
  execFileSync('cc', ['-shared', '-fPIC', '-O2', '-Wall', '-Werror', '-o', library, source, '-ldl'])
  const path = join(folder, 'clock')
  const file = openSync(path, 'w')
  const set: MovedClock['set'] = ({ wallMs, uptimeMs }) => {
    const seconds = [wallMs, uptimeMs].map((ms) => BigInt(Math.floor(ms / 1000)))
    writeSync(file, BigInt64Array.from(seconds), 0, 16, 0)
  }
  set({ wallMs: 0, uptimeMs: 0 })
  return {
    environment: { LD_PRELOAD: library, CLOCK_FILE: path },
    set,
    close: () => closeSync(file),
  }
}
