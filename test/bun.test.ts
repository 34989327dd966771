import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { IN_BUN } from './helpers/executable.ts'
import { temporaryFolder } from './helpers/node.ts'
import { smoke } from './smoke.ts'

const [bun = '', main = ''] = IN_BUN
// The package is optional, and for x64 alone: where it should be, its absence is a failure.
const skip =
  process.arch === 'x64' ? false : 'NOT TESTED with Bun: its package here is for x64 alone'

describe('Bun', { skip }, () => {
  it('passes the smoke sequence from source', async (t) => {
    const { log, privates } = await smoke(t, IN_BUN)
    for (const text of privates) assert.ok(!log.includes(text), `the log has ${text}`)
  })

  it('bundles the source', (t) => {
    const output = join(temporaryFolder(t), 'sync-node.js')
    execFileSync(bun, ['build', '--target=bun', `--outfile=${output}`, main], { stdio: 'pipe' })
    assert.ok(existsSync(output))
  })
})
