// Owns the commands on feeds: read in pages, followed, cut off, gone on with from wherever one was once.
import fc from 'fast-check'
import { expectProblem } from '../helpers/expect.ts'
import { command, reading } from './command.ts'
import type { Model } from './model.ts'
import {
  ask,
  copyOf,
  cut,
  everyDevice,
  expectAll,
  expectSame,
  hear,
  listen,
  poll,
  startAgain,
  type Device,
  type World,
} from './world.ts'

export const read = command(
  'poll',
  { ...reading, pages: fc.integer({ min: 1, max: 3 }), isRemembered: fc.boolean() },
  async (model, world, { device, isRemembered, ...o }) => {
    const { account, replica } = device
    await cut(device)
    await poll(model, world, device, { replica, ...o })
    if (isRemembered) world.memories[model.accounts.indexOf(account)]?.push(copyOf(replica))
  },
)

/** Listens, and is cut off after so many events unless it stays. */
export const follow = command(
  'follow',
  { withData: fc.boolean(), most: fc.nat(6), isStaying: fc.boolean() },
  async (model, world, { device, withData, most, isStaying }) => {
    if (!(await isIn(model, world, device))) return
    await listen(model, device, { as: 'stream', withData })
    if (isStaying) return
    await hear(model, device, most)
    await cut(device)
  },
)

/** True for a device with a session. One without is told so, and has logged in again. */
const isIn = async (model: Model, world: World, device: Device): Promise<boolean> =>
  (await ask(model, world, device, (client) => client.request('/account'))) !== null

export const hold = command(
  'hold',
  { withData: fc.boolean() },
  async (model, world, { device, withData }) => {
    const { replica } = device
    await cut(device)
    await poll(model, world, device, { replica, limit: 1000, withData })
    await listen(model, device, { as: 'poll', withData })
  },
)

export const lose = command('cut', {}, async (_model, _world, { device }) => cut(device))

/** What a device was is read on from; it may be that from then on, as after a backup of it. */
export const replay = command(
  'replay',
  { ...reading, nth: fc.nat(20), isKept: fc.boolean() },
  async (model, world, { nth, isKept, ...o }) => {
    const memories = world.memories.flat()
    const memory = memories[nth % memories.length]
    const device = everyDevice(world).findLast(({ account }) => account === memory?.account)
    if (memory === undefined || device === undefined) return
    const replica = copyOf(memory)
    await poll(model, world, device, { replica, ...o })
    expectSame(model, replica)
    if (!isKept) return
    await cut(device)
    device.replica = replica
  },
)

/** A cursor of another account, or of one that is no more, is told that it is not known. */
export const stray = command(
  'stray',
  { nth: fc.nat(20) },
  async (model, world, { device, nth }) => {
    const others = [...everyDevice(world).map(({ replica }) => replica), ...world.memories.flat()]
    const cursors = others
      .flatMap(({ account, cursor }) => (account === device.account ? [] : (cursor ?? [])))
      .concat(world.strays)
    const cursor = cursors[nth % cursors.length]
    if (cursor === undefined) return
    const answer = await ask(model, world, device, (client) =>
      client.request(`/changes?since=${cursor}`),
    )
    if (answer !== null) await expectProblem(answer, 'FEED01', 410)
  },
)

export const look = command('look', reading, async (model, world, { device, ...o }) =>
  expectAll(model, world, device, o),
)

export const forgetAll = command('reset', {}, async (_model, _world, { device }) => {
  await cut(device)
  startAgain(device.replica)
})
