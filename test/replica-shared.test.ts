// Owns the proof that replicas of several people, who share stores and take them back while their devices
// have troubles, end with what each may read, and silently lose nothing that was written.
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { connect, type Client, type Permission } from '../src/client/client.ts'
import { toBytes } from '../src/database/database.ts'
import { toStoreKey } from '../src/key.ts'
import { rows } from './helpers/ask.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { expectAllPlayed } from './helpers/random.ts'
import { synced, toText, until, type Device } from './helpers/replicas.ts'
import {
  mendAll,
  openReopened,
  trouble,
  troubles,
  unite,
  type Reopened,
  type Trouble,
} from './helpers/trouble.ts'

const NAMES = ['a', 'a', 'b']
const PEOPLE = 2
const DEVICES = 2

interface Person {
  handle: string
  /** The store key of an own name, whether there is such a store or not. */
  keyOf(name: string): string
  /** By a network without troubles. */
  desk: Client
  devices: Reopened[]
}

interface Line {
  device: Reopened
  id: string
  key: string
  text: string
}

type Step = Trouble & { person: number; nth: number; isShared: boolean; permission: Permission }

const person = fc.nat(PEOPLE - 1)
const device = fc.nat(DEVICES - 1)

const step: fc.Arbitrary<Step> = fc.record({
  person,
  device,
  kind: fc.constantFrom('write', 'write', 'write', 'share', 'share', 'revoke', 'leave'),
  nth: fc.nat(20),
  isShared: fc.boolean(),
  permission: fc.constantFrom<Permission[]>('READ', 'WRITE', 'WRITE', 'OWN'),
})

const disturbed: fc.Arbitrary<Step> = fc
  .tuple(step, troubles(DEVICES))
  .map(([one, other]) => ({ ...one, ...other }))

async function openPerson(t: TestContext, node: TestNode, id: string): Promise<Person> {
  const devices: Reopened[] = []
  for (let i = 0; i < DEVICES; i++) devices.push(await openReopened(t, node, id))
  const { token, user } = (devices[0] as Reopened).device.client
  // The port of a restarted node is another.
  const direct: typeof fetch = (input, init) => {
    const { pathname, search } = new URL(String(input))
    return fetch(node.url + pathname + search, init)
  }
  const [row] = await rows(node, 'SELECT key_salt FROM sync_account WHERE id = ?', [user as string])
  const salt = toBytes(row?.['key_salt'])
  return {
    handle: user as string,
    keyOf: (name) => toStoreKey(name, salt),
    desk: connect({ url: node.url, token, fetch: direct }),
    devices,
  }
}

/** An own name, or one of the shared stores that the device knows of. */
async function idOf({ replica }: Device, { nth, isShared }: Step): Promise<string> {
  const shared = (await replica.list()).map(({ id }) => id).filter((id) => id.startsWith('~'))
  const ids = isShared && shared.length > 0 ? shared.toSorted() : NAMES
  return ids[nth % ids.length] as string
}

async function play(t: TestContext, node: TestNode, run: number, steps: Step[]): Promise<void> {
  const people: Person[] = []
  for (let i = 0; i < PEOPLE; i++) people.push(await openPerson(t, node, `person ${i} ${run}`))
  const lines: Line[] = []
  for (const [n, one] of steps.entries()) {
    const self = people[one.person] as Person
    const other = people[(one.person + 1) % PEOPLE] as Person
    const at = self.devices[one.device] as Reopened
    const id = await idOf(at.device, one)
    if (one.kind === 'write') {
      const text = `line ${n}`
      lines.push({ device: at, id, key: self.keyOf(id), text })
      await at.device.replica.update(id, (now) => unite(now, text))
    }
    await share(self.desk.store(id), other, one)
    await trouble(node, at, one)
  }
  await finish(people, lines)
}

/** What the server refuses does not matter here. */
async function share(
  store: ReturnType<Client['store']>,
  { handle }: Person,
  { kind, permission }: Step,
): Promise<void> {
  try {
    if (kind === 'share') await store.share(handle, permission)
    if (kind === 'revoke') await store.revoke(handle)
    if (kind === 'leave') await store.leave()
  } catch (error) {
    const { code = '' } = error as { code?: string }
    if (!['ERR01', 'PERM01', 'PERM02'].includes(code)) throw error
  }
}

async function finish(people: Person[], lines: Line[]): Promise<void> {
  const devices = people.flatMap((one) => one.devices.map((reopened) => reopened.device))
  mendAll(devices)
  for (const one of devices) await synced(one)
  for (const { replica } of devices) {
    for (const { id } of replica.status().parked) await replica.retry(id)
  }
  for (const one of devices) await synced(one)
  const contents = Object.assign({}, ...(await Promise.all(people.map(contentsOf))))
  for (const line of lines) await expectKept(line, contents)
  for (const { replica } of devices) {
    for (const { id } of replica.status().parked) await replica.discard(id)
  }
  for (const self of people) {
    for (const { device: one } of self.devices) await expectSame(self, one)
  }
  for (const { replica } of devices) await replica.close()
}

/** A line is in the store that it was written to, or waits on its device, which says so. */
async function expectKept({ device: at, id, key, text }: Line, contents: Record<string, string>) {
  const { replica } = at.device
  const isParked = replica.status().parked.some((one) => one.id === id)
  const here = isParked ? toText(await replica.get(id)) : null
  const lines = [here ?? '', contents[key] ?? ''].flatMap((one) => one.split('\n'))
  assert.ok(lines.includes(text), `${text} of ${id} is lost`)
}

/** What the account can read, by key. */
async function contentsOf({ desk }: Person): Promise<Record<string, string>> {
  const { stores } = await desk.list()
  const read = stores.map(async ({ key }) => {
    const current = await desk.store(key).get()
    return [key, toText(current?.value ?? null) ?? ''] as const
  })
  return Object.fromEntries(await Promise.all(read))
}

/** The device has, in the end, just what its account can read. */
async function expectSame(self: Person, one: Device): Promise<void> {
  const expected = await contentsOf(self)
  let found: Record<string, string> = {}
  const look = async (): Promise<boolean> => {
    const all = Object.entries(await one.all())
    found = Object.fromEntries(all.map(([id, text]) => [self.keyOf(id), text]))
    return isDeepStrictEqual(found, expected)
  }
  await until(one, look).catch(() => undefined)
  assert.deepEqual(found, expected)
}

describe('Replicas of people who share', () => {
  it('end with what each may read, and lose no line silently', async (t) => {
    const node = await startNode(t)
    let run = 0
    const steps = fc.array(
      fc.oneof({ weight: 8, arbitrary: step }, { weight: 5, arbitrary: disturbed }),
      { minLength: 10, maxLength: 40 },
    )
    const history = fc.asyncProperty(steps, async (played) => play(t, node, run++, played))
    await expectAllPlayed(t, history, 10)
  })
})
