// Owns the proof, in short, of disks that are full, read-only, slow or damaged, and of clocks that are
// wrong. `make disks` does it at length; SEED= makes other damage.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { temporaryFolder } from './helpers/node.ts'
import { CLOCKS, noFaketime, startAtWrongTime } from './disks/clocks.ts'
import { damageDatabases, damageValues } from './disks/damage.ts'
import { skip } from './disks/disk.ts'
import { fillAgain } from './disks/full.ts'
import { cannotMount } from './disks/mount.ts'
import { remount, turnReadOnly } from './disks/read-only.ts'
import { measureSlow } from './disks/slow.ts'

const seed = Number(process.env['SEED'] ?? 1)

describe('A disk', () => {
  it(
    'that is filled to the last block, again and again, takes writes again when there is room',
    {
      skip: cannotMount(),
    },
    async (t) => {
      const rounds = 4
      const { answers, refusedMs } = await fillAgain(t, rounds)
      t.diagnostic(`${[...answers].join('; ')}; refused within ${refusedMs.toFixed(0)} ms`)
      assert.ok((answers.get(507) ?? 0) >= rounds * 2, 'enough of them find the disk full')
    },
  )

  it('that became read-only is mounted anew, and all is there', { skip: cannotMount() }, remount)

  it('that is read-only for a while is written to again without a restart', { skip }, (t) =>
    turnReadOnly(t, temporaryFolder(t), 3),
  )

  it(
    'that is slow lets reads go on',
    {
      skip: cannotMount('nbdkit', 'qemu-storage-daemon', 'fusermount3'),
    },
    async (t) => {
      const { gets, p99, puts } = await measureSlow(t, 5)
      t.diagnostic(`GET p99 ${p99.toFixed(1)} ms of ${gets}, beside ${puts} writes`)
      assert.ok(gets > 0 && puts > 0)
    },
  )

  it('that damages values never has other bytes served for them', async (t) => {
    const counts = await damageValues(t, 60, seed)
    t.diagnostic([...counts].join('; '))
    assert.equal(counts.get('WRONG') ?? 0, 0)
  })

  it('that damages the database has it served rightly, or refused in one line', async (t) => {
    t.diagnostic([...(await damageDatabases(t, 12, seed))].join('; '))
  })
})

describe('A clock that is wrong', { skip: noFaketime() }, () => {
  it('ends no session and deletes nothing, whenever the server starts', async (t) => {
    await Promise.all(Object.values(CLOCKS).map((time) => startAtWrongTime(t, time)))
  })
})
