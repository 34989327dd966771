// Owns `make disks`: full, read-only, slow and damaged disks, and clocks that are wrong. Prints a line a
// figure; exit code 1 when anything was lost, wrong or crashed. The figure of the slow disk is for people
// to judge.
//
//   node scripts/disks.ts [word]    only what has the word in its name
//   SEED=2                          other damage
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CLOCKS, leap, startAtWrongTime } from '../test/disks/clocks.ts'
import { damageDatabases, damageValues, type Counts } from '../test/disks/damage.ts'
import { fillAgain } from '../test/disks/full.ts'
import { within, type Scope } from '../test/disks/place.ts'
import { remount, turnReadOnly } from '../test/disks/read-only.ts'
import { measureSlow } from '../test/disks/slow.ts'

const [, , word = ''] = process.argv
const { SEED = '1', TIMES } = process.env
const seed = Number(SEED)
const times = (usual: number): number => Number(TIMES ?? usual)

const toText = (counts: Counts): string =>
  [...counts].map(([name, count]) => `${name} ${count}`).join(', ')

async function slow(scope: Scope, disk?: Parameters<typeof measureSlow>[2]): Promise<string> {
  const { gets, p50, p99, worst, puts, uploads, checkpoints } = await measureSlow(scope, 60, disk)
  const ms = [p50, p99, worst].map((figure) => figure.toFixed(1))
  return `GET p50 ${ms[0]} ms, p99 ${ms[1]} ms, worst ${ms[2]} ms of ${gets}; beside ${puts} small writes, ${uploads} uploads of 32 MiB, ${checkpoints} checkpoints`
}

const clocks = Object.entries(CLOCKS).flatMap(([name, time]): [string, Trial][] => [
  [`a start with the clock ${name}`, (scope) => startAtWrongTime(scope, time)],
  [`a clock that leaps ${name}`, (scope) => leap(scope, time)],
])

type Trial = (scope: Scope) => Promise<string | void>

const trials: [string, Trial][] = [
  [
    'full to the last block',
    async (scope) => {
      const { rounds, answers, refusedMs } = await fillAgain(scope, times(100))
      const under = [...answers].map(([status, count]) => `${status} ${count}`).join(', ')
      return `${rounds} times; writes under way: ${under}; refused within ${refusedMs.toFixed(0)} ms`
    },
  ],
  ['mounted anew after read-only', remount],
  [
    'read-only and back',
    (scope) => turnReadOnly(scope, mkdtempSync(join(tmpdir(), 'sync-node-')), times(100)),
  ],
  ['values damaged', async (scope) => toText(await damageValues(scope, times(1000), seed))],
  [
    'the database damaged',
    async (scope) => toText(await damageDatabases(scope, times(1000), seed)),
  ],
  ...clocks,
  ['the same load on a disk without delays', (scope) => slow(scope, { writeMs: 0, syncMs: 0 })],
  ['a disk of 4 ms a write, 80 ms a flush', (scope) => slow(scope)],
]

for (const [name, run] of trials) {
  if (!name.includes(word)) continue
  try {
    console.log(`${name.padEnd(40)} ${(await within(run)) ?? 'as it should be'}`)
  } catch (error) {
    process.exitCode = 1
    console.log(`${name.padEnd(40)} FAILED: ${(error as Error).stack}`)
  }
}
