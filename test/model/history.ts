// Owns the histories that are compared with the model: what people begin with, do in any order, and have at
// the end.
import type { TestContext } from 'node:test'
import fc from 'fast-check'
import type { TestNode } from '../helpers/node.ts'
import { expectAllPlayed } from '../helpers/random.ts'
import { ACCOUNTS, type Command } from './command.ts'
import { follow, forgetAll, hold, look, lose, read, replay, stray } from './feeds.ts'
import { newModel, type Model } from './model.ts'
import { advance, changePassword, leave, logOut, restart } from './people.ts'
import { SMALL, batch, del, give, giveAs, put, putAs, race, take, takeAs } from './stores.ts'
import {
  copyOf,
  cut,
  everyDevice,
  expectAll,
  expectSame,
  openWorld,
  poll,
  settle,
  type Replica,
  type World,
} from './world.ts'

const MOST = 80
const LOST = 'deep/ä b'
const GIVEN = [
  ['a', 'OWN'],
  ['b', 'READ'],
  [LOST, 'OWN'],
] as const

const weighted = (weight: number, ...commands: Command[]) =>
  commands.map((arbitrary) => ({ weight, arbitrary }))

const commands = fc.commands(
  [
    fc.oneof(
      ...weighted(12, put),
      ...weighted(8, give, read, batch),
      ...weighted(5, del, take, follow),
      ...weighted(3, race, hold, replay, stray, look, advance),
      ...weighted(2, leave),
      ...weighted(1, lose, changePassword, logOut, restart, forgetAll),
    ),
  ],
  { maxCommands: MOST, size: 'max' },
)

/**
 * So that there is something to meet: each has stores that the next OWNs too, or may read, has left one
 * to the next, and remembers a first sync that has only begun.
 */
async function begin(model: Model, world: World): Promise<void> {
  const since = world.node.running.deps.clock.wall()
  for (const [i, [device]] of world.devices.entries()) {
    if (device === undefined) continue
    const to = [{ account: (i + 1) % ACCOUNTS, isHandle: true }]
    for (const [name, level] of GIVEN) {
      const on = { name }
      await putAs(model, world, { device, ...SMALL, on })
      await giveAs(model, world, { device, on, to, permission: level })
    }
    await takeAs(model, world, { device, on: { name: LOST }, from: [], isLeave: true })
  }
  await settle(model, world, since)
  for (const [i, [device]] of world.devices.entries()) {
    if (device === undefined) continue
    const { replica } = device
    await poll(model, world, device, { replica, limit: 2, withData: false, pages: 1 })
    world.memories[i]?.push(copyOf(replica))
  }
}

/** At the end: whoever catches up, from wherever it was, has just what the model has. */
async function finish(model: Model, world: World): Promise<void> {
  for (const device of everyDevice(world)) {
    await cut(device)
    const { account } = device
    const memories = world.memories[model.accounts.indexOf(account)] as Replica[]
    for (const replica of [device.replica, ...memories.splice(0)]) {
      await poll(model, world, device, { replica, limit: 3, withData: false })
      expectSame(model, replica)
    }
    await expectAll(model, world, device, { limit: 3, withData: true })
  }
}

/** Plays so many histories on a node; fails with the first that it does not answer as the model does. */
export async function expectModel(t: TestContext, node: TestNode, runs: number): Promise<void> {
  let run = 0
  const history = fc.asyncProperty(commands, async (played) => {
    const model = newModel()
    const ids = ['ana', 'ben', 'cara'].map((id) => `${id} ${run}`)
    run++
    const world = await openWorld(node, model, ids)
    try {
      await begin(model, world)
      await fc.asyncModelRun(() => ({ model, real: world }), played)
      await finish(model, world)
    } finally {
      for (const device of everyDevice(world)) await cut(device)
    }
  })
  await expectAllPlayed(t, history, runs)
}
