import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, readFileSync, readdirSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { temporaryFolder } from './helpers/node.ts'

const root = new URL('..', import.meta.url).pathname
const sha256 = (path: string): string =>
  createHash('sha256').update(readFileSync(path)).digest('hex')

describe('A build', () => {
  it('gives the same bytes again, in another folder', async (t) => {
    const elsewhere = temporaryFolder(t)
    for (const name of readdirSync(root)) {
      const [from, to] = [join(root, name), join(elsewhere, name)]
      if (name === 'node_modules' || name === '.git') symlinkSync(from, to)
      else if (name !== 'dist') cpSync(from, to, { recursive: true })
    }
    const folder = createRequire(import.meta.url).resolve(`node-linux-${process.arch}/package.json`)
    const node = join(folder, '../bin/node')
    await promisify(execFile)(process.execPath, ['scripts/build.ts', node], { cwd: elsewhere })
    assert.equal(sha256(join(elsewhere, 'dist/sync-node')), sha256(join(root, 'dist/sync-node')))
  })
})
