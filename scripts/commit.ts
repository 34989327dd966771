// Owns the date of the commit that is built: what a reproducible file may hold instead of the present.
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

// For a source tarball, which has no commit to ask: the clock is never believed to be before this.
const FIRST_COMMIT_SECONDS = Date.UTC(2026, 10, 23) / 1000

export function commitSeconds(): number {
  const root = fileURLToPath(new URL('../', import.meta.url))
  // Only a checkout of our own: git would answer for any repository that a tarball is unpacked in.
  if (existsSync(`${root}.git`)) {
    try {
      // In a container the checkout often belongs to someone else.
      const args = ['-c', 'safe.directory=*', 'log', '-1', '--format=%ct']
      return Number(execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: 'pipe' }))
    } catch {
      // No git on this machine, or no commit yet.
    }
  }
  return Number(process.env['SOURCE_DATE_EPOCH'] ?? FIRST_COMMIT_SECONDS)
}
