// Owns what tests of the release share: its files, the tools they ask for, and copies of the checkout.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, readFileSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from './node.ts'

export const checkout = fileURLToPath(new URL('../../', import.meta.url))

const folder = join(checkout, 'dist/release')

const { version } = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8')) as {
  version: string
}
export { version }

/** The path of a file of the release. */
export const released = (name: string): string => join(folder, name)

/** For `skip`: why a test cannot run here, where that is not continuous integration. */
export function without({ tools = [], release = false }: { tools?: string[]; release?: boolean }) {
  if (process.env['CI'] !== undefined) return false
  const missing = tools.find((tool) => spawnSync('which', [tool]).status !== 0)
  if (missing !== undefined) return `NOT TESTED: ${missing} is not installed`
  if (release && !existsSync(released('SHA256SUMS'))) return 'NOT TESTED: make release comes first'
  return false
}

export const sha256 = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex')

/** The checkout as somebody else has it, in another folder, with nothing built. */
export function copyOfCheckout(t: TestContext): string {
  const elsewhere = temporaryFolder(t)
  for (const name of readdirSync(checkout)) {
    const [from, to] = [join(checkout, name), join(elsewhere, name)]
    if (name === 'node_modules' || name === '.git') symlinkSync(from, to)
    else if (name !== 'dist') cpSync(from, to, { recursive: true })
  }
  return elsewhere
}
