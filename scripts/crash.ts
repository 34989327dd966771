// Owns `make crash`: a server that is killed while people write, and started again, CYCLES= times, SEED=
// for others. Prints a table; exit code 1 when anything is wrong.
import { run, toTable } from '../test/proof/crash.ts'

const { CYCLES = '1000', SEED = '1' } = process.env

const figures = await run({
  cycles: Number(CYCLES),
  seed: Number(SEED),
  mostProblems: 10,
  tell: (line) => console.error(line),
})
for (const problem of figures.problems) console.log(problem)
console.log(toTable(figures))
process.exitCode = figures.problems.length === 0 ? 0 : 1
