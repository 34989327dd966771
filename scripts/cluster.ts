// Owns `make cluster`: three nodes behind nginx, of which each and all behind them fail, FAULTS= times,
// while clients play OPERATIONS=; SEED= for others, BUCKET=swift for another bucket. Prints a table; exit
// code 1 when anything is wrong.
import { skip } from '../test/cluster/cluster.ts'
import { problemsOf, run, toTable } from '../test/cluster/run.ts'

const { OPERATIONS = '30000', FAULTS = '140', SEED = '1', BUCKET = 'fake' } = process.env
if (skip !== false) throw new Error(skip)

const afters: (() => unknown)[] = []
try {
  const figures = await run(
    { after: (undo) => void afters.unshift(undo as () => unknown) },
    {
      operations: Number(OPERATIONS),
      faults: Number(FAULTS),
      seed: Number(SEED),
      bucket: BUCKET === 'swift' ? 'swift' : 'fake',
      tell: (line) => console.error(line),
    },
  )
  const problems = problemsOf(figures)
  for (const problem of problems) console.log(problem)
  console.log(toTable(figures))
  process.exitCode = problems.length === 0 ? 0 : 1
} finally {
  for (const after of afters) await after()
}
