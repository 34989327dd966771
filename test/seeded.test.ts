import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { skip } from './helpers/trace.ts'
import { seededBugs } from './seeded/bugs.ts'
import { bugsOfCluster } from './seeded/cluster-bugs.ts'
import { bugsOfOrder } from './seeded/orders.ts'
import { tryAll } from './seeded/seed.ts'

describe('The tests', () => {
  // The rest by `make seeded`: all of them take too long for each time.
  it('notice each seeded bug', async () => {
    const bugs = seededBugs.filter(
      ({ isAlways, test }) => isAlways && (skip === false || test !== 'durability'),
    )
    assert.ok(bugs.length >= 3)
    const trials = await tryAll(bugs)
    const survivors = trials.filter(({ caughtBy }) => caughtBy.length === 0)
    assert.deepEqual(
      survivors.map(({ bug }) => bug.name),
      [],
    )
  })

  it('can be seeded with each bug: the code that it changes is there', () => {
    const missing = [...seededBugs, ...bugsOfOrder, ...bugsOfCluster].flatMap(({ name, edits }) =>
      edits
        .filter(({ file, find }) => !readFileSync(file, 'utf8').includes(find))
        .map(({ file }) => `${name}: ${file}`),
    )
    assert.deepEqual(missing, [])
  })
})
