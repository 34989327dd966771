// Owns the real side of the model: devices with sessions on a node, what they know from their feeds, and
// the comparison of every answer with the model.
import assert from 'node:assert/strict'
import { openAccount, openSession } from '../helpers/accounts.ts'
import { cheapen } from '../helpers/ask.ts'
import type { Client } from '../helpers/client.ts'
import { expectProblem, expectStatus } from '../helpers/expect.ts'
import { openStream, readPage, type Change, type EventStream, type Page } from '../helpers/feed.ts'
import { PASSWORD, type TestNode } from '../helpers/node.ts'
import {
  DAY,
  digestOf,
  entriesAfter,
  list,
  listed,
  lose,
  move,
  newAccount,
  used,
  type Account,
  type Entry,
  type Listed,
  type Model,
  type Refusal,
  type Store,
} from './model.ts'

const IDLE_MS = 90 * DAY
const LIFE_MS = 365 * DAY
const INLINE_BYTES = 16_384

export interface Session {
  client: Client
  created: number
  used: number
  /** In the model's time; 0 for one that has ended. */
  expires: number
}

/** What a client knows that follows the feed. */
export interface Replica {
  account: Account
  cursor: string | null
  /** The place of the last entry it was told. */
  position: number
  /** Where its first sync began. */
  began: number
  held: Map<string, Listed>
}

export interface Device {
  account: Account
  session: Session
  replica: Replica
  /** An event stream, or a poll that is held. */
  line: { stream: EventStream } | { answer: Promise<Response> } | null
  withData: boolean
}

export interface World {
  node: TestNode
  /** By the account's place in the model. */
  devices: Device[][]
  /** What its devices were once, as backups of them are. */
  memories: Replica[][]
  /** Each reads its account's feed after every command. */
  observers: { session: Session; replica: Replica }[]
  /** Cursors of accounts that are no more. */
  strays: string[]
}

const DEVICES = 2

export async function openWorld(node: TestNode, model: Model, ids: string[]): Promise<World> {
  const world: World = { node, devices: [], memories: [], observers: [], strays: [] }
  for (const [i, id] of ids.entries()) {
    const { user } = await openAccount(node, id)
    model.accounts.push(newAccount(id, user, PASSWORD))
    await settleIn(model, world, i)
  }
  await cheapen(node, ...ids)
  return world
}

/** Gives the devices, and the observer, of an account their sessions. */
export async function settleIn(model: Model, world: World, i: number): Promise<void> {
  const account = model.accounts[i] as Account
  const open = async () => newSession(model, await openSession(world.node, account))
  world.devices[i] = []
  world.memories[i] = []
  for (let d = 0; d < DEVICES; d++) {
    const replica = newReplica(account)
    const session = await open()
    world.devices[i]?.push({ account, session, replica, line: null, withData: false })
  }
  world.observers[i] = { session: await open(), replica: newReplica(account) }
}

const newSession = (model: Model, client: Client): Session => ({
  client,
  created: model.now,
  used: model.now,
  expires: model.now + IDLE_MS,
})

const newReplica = (account: Account): Replica => ({
  account,
  cursor: null,
  position: 0,
  began: 0,
  held: new Map(),
})

export const copyOf = (replica: Replica): Replica => ({ ...replica, held: new Map(replica.held) })

export const everyDevice = (world: World): Device[] => world.devices.flat()

// Sessions

export const isAlive = ({ now }: Model, { expires }: Session): boolean => expires > now

function use({ now }: Model, session: Session): void {
  if (now - session.used < DAY) return
  session.used = now
  session.expires = Math.min(now + IDLE_MS, session.created + LIFE_MS)
}

/** The answer to a device; null when its session has ended: it was told so, and has logged in again. */
export async function ask(
  model: Model,
  { node }: World,
  device: Device,
  send: (client: Client) => Promise<Response>,
): Promise<Response | null> {
  const { session } = device
  const answer = await send(session.client)
  if (isAlive(model, session)) {
    use(model, session)
    return answer
  }
  await expectProblem(answer, 'AUTH01', 401)
  await logIn(model, node, device)
  return null
}

export async function logIn(model: Model, node: TestNode, device: Device): Promise<void> {
  const { id, user, password } = device.account
  const client = await node.logIn(id, { password })
  assert.equal(client.user, user)
  device.session = newSession(model, client)
}

/** Sessions that the server has ended: what is open on them ends, too. */
export async function endSessions(devices: Device[]): Promise<void> {
  for (const device of devices) {
    device.session.expires = 0
    const { line } = device
    device.line = null
    if (line === null) continue
    if ('answer' in line) await expectProblem(await line.answer, 'AUTH01', 401)
    else await expectEnd(line.stream)
  }
}

export async function expectEnd(stream: EventStream): Promise<void> {
  assert.equal(await nextOf(stream), undefined)
  await stream.close()
}

/** The device's network goes away. */
export async function cut(device: Device): Promise<void> {
  const { line } = device
  device.line = null
  if (line !== null && 'stream' in line) await line.stream.close()
}

/** Sessions that have grown too old, of which an idle stream hears late. */
export async function cutExpired(model: Model, world: World): Promise<void> {
  for (const device of everyDevice(world)) if (!isAlive(model, device.session)) await cut(device)
}

// The feed

/** True when deletions were forgotten that one who stands there was not told of. */
const isForgotten = ({ account, cursor, position, began }: Replica): boolean =>
  cursor !== null && Math.max(position, began) < account.forgotten

export function startAgain(replica: Replica): void {
  Object.assign(replica, newReplica(replica.account))
}

function toChange({ key, store, permission }: Entry, withData: boolean): object {
  if (store === undefined || permission === undefined) return { key, deleted: true }
  const { value } = store
  const hasData = withData && value.length <= INLINE_BYTES
  return { ...listed(store, permission), ...(hasData && { data: digestOf(value) }) }
}

/** As it is compared: a value by its digest. */
const comparable = ({ data, ...change }: Change): object => ({
  ...change,
  ...(data !== undefined && { data: digestOf(Buffer.from(data, 'base64')) }),
})

/** Takes in what the feed says, which has to be just what comes next in the model. */
function takeIn(model: Model, replica: Replica, changes: Change[], withData: boolean): void {
  const entries = entriesAfter(model, replica.account, replica).slice(0, changes.length)
  assert.deepEqual(
    changes.map(comparable),
    entries.map((entry) => toChange(entry, withData)),
  )
  for (const { data: _, ...change } of changes) {
    if (change.deleted === true) replica.held.delete(change.key)
    else replica.held.set(change.key, change as Listed)
  }
  replica.position = entries.at(-1)?.at ?? replica.position
}

/** What died with its OWN is buried in the background, when and in whatever order that likes. */
function hearBurials(model: Model, account: Account, changes: Change[]): void {
  const first = changes.findIndex(({ key }) => account.limbo.has(key))
  if (first === -1) return
  for (const { key } of changes.slice(first)) {
    if (account.limbo.has(key)) lose(model, account, key)
    else move(model, account, key)
  }
}

interface Reading {
  limit: number
  withData: boolean
}

function takePage(model: Model, replica: Replica, page: Page, { limit, withData }: Reading): void {
  hearBurials(model, replica.account, page.changes)
  const due = entriesAfter(model, replica.account, replica).length
  // What died with its OWN, and is still there, has its place in a page but is not shown.
  const mayBeShort = replica.account.limbo.size > 0 && page.more
  const { length } = page.changes
  assert.ok(
    length === Math.min(due, limit) || mayBeShort,
    `${length} of ${due}: ${JSON.stringify(page.changes.slice(0, 3))}`,
  )
  assert.ok(page.more || due <= limit, 'there is more')
  takeIn(model, replica, page.changes, withData)
  if (!page.more) replica.position = Math.max(replica.position, replica.began)
  replica.cursor = page.cursor
}

const queryOf = ({ cursor }: Replica, more: string[]): string =>
  `?${[...(cursor === null ? [] : [`since=${cursor}`]), ...more].join('&')}`

/** Reads so many pages, or to the end. A cursor that is too old is told so, and given up. */
export async function poll(
  model: Model,
  world: World,
  device: Device,
  { replica, pages = Infinity, ...reading }: { replica: Replica; pages?: number } & Reading,
): Promise<void> {
  const { limit, withData } = reading
  for (let n = 0; n < pages; n++) {
    const query = queryOf(replica, [`limit=${limit}`, ...(withData ? ['include=data'] : [])])
    const answer = await ask(model, world, device, (client) => client.request(`/changes${query}`))
    if (answer === null) continue
    if (isForgotten(replica)) {
      await expectProblem(answer, 'FEED01', 410)
      startAgain(replica)
      continue
    }
    if (replica.cursor === null) replica.began = model.seq
    const page = (await (await expectStatus(answer, 200)).json()) as Page
    takePage(model, replica, page, reading)
    if (!page.more) return
  }
}

/** Opens an event stream, or has a poll held that has nothing to tell yet. */
export async function listen(
  model: Model,
  device: Device,
  { as, withData }: { as: 'stream' | 'poll'; withData: boolean },
): Promise<void> {
  await cut(device)
  const { replica, session } = device
  const include = withData ? ['include=data'] : []
  use(model, session)
  device.withData = withData
  if (as === 'poll') {
    const query = queryOf(replica, ['wait=50', ...include])
    const answer = session.client.request(`/changes${query}`)
    answer.catch(() => undefined) // of one that is not waited for any more
    device.line = { answer }
    return
  }
  if (replica.cursor === null) replica.began = model.seq
  const headers = replica.cursor === null ? {} : { 'Last-Event-ID': replica.cursor }
  const query = include.length === 0 ? '' : `?${include.join()}`
  const stream = await openStream(session.client, { query, headers })
  if (!isForgotten(replica)) {
    device.line = { stream }
    return
  }
  assert.equal((await nextOf(stream))?.type, 'reset')
  await expectEnd(stream)
  startAgain(replica)
}

const nextOf = (stream: EventStream): ReturnType<EventStream['next']> =>
  stream.next().catch((error: unknown) => assert.fail(`no event: ${String(error)}`))

/** Reads what the device's line has to tell, up to so many events. */
export async function hear(model: Model, device: Device, most = Infinity): Promise<void> {
  const { line, replica, withData } = device
  if (line === null) return
  const due = entriesAfter(model, replica.account, replica).length
  if (due === 0) return
  if ('answer' in line) {
    device.line = null
    const page = (await (await expectStatus(await line.answer, 200)).json()) as Page
    assert.ok(page.changes.length > 0, 'answered without a change')
    takeIn(model, replica, page.changes, withData)
    replica.cursor = page.cursor
    return
  }
  for (let n = 0; n < Math.min(due, most); n++) {
    const event = await nextOf(line.stream)
    assert.equal(event?.type, 'change')
    takeIn(model, replica, [event.change], withData)
    replica.cursor = event.id
  }
}

/** After each command: what the feeds of all accounts say, and what is heard on open lines. */
export async function settle(model: Model, world: World, since: number): Promise<void> {
  for (const i of model.accounts.keys()) await observe(model, world, i, since)
  for (const device of everyDevice(world)) await hear(model, device)
}

async function observe(model: Model, world: World, i: number, since: number): Promise<void> {
  const observer = world.observers[i] as World['observers'][number]
  const { replica } = observer
  if (replica.account.isDeleted) return
  if (observer.session.expires < model.now + IDLE_MS / 2) {
    observer.session = newSession(model, await openSession(world.node, replica.account))
  }
  if (replica.cursor === null) replica.began = model.seq
  const page = await readPage(
    observer.session.client,
    queryOf(replica, ['limit=1000', 'include=data']),
  )
  for (const { key, modified } of page.changes) {
    const store = model.stores.get(key)
    if (store === undefined || modified === undefined || store.modified !== undefined) continue
    assert.ok(modified >= since && modified <= world.node.running.deps.clock.wall())
    store.modified = modified
  }
  takePage(model, replica, page, { limit: 1000, withData: true })
}

// Answers

export async function expectRefusal(answer: Response, refusal: Refusal): Promise<void> {
  await expectProblem(answer, refusal.code, refusal.status)
  if (refusal.code === 'KEY01') assert.deepEqual(versionOf(answer), refusedVersion(refusal.current))
}

const versionOf = ({ headers }: Response) => ({
  token: headers.get('x-sync-token') ?? undefined,
  etag: headers.get('etag') ?? undefined,
  digest: headers.get('repr-digest') ?? undefined,
  meta: headers.get('x-sync-meta') ?? undefined,
})

const refusedVersion = (store: Store | undefined): ReturnType<typeof versionOf> => ({
  token: store?.token,
  etag: store && `"${store.token}"`,
  digest: store && digestOf(store.value),
  meta: store?.meta,
})

/** Looks at all that an account can see: listing, feed from the beginning, values, members. */
export async function expectAll(
  model: Model,
  world: World,
  device: Device,
  reading: Reading,
): Promise<void> {
  const { account } = device
  const answer = await ask(model, world, device, (client) => client.request('/store'))
  if (answer === null) return expectAll(model, world, device, reading)
  assert.equal(answer.headers.get('x-sync-quota-used'), String(used(model, account)))
  assert.deepEqual(await answer.json(), list(model, account))
  const fresh = newReplica(account)
  await poll(model, world, device, { replica: fresh, ...reading })
  expectSame(model, fresh)
  for (const name of account.names.keys()) {
    await expectStore(model, device, name, account.names.get(name))
  }
  for (const { key } of list(model, account)) await expectStore(model, device, key, key)
}

/** A replica that was told all has what the account has. */
export function expectSame(model: Model, { account, held }: Replica): void {
  assert.deepEqual(
    [...held.values()].toSorted((a, b) => (a.key < b.key ? -1 : 1)),
    list(model, account),
  )
}

async function expectStore(
  model: Model,
  { account, session: { client } }: Device,
  path: string,
  key: string | undefined,
): Promise<void> {
  const store = model.stores.get(key ?? '')
  const answer = await client.get(path)
  const members = await client.request(`/permission/${encodeURIComponent(path)}`)
  if (store === undefined || !store.members.has(account)) {
    for (const one of [answer, members]) await expectProblem(one, 'ERR01', 404)
    return
  }
  await expectStatus(answer, 200)
  assert.deepEqual(versionOf(answer), refusedVersion(store))
  assert.ok(store.value.equals(Buffer.from(await answer.arrayBuffer())))
  assert.deepEqual(
    await members.json(),
    [...store.members]
      .map(([{ user }, permission]) => ({ user, permission, current: user === account.user }))
      .toSorted((a, b) => (a.user < b.user ? -1 : 1)),
  )
}
