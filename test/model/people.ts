// Owns the commands on accounts and sessions, and what befalls all: time, and the end of the server.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { cheapen, post } from '../helpers/ask.ts'
import { expectProblem, expectStatus } from '../helpers/expect.ts'
import { PASSWORD } from '../helpers/node.ts'
import { NAMES, command, reading } from './command.ts'
import { DAY, bury, forget, newAccount, type Account, type Model } from './model.ts'
import { SMALL, putAs, takeAs } from './stores.ts'
import {
  ask,
  cut,
  cutExpired,
  endSessions,
  everyDevice,
  expectAll,
  expectEnd,
  logIn,
  settle,
  settleIn,
  type Device,
  type Replica,
  type World,
} from './world.ts'

export const changePassword = command(
  'password',
  { isRight: fc.boolean() },
  async (model, world, { device, isRight }) => {
    const { account } = device
    const { password: before } = account
    const password = `${before}!`
    const change = { password, current: isRight ? before : `not ${before}` }
    const answer = await ask(model, world, device, (client) =>
      post(world.node, '/password', change, client.headers),
    )
    if (answer === null) return
    if (!isRight) {
      await expectProblem(answer, 'AUTH02', 401)
      return
    }
    await expectStatus(answer, 204)
    account.password = password
    await endSessions(everyDevice(world).filter((one) => one.account === account && one !== device))
    const observer = world.observers[model.accounts.indexOf(account)]
    if (observer !== undefined) observer.session.expires = 0
    await expectNoLogin(world, account.id, before)
  },
)

const expectNoLogin = async ({ node }: World, id: string, password: string): Promise<unknown> =>
  expectProblem(await post(node, '/auth', { id, password }), 'AUTH02', 401)

export const logOut = command('log out', {}, async (model, world, { device }) => {
  const answer = await ask(model, world, device, (client) =>
    client.request('/auth', { method: 'DELETE' }),
  )
  if (answer === null) return
  await expectStatus(answer, 204)
  await endSessions([device])
})

/**
 * Deletes an account, to which others may have left stores of theirs. What is left is looked at while
 * its rows are still there, and the id and the names that died with it are taken again.
 */
export const leave = command(
  'delete account',
  { names: fc.subarray(NAMES), isEarly: fc.boolean(), isBuriedAtOnce: fc.boolean(), ...reading },
  async (model, world, { device, names, isEarly, isBuriedAtOnce, ...o }) => {
    const since = world.node.running.deps.clock.wall()
    const { account } = device
    const i = model.accounts.indexOf(account)
    const others = world.devices.flatMap(([one]) => (one?.account === account ? [] : (one ?? [])))
    for (const name of names) {
      for (const one of others) {
        await takeAs(model, world, { device: one, on: { name }, from: [], isLeave: true })
      }
    }
    // What is open on its sessions has heard all when they end.
    await settle(model, world, since)
    await deleteAccount(model, world, device)
    const devices = world.devices[i] as Device[]
    const replicas = [...devices.map(({ replica }) => replica), ...(world.memories[i] as Replica[])]
    world.strays.push(...replicas.flatMap(({ cursor }) => cursor ?? []))
    bury(model, account)
    await endSessions(devices)
    await expectNoLogin(world, account.id, account.password)
    if (isEarly) await registerAgain(model, world, i)
    // While all of this goes on, or after it.
    const burial = isBuriedAtOnce ? keepHouse(world) : undefined
    for (const one of others) await expectAll(model, world, one, o)
    for (const name of names) {
      for (const one of others) {
        await putAs(model, world, { device: one, ...SMALL, on: { name } })
        await settle(model, world, since)
      }
    }
    await burial
    await keepHouse(world)
    if (!isEarly) await registerAgain(model, world, i)
  },
)

async function deleteAccount(model: Model, world: World, device: Device): Promise<void> {
  const isFresh = device.session.created === model.now
  const answer = await ask(model, world, device, (client) =>
    client.request('/account', { method: 'DELETE' }),
  )
  if (isFresh && answer !== null) {
    await expectStatus(answer, 204)
    return
  }
  if (answer !== null) {
    await expectProblem(answer, 'AUTH03', 403)
    await cut(device)
    await logIn(model, world.node, device)
  }
  await deleteAccount(model, world, device)
}

async function registerAgain(model: Model, world: World, i: number): Promise<void> {
  const { id, user: handle } = model.accounts[i] as Account
  const answer = await post(world.node, '/account', { id, password: PASSWORD })
  const opened = (await (await expectStatus(answer, 200)).json()) as { user: string }
  assert.equal(opened.user, handle)
  model.accounts[i] = newAccount(id, handle, PASSWORD)
  await cheapen(world.node, id)
  await settleIn(model, world, i)
}

/** A whole round: one that runs already may have begun too early. */
async function keepHouse({ node }: World): Promise<void> {
  for (let n = 0; n < 2; n++) await node.running.housekeep()
}

export const restart = command('restart', {}, async (_model, world) => {
  await world.node.restart()
  for (const device of everyDevice(world)) {
    const { line } = device
    device.line = null
    if (line === null) continue
    if ('stream' in line) await expectEnd(line.stream)
    else await expectStatus(await line.answer, 200)
  }
})

// No sum of these comes near to an age that something ends at.
export const advance = command(
  'advance',
  { by: fc.constantFrom(DAY / 12, 7 * DAY, 50 * DAY, 50 * DAY, 50 * DAY, 181 * DAY, 181 * DAY) },
  async (model, world, { by }) => {
    world.node.advance(by)
    model.now += by
    await keepHouse(world)
    forget(model)
    await cutExpired(model, world)
  },
)
