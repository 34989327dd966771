// Proves that kill -9, whenever it comes, costs nothing that was acknowledged and leaves nothing behind.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { run, toTable } from './proof/crash.ts'

const CYCLES = 200

describe('A server that is killed', () => {
  it('has all that it acknowledged when it starts again, exact sums, and no file too many', async (t) => {
    const figures = await run({
      cycles: CYCLES,
      seed: Number(process.env['SEED'] ?? 1),
      mostProblems: 1,
    })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
    assert.equal(figures.cycles, CYCLES)
    assert.ok(figures.sessionsEnded > 0 && figures.accountsDeleted > 0)
    assert.ok(figures.setAside > 0 && figures.unanswered > 0 && figures.whileStarting > 0)
  })
})
