// Owns `make faults`: every call on a file fails once, in all that the server does. Prints a table; exit
// code 1 when anything was wrong, crashed, was contradicted, or got lost, or when too many of the calls that
// were to fail did not come.
//
//   node scripts/faults.ts [word]    only what has the word in its name
//   SEED=2                           others end by kill -9, and others with the power
//   MOST=20                          no more of each, by chance
//   AT='PUT, new/write/3/EIO/cut'    the case of this name alone
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compile } from '../test/disks/disk.ts'
import { subjects, toTable, tooFewReached, trySubject, type Row } from '../test/disks/matrix.ts'

const AT_ONCE = 2

const [, , word = ''] = process.argv
const { SEED = '1', AT, MOST } = process.env
const folder = mkdtempSync(join(tmpdir(), 'sync-node-faults-'))
const library = compile(folder)
const chosen = subjects.filter(({ name }) =>
  AT === undefined ? name.includes(word) : AT.startsWith(`${name}/`),
)
const rows: Row[] = []
let next = 0

async function work(): Promise<void> {
  while (next < chosen.length) {
    const index = next++
    const subject = chosen[index] as (typeof subjects)[number]
    const most = MOST === undefined ? {} : { most: Number(MOST) }
    const choice = { seed: Number(SEED), only: AT, ...most }
    rows[index] = await trySubject(library, subject, choice, console.error)
  }
}

try {
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  console.log(toTable(rows))
  const problems = tooFewReached(rows)
  for (const problem of problems) console.log(problem)
  const isWrong = problems.length > 0 || rows.some(({ faults }) => faults.length > 0)
  process.exitCode = isWrong ? 1 : 0
} finally {
  rmSync(folder, { recursive: true, force: true })
}
