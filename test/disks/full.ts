// Owns the trial of a disk that something else fills to its last block, again and again, while people
// write to the server on it.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Client } from '../helpers/client.ts'
import { startNode, type TestNode } from '../helpers/node.ts'
import { mountExt4 } from './mount.ts'
import { bytes, type Scope } from './place.ts'

const MIB = 1024 * 1024
const DISK_MIB = 80
// Above the reserve: what that frees is not for values.
const FLOOR = 18 * MIB
// For so long, files that were superseded stay.
const GRACE_MS = 6 * 60_000
// What is being written when the disk runs full.
const BUSY = [2000, 40_000, 2000, 300_000]
const TIMES_MORE = 2

export interface Filled {
  rounds: number
  /** Writes that were under way when the disk ran full, and those just after it, by what was answered. */
  answers: Map<number, number>
  /** The longest time that a refusal took. */
  refusedMs: number
}

/** Fills the disk to its last block, while the server works; answers how to free it again. */
async function fill(point: string): Promise<() => void> {
  const path = join(point, 'filler')
  const { code } = await promisify(execFile)('sh', ['-c', 'cat /dev/zero > "$0"', path]).then(
    () => ({ code: 0 }),
    (error: { code: number; stderr: string }) => error,
  )
  assert.equal(code, 1, 'it ends when nothing more goes in')
  return () => rmSync(path)
}

export async function fillAgain(scope: Scope, rounds: number): Promise<Filled> {
  const { point } = mountExt4(scope, DISK_MIB)
  const node = await startNode(
    scope,
    { QUOTA: 'none' },
    { root: join(point, 'data'), floorBytes: FLOOR },
  )
  const ana = await node.signUp('ana')
  const kept = new Map<string, Buffer>()
  for (const [key, size] of [
    ['small', 2000],
    ['large', 200_000],
  ] as const) {
    kept.set(key, bytes(size, size))
    await ana.save(key, kept.get(key) as Buffer)
  }
  for (const one of BUSY.keys()) await ana.save(`busy ${one}`, '')
  const filled: Filled = { rounds, answers: new Map(), refusedMs: 0 }
  for (let round = 0; round < rounds; round++)
    await fillOnce({ node, ana, point, kept, filled, round })
  return filled
}

interface Round {
  node: TestNode
  ana: Client
  point: string
  kept: Map<string, Buffer>
  filled: Filled
  round: number
}

async function fillOnce({ node, ana, point, kept, filled, round }: Round): Promise<void> {
  node.advance(GRACE_MS)
  // The second removes what the first has dated, and makes the reserve.
  for (const _ of [1, 2]) await node.running.housekeep()
  node.advance(1000) // the disk is looked at five times a second
  await expectWritten(ana, kept, round)
  // Those that are under way, or come before anybody has looked again, pass the floor: they find the disk full.
  const write = async (one: number): Promise<void> => {
    const value = bytes(BUSY[one] as number, round + one)
    const { status } = await ana.put(`busy ${one}`, value, { 'X-Sync-Token': '*' })
    assert.ok([204, 507].includes(status), `a write is answered ${status}`)
    filled.answers.set(status, (filled.answers.get(status) ?? 0) + 1)
  }
  const writeAll = (): Promise<unknown> => Promise.all([...BUSY.keys()].map(write))
  const underWay = writeAll()
  const free = await fill(point)
  await underWay
  for (let times = 0; times < TIMES_MORE; times++) await writeAll()
  node.advance(1000)
  for (const size of [10, 100_000]) {
    const before = performance.now()
    const { status } = await ana.put('new', bytes(size, round))
    assert.equal(status, 507)
    filled.refusedMs = Math.max(filled.refusedMs, performance.now() - before)
  }
  const phone = await node.logIn('ana')
  for (const [key, value] of kept) {
    const read = await phone.get(key)
    assert.equal(read.status, 200)
    assert.ok(value.equals(Buffer.from(await read.arrayBuffer())), key)
  }
  assert.equal((await phone.request('/auth', { method: 'DELETE' })).status, 204)
  free()
  node.advance(1000)
  await expectWritten(ana, kept, round)
  assert.deepEqual(node.fatal, [], 'the server stays')
}

/** Writes are taken, and kept. */
async function expectWritten(ana: Client, kept: Map<string, Buffer>, round: number): Promise<void> {
  for (const [key, was] of kept) {
    const value = bytes(was.length, round + was.length)
    const { status } = await ana.put(key, value, { 'X-Sync-Token': '*' })
    assert.equal(status, 204, `${key} in round ${round}`)
    kept.set(key, value)
  }
}
