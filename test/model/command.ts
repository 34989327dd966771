// Owns what a command is: something that a device does, to the node and to the model, after which the
// feeds are looked at; and what it is about.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { list, placeOf, type Account, type Model, type Place } from './model.ts'
import { settle, type Device, type World } from './world.ts'

export type Command = fc.Arbitrary<fc.AsyncCommand<Model, World>>

export const ACCOUNTS = 3
export const NAMES = ['a', 'b', 'c', 'deep/ä b']
const UNKNOWN = `~${'A'.repeat(43)}`

const who = fc.record({ account: fc.nat(ACCOUNTS - 1), device: fc.nat(1) })

/** What a device does, with what the arbitrary says. */
export function command<T extends object>(
  name: string,
  parts: { [Part in keyof T]: fc.Arbitrary<T[Part]> },
  act: (model: Model, world: World, o: { device: Device } & T) => Promise<void>,
): Command {
  return fc.tuple(who, fc.record(parts)).map(([by, o]) => ({
    check: () => true,
    async run(model: Model, world: World) {
      const since = world.node.running.deps.clock.wall()
      const device = world.devices[by.account]?.[by.device] as Device
      await act(model, world, { ...(o as T), device })
      await settle(model, world, since)
      const limbo = model.accounts.flatMap((account) => [...account.limbo])
      assert.deepEqual(limbo, [], 'all that died is gone')
    },
    toString: () => `\n${name} by ${by.account}.${by.device} ${JSON.stringify(o)}`,
  }))
}

/** A name of one's own, one of the stores that one has, or one of the keys that there ever were. */
export type Target = { name: string } | { mine: number } | { any: number }

export const target: fc.Arbitrary<Target> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ name: fc.constantFrom(...NAMES) }) },
  { weight: 4, arbitrary: fc.record({ mine: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ any: fc.nat(30) }) },
)

/** Mostly one that is there. */
export const existing: fc.Arbitrary<Target> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ mine: fc.nat(30) }) },
  { weight: 1, arbitrary: target },
)

export function resolve(model: Model, account: Account, about: Target): Place & { path: string } {
  if ('name' in about) return { ...placeOf(model, account, about.name), path: about.name }
  const [nth, keys] =
    'mine' in about
      ? [about.mine, list(model, account).map(({ key }) => key)]
      : [about.any, model.keys]
  const path = keys[nth % keys.length] ?? UNKNOWN
  return { ...placeOf(model, account, { key: path }), path }
}

export const reading = {
  limit: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constant(1000)),
  withData: fc.boolean(),
}
