// Owns `make soak`: months of use of the executable, OPERATIONS= of them, SEED= for others. Prints a
// table; exit code 1 when anything is lost, leaks, grows, or is answered wrongly.
import { run } from '../test/soak/soak.ts'
import { toTable } from '../test/soak/table.ts'

const { OPERATIONS = '5000000', SEED = '1' } = process.env

const figures = await run({
  operations: Number(OPERATIONS),
  seed: Number(SEED),
  lanes: 32,
  hours: 23,
  mostProblems: 10,
  tell: (line) => console.error(line),
})
for (const problem of figures.problems) console.log(problem)
console.log(toTable(figures))
process.exitCode = figures.problems.length === 0 ? 0 : 1
