import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { EMULATORS } from '../scripts/release/body.ts'
import { released, version, without } from './helpers/release.ts'
import { smoke } from './smoke.ts'

const QEMU = EMULATORS.arm64
const skip = without({ tools: QEMU.slice(0, 1), release: true })

describe('The executable for arm64', { skip }, () => {
  it('passes the smoke sequence', async (t) => {
    const executable = released(`sync-node-${version}-linux-arm64`)
    const { log, privates } = await smoke(t, [...QEMU, executable])
    for (const text of privates) assert.ok(!log.includes(text), `the log has ${text}`)
  })
})
