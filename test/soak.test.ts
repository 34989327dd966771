// Proves that use costs nothing that stays: no row, file, descriptor or listener too many after days of it.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { noClock } from './soak/clock.ts'
import { run } from './soak/soak.ts'
import { toTable } from './soak/table.ts'

const OPERATIONS = 20_000

describe('A server that is used for days', { skip: noClock }, () => {
  it('answers rightly, has all that it acknowledged, and keeps nothing else', async (t) => {
    const figures = await run({
      operations: OPERATIONS,
      seed: Number(process.env['SEED'] ?? 1),
      lanes: 8,
      hours: 23,
      mostProblems: 1,
    })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
    assert.equal(figures.operations, OPERATIONS)
    assert.ok(figures.read > 0 && figures.kinds.size > 25)
  })
})
