// Owns the proof that three nodes behind nginx, with one database server and one bucket, are to all clients
// one server, whatever fails in between. `make cluster` plays more of it.
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { skip } from './cluster/cluster.ts'
import { problemsOf, run, toTable, type Options } from './cluster/run.ts'
import { FROM_SOURCE } from './helpers/executable.ts'

const { SEED = '1' } = process.env
const MUCH = 3

describe('Three nodes behind nginx', { skip }, () => {
  it('are one server to all clients, by the executable', async (t) => {
    await expectOne(t, { operations: 2000, faults: 9 })
  })

  it('are one server to all clients, from source', async (t) => {
    await expectOne(t, { operations: 900, faults: 9, command: FROM_SOURCE })
  })
})

async function expectOne(t: TestContext, options: Omit<Options, 'seed'>): Promise<void> {
  const figures = await run(t, { ...options, seed: Number(SEED) })
  for (const line of toTable(figures).split('\n')) t.diagnostic(line)
  assert.deepEqual(problemsOf(figures).slice(0, MUCH), [], `SEED=${SEED}`)
  assert.ok(figures.operations > options.operations / 2, 'most of it is answered')
  assert.ok(figures.resumed >= 3, 'each stream was broken off')
}
