// Owns `make powercut`: days of a server recorded write by write on real file systems, cut wherever power
// can go, and every state checked. STATES= for more of them, SEED= for others, SEEDED=1 for the seeded
// bugs besides; REPLAY= and AT= for one cut of a recording in which there was a problem. Prints a table;
// exit code 1 when anything is wrong.
import type { Cut } from '../test/proof/block-log.ts'
import { skip } from '../test/proof/disk.ts'
import { run, toTable } from '../test/proof/powercut.ts'
import { powerCutBugs } from '../test/seeded/power-cuts.ts'
import { tryAll } from '../test/seeded/seed.ts'

const { STATES = '10000', SEED = '1', SEEDED, REPLAY, AT = '' } = process.env
if (skip !== false) throw new Error(skip)

const figures = await run({
  states: Number(STATES),
  seed: Number(SEED),
  pace: 1,
  statesADay: 1000,
  startEvery: 8,
  programEvery: 12,
  mostProblems: 50,
  keep: true,
  ...(REPLAY !== undefined && { replay: { folder: REPLAY, cut: toCut(AT) } }),
  tell: (line) => console.error(line),
})
for (const problem of figures.problems) console.log(problem)
console.log(toTable(figures))
process.exitCode = figures.problems.length === 0 ? 0 : 1

if (SEEDED !== undefined) {
  const trials = await tryAll(powerCutBugs, ({ bug, caughtBy }) =>
    console.error(`${bug.name}: ${caughtBy.length === 0 ? 'SURVIVED' : 'noticed'}`),
  )
  const caught = trials.filter(({ caughtBy }) => caughtBy.length > 0)
  console.log(`${'seeded bugs caught'.padEnd(54)} ${caught.length} of ${trials.length}`)
  if (caught.length < trials.length) process.exitCode = 1
}

/** As a problem names it. */
function toCut(text: string): Cut {
  const [kind, at, seed] = text.split(' ')
  return { kind: kind as Cut['kind'], at: Number(at), seed: Number(seed) }
}
