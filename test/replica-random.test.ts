import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { startNode, type TestNode } from './helpers/node.ts'
import { expectAllPlayed } from './helpers/random.ts'
import { converge } from './helpers/replicas.ts'
import { mendAll, openReopened, trouble, troubles, unite, type Trouble } from './helpers/trouble.ts'

const NAMES = ['a', 'b', 'c']
const DEVICES = 3

type Step = Trouble & { name?: string }

/** Plays the steps, mends everything, and answers what all devices have then. */
async function play(t: TestContext, node: TestNode, id: string, steps: Step[]) {
  const reopened = []
  for (let i = 0; i < DEVICES; i++) reopened.push(await openReopened(t, node, id))
  const written = new Map<string, Set<string>>()
  for (const [n, step] of steps.entries()) {
    const { kind, device: i, name = '' } = step
    const at = reopened[i] as (typeof reopened)[number]
    const { replica } = at.device
    if (kind === 'write') {
      written.set(name, (written.get(name) ?? new Set()).add(`line ${n}`))
      await replica.update(name, (now) => unite(now, `line ${n}`))
    }
    if (kind === 'delete') await replica.delete(name)
    await trouble(node, at, step)
  }
  const devices = reopened.map(({ device }) => device)
  mendAll(devices)
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
  const edits = fc.record({
    kind: edit,
    device: fc.nat(DEVICES - 1),
    name: fc.constantFrom(...NAMES),
  })
  const steps = fc.array(
    fc.oneof({ weight: 8, arbitrary: edits }, { weight: 6, arbitrary: troubles(DEVICES) }),
    { minLength: 10, maxLength: 40 },
  )
  let run = 0
  await expectAllPlayed(
    t,
    fc.asyncProperty(steps, async (played) => expect(await play(t, node, `ana ${run++}`, played))),
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
