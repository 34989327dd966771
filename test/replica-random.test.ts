import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { memoryStore, type LocalStore } from '../src/client/replica.ts'
import type { Network } from './helpers/network.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { expectAllPlayed, numbers } from './helpers/random.ts'
import { converge, openDevice, toText, type Device } from './helpers/replicas.ts'

const NAMES = ['a', 'b', 'c']
const DEVICES = 3

/** The union of both sides' lines: whatever was written once has to be there in the end. */
const unite = (...sides: (Uint8Array | null)[]): Uint8Array => {
  const lines = sides.flatMap((side) => (side === null ? [] : (toText(side) as string).split('\n')))
  return new TextEncoder().encode(
    [...new Set(lines)].toSorted((a, b) => a.localeCompare(b)).join('\n'),
  )
}

const device = fc.nat(DEVICES - 1)
const trouble = fc.record({
  kind: fc.constantFrom('cut', 'mend', 'lose', 'keep', 'reopen', 'settle', 'restart'),
  device,
  /** By which it is decided what gets lost. */
  seed: fc.nat(),
})
type Step = { kind: string; device: number; name?: string; seed?: number }

function disturb(net: Network, { kind, seed = 0 }: Step): void {
  if (kind === 'cut') net.cut()
  if (kind === 'mend') net.mend()
  if (kind === 'lose') {
    const below = numbers(seed)
    net.loseAnswer = (method) => method !== 'GET' && below(2) === 0
  }
  if (kind === 'keep') net.loseAnswer = null
}

/** Plays the steps, mends everything, and answers what all devices have then. */
async function play(t: TestContext, node: TestNode, id: string, steps: Step[]) {
  const locals: LocalStore[] = Array.from({ length: DEVICES }, memoryStore)
  const open = (i: number): Promise<Device> =>
    openDevice(t, node, {
      id,
      local: locals[i] as LocalStore,
      merge: ({ local, remote }) =>
        local === null && remote === null ? null : unite(local, remote),
      options: { retry: { baseMs: 1, attempts: 2 } },
    })
  const devices: Device[] = []
  for (let i = 0; i < DEVICES; i++) devices.push(await open(i))
  const written = new Map<string, Set<string>>()
  for (const [n, step] of steps.entries()) {
    const { kind, device: i, name = '' } = step
    const { replica, net } = devices[i] as Device
    if (kind === 'write') {
      written.set(name, (written.get(name) ?? new Set()).add(`line ${n}`))
      await replica.update(name, (now) => unite(now, new TextEncoder().encode(`line ${n}`)))
    }
    if (kind === 'delete') await replica.delete(name)
    disturb(net, step)
    if (kind === 'settle' && !net.isDown) await replica.synced()
    if (kind === 'restart') await node.restart()
    if (kind === 'reopen') {
      await replica.close()
      devices[i] = await open(i)
    }
  }
  for (const { net } of devices) {
    net.mend()
    net.loseAnswer = null
  }
  const all = await converge(...devices)
  for (const { replica } of devices) {
    assert.deepEqual(replica.status().parked, [])
    await replica.close()
  }
  return { all, written }
}

/** Plays `kinds` of steps in many orders, each with an account of its own. */
async function playMany(
  t: TestContext,
  edit: fc.Arbitrary<string>,
  expect: (played: Awaited<ReturnType<typeof play>>) => void,
) {
  const node = await startNode(t)
  const edits = fc.record({ kind: edit, device, name: fc.constantFrom(...NAMES) })
  const steps = fc.array(
    fc.oneof({ weight: 8, arbitrary: edits }, { weight: 6, arbitrary: trouble }),
    { minLength: 10, maxLength: 40 },
  )
  let run = 0
  await expectAllPlayed(
    t,
    fc.asyncProperty(steps, async (played) => {
      // Not as many registrations as the limit of an hour takes.
      if (run % 15 === 0) node.advance(3_600_000)
      expect(await play(t, node, `ana ${run++}`, played))
    }),
    10,
  )
}

describe('Replicas, whatever happens', () => {
  it('end with all that was ever written, on every device', async (t) => {
    await playMany(t, fc.constant('write'), ({ all, written }) => {
      const lines = Object.entries(all).map(
        ([name, text]) => [name, new Set(text.split('\n'))] as const,
      )
      assert.deepEqual(new Map(lines), written)
    })
  })

  it('end alike where stores are deleted, too', async (t) => {
    await playMany(t, fc.constantFrom('write', 'write', 'delete'), ({ all, written }) => {
      for (const [name, text] of Object.entries(all)) {
        for (const line of text.split('\n')) assert.ok(written.get(name)?.has(line), line)
      }
    })
  })
})
