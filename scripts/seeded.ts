// Owns the proof that the tests notice: every seeded bug of test/seeded/bugs.ts has to make the tests
// fail that it names. Prints a table; exit code 1 when a bug survives.
//
//   node scripts/seeded.ts [word]    only those whose name has the word
import { seededBugs } from '../test/seeded/bugs.ts'
import { bugsOfCluster } from '../test/seeded/cluster-bugs.ts'
import { bugsOfOrder } from '../test/seeded/orders.ts'
import { failWithoutBug, tryAll } from '../test/seeded/seed.ts'

const [, , word = ''] = process.argv
const bugs = [...seededBugs, ...bugsOfOrder, ...bugsOfCluster].filter(({ name }) =>
  name.includes(word),
)
const width = Math.max(...bugs.map(({ name }) => name.length))

const failing = await failWithoutBug(bugs)
for (const name of failing) console.error(`fails without any bug: ${name}`)

const trials = await tryAll(bugs, ({ bug, caughtBy }) => {
  const what = caughtBy.length === 0 ? 'SURVIVED' : `${bug.test}: ${caughtBy.join('; ')}`
  console.log(`${bug.name.padEnd(width)}  ${what}`)
})
const survivors = trials.filter(({ caughtBy }) => caughtBy.length === 0)
console.log(`\n${trials.length - survivors.length} of ${trials.length} seeded bugs are noticed`)
process.exitCode = survivors.length === 0 && failing.length === 0 ? 0 : 1
