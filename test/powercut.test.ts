// Proves that a power cut, wherever it comes and whatever the disk had got to, costs nothing that was
// acknowledged: on real file systems, whose every write was recorded.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { skip } from './proof/disk.ts'
import { run, toTable } from './proof/powercut.ts'

const STATES = 2000

describe('A power cut', { skip }, () => {
  it('loses nothing that was acknowledged, and leaves what a server starts on', async (t) => {
    const figures = await run({
      states: STATES,
      seed: Number(process.env['SEED'] ?? 1),
      pace: 0.6,
      statesADay: STATES,
      startEvery: 16,
      programEvery: 12,
      mostProblems: 1,
    })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
    assert.equal(figures.states, STATES)
    assert.ok(figures.sessionsEnded > 0 && figures.passwordsChanged > 0)
    assert.ok(figures.accountsDeleted > 0)
    assert.ok(figures.started > 0 && figures.backups > 0 && figures.restored > 0)
  })
})
