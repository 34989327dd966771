import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { checkout, copyOfCheckout, sha256 } from './helpers/release.ts'

describe('A build', () => {
  it('gives the same bytes again, in another folder', async (t) => {
    const elsewhere = copyOfCheckout(t)
    const folder = createRequire(import.meta.url).resolve(`node-linux-${process.arch}/package.json`)
    const node = join(folder, '../bin/node')
    await promisify(execFile)(process.execPath, ['scripts/build.ts', 'dist/sync-node', node], {
      cwd: elsewhere,
    })
    const [one, other] = [join(elsewhere, 'dist/sync-node'), join(checkout, 'dist/sync-node')]
    assert.equal(sha256(one), sha256(other))
  })
})
