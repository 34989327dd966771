import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { memoryStore, type LocalStore } from '../src/client/replica.ts'
import { startNode, type TestNode } from './helpers/node.ts'
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
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('write'), device, name: fc.constantFrom(...NAMES) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom('cut', 'mend', 'lose', 'keep'), device }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('reopen', 'settle'), device }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart'), device }) },
)
type Step = { kind: string; device: number; name?: string }

/** Loses the answer to every other write: the same for the same steps, so that a seed replays them. */
function everyOther(): (method: string) => boolean {
  let count = 0
  return (method) => method !== 'GET' && count++ % 2 === 0
}

function disturb(net: Device['net'], kind: string): void {
  if (kind === 'cut') net.cut()
  if (kind === 'mend') net.mend()
  if (kind === 'lose') net.loseAnswer = everyOther()
  if (kind === 'keep') net.loseAnswer = null
}

async function play(t: TestContext, node: TestNode, id: string, steps: Step[]) {
  const locals: LocalStore[] = Array.from({ length: DEVICES }, memoryStore)
  const open = (i: number): Promise<Device> =>
    openDevice(t, node, {
      id,
      local: locals[i] as LocalStore,
      merge: ({ local, remote }) => unite(local, remote),
      options: { retry: { baseMs: 1, attempts: 2 } },
    })
  const devices: Device[] = []
  for (let i = 0; i < DEVICES; i++) devices.push(await open(i))
  const written = new Map<string, Set<string>>()
  for (const [n, { kind, device: i, name = '' }] of steps.entries()) {
    const { replica, net } = devices[i] as Device
    if (kind === 'write') {
      written.set(name, (written.get(name) ?? new Set()).add(`line ${n}`))
      await replica.update(name, (now) => unite(now, new TextEncoder().encode(`line ${n}`)))
    }
    disturb(net, kind)
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
  const lines = Object.entries(all).map(
    ([name, text]) => [name, new Set(text.split('\n'))] as const,
  )
  assert.deepEqual(new Map(lines), written)
  for (const { replica } of devices) {
    assert.deepEqual(replica.status().parked, [])
    await replica.close()
  }
}

describe('Replicas, whatever happens', () => {
  it('end with all that was ever written, on every device', async (t) => {
    const node = await startNode(t)
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
        // Not as many registrations as the limit of an hour takes.
        if (run % 15 === 0) node.advance(3_600_000)
        await play(t, node, `ana ${run++}`, steps)
      }),
      {
        numRuns: Number(process.env['RUNS'] ?? 3),
        seed: Number(process.env['SEED'] ?? 1),
        endOnFailure: true,
      },
    )
  })
})
