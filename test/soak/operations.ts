// Owns the operations of a soak: each with how often it comes, and what its answer has to be.
import { Wrong, type Answer } from './ask.ts'
import {
  expect,
  expectHashed,
  json,
  logIn,
  pathOf,
  register,
  sha256,
  touch,
  valueOf,
  type Lane,
  type Person,
  type Store,
} from './people.ts'

const STORES_EACH = 12
const INLINE = 16_384
export const MAX_VALUE_BYTES = 4 * 1024 * 1024

/** Thrown when there is nothing to do it with. */
const NOTHING = new Error('another time')

type Operation = (lane: Lane, person: Person) => Promise<void>

const one = <T>(lane: Lane, list: readonly T[]): T | undefined => list[lane.below(list.length)]

const small = ({ size }: Store): boolean => size <= INLINE
const large = (store: Store): boolean => !small(store)

function pick(lane: Lane, { stores }: Person, which: (store: Store) => boolean): Store {
  const store = one(lane, stores.filter(which))
  if (store === undefined) throw NOTHING
  return store
}

/** A third of a person's stores are files. */
function draw(lane: Lane, isLarge: boolean): Pick<Store, 'text' | 'size'> {
  const size = isLarge ? INLINE + 1 + lane.below(120_000) : lane.below(2000)
  return { text: `${lane.name} ${lane.below(2 ** 31)} `, size }
}

function expectValue(store: Store, { headers, body }: Answer): void {
  if (sha256(body) !== store.digest) throw new Wrong('a value is not the one acknowledged last')
  if (headers['x-sync-token'] !== store.token) throw new Wrong('a token is not the newest')
}

function learn(store: Store, answer: Answer, drawn: Pick<Store, 'text' | 'size'>): void {
  Object.assign(store, drawn, {
    token: String(answer.headers['x-sync-token']),
    digest: sha256(valueOf(drawn)),
  })
  touch(store)
}

async function create(lane: Lane, person: Person): Promise<Store> {
  const files = person.stores.filter(large).length
  const drawn = draw(lane, files < STORES_EACH / 3)
  const name = `store-${++lane.made}`
  const answer = await expect(lane, 201, {
    method: 'PUT',
    path: `/store/${name}`,
    token: person.token,
    body: valueOf(drawn),
  })
  const store: Store = {
    name,
    key: String(answer.headers['x-sync-key']),
    owner: person,
    members: new Map(),
    token: '',
    digest: '',
    ...drawn,
  }
  person.stores.push(store)
  learn(store, answer, drawn)
  return store
}

const get =
  (which: (store: Store) => boolean): Operation =>
  async (lane, person) => {
    const store = pick(lane, person, which)
    const reader = one(lane, [person, ...store.members.keys()]) as Person
    const path = pathOf(store, reader)
    expectValue(store, await expect(lane, 200, { method: 'GET', path, token: reader.token }))
  }

const put =
  (which: (store: Store) => boolean): Operation =>
  async (lane, person) => {
    const store = pick(lane, person, which)
    const writers = [...store.members].filter(([, permission]) => permission === 'WRITE')
    const writer = one(lane, [person, ...writers.map(([member]) => member)]) as Person
    const drawn = draw(lane, large(store))
    const answer = await expect(lane, 204, {
      method: 'PUT',
      path: pathOf(store, writer),
      token: writer.token,
      headers: { 'X-Sync-Token': store.token },
      body: valueOf(drawn),
    })
    learn(store, answer, drawn)
  }

const range: Operation = async (lane, person) => {
  const store = pick(lane, person, large)
  const start = lane.below(store.size)
  const end = start + lane.below(store.size - start)
  const { body } = await expect(lane, 206, {
    method: 'GET',
    path: pathOf(store, person),
    token: person.token,
    headers: { Range: `bytes=${start}-${end}` },
  })
  if (!body.equals(valueOf(store).subarray(start, end + 1))) throw new Wrong('a range is wrong')
}

/** A request on one of the person's stores that has to be answered so. */
const answered =
  (
    status: number,
    method: string,
    headersOf: (store: Store) => Record<string, string>,
  ): Operation =>
  async (lane, person) => {
    const store = pick(lane, person, () => true)
    const headers = headersOf(store)
    const path = pathOf(store, person)
    const body = method === 'PUT' ? { body: Buffer.from('refused') } : {}
    await expect(lane, status, { method, path, token: person.token, headers, ...body })
  }

const comeAndGo: Operation = async (lane, person) => {
  if (person.stores.length < STORES_EACH) return void (await create(lane, person))
  const at = lane.below(person.stores.length)
  const store = person.stores[at] as Store
  await expect(lane, 204, {
    method: 'DELETE',
    path: pathOf(store, person),
    token: person.token,
    headers: { 'X-Sync-Token': store.token },
  })
  person.stores.splice(at, 1)
  touch(store)
}

const batch: Operation = async (lane, person) => {
  const stores = person.stores.filter(small).slice(0, 1 + lane.below(4))
  if (stores.length === 0) throw NOTHING
  const drawn = stores.map(() => draw(lane, false))
  const operations = stores.map(({ name, token }, i) => {
    const data = valueOf(drawn[i] as Store).toString('base64')
    return { put: name, token, data }
  })
  const ask = { method: 'POST', path: '/batch', token: person.token }
  const answer = await expect(lane, 200, { ...ask, body: { operations } })
  const { results } = json<{ results: { token: string }[] }>(answer)
  for (const [i, store] of stores.entries()) {
    const headers = { 'x-sync-token': results[i]?.token as string }
    learn(store, { ...answer, headers }, drawn[i] as Store)
  }
}

interface Change {
  key: string
  token?: string
  deleted?: true
}

/** All that the person can see. */
function visible(lane: Lane, person: Person): Map<string, string> {
  const stores = lane.people.flatMap((one) => one.stores)
  const seen = stores.filter(({ owner, members }) => owner === person || members.has(person))
  return new Map(seen.map(({ key, token }) => [key, token]))
}

/** A change is told once, and as it is now. */
function expectChanges(lane: Lane, person: Person, changes: Change[]): void {
  const now = visible(lane, person)
  for (const { key, token } of changes) {
    if (now.get(key) !== token) throw new Wrong('the feed tells of a state that is not the newest')
    const isDue = person.dirty.delete(key)
    if (!isDue && !person.late.has(key)) throw new Wrong('the feed tells of what has not changed')
  }
}

const poll: Operation = async (lane, person) => {
  const since = person.cursor === null ? '' : `?since=${person.cursor}`
  if (since === '') person.dirty = new Set(visible(lane, person).keys())
  const ask = { method: 'GET', path: `/changes${since}`, token: person.token }
  const page = json<{ cursor: string; changes: Change[] }>(await expect(lane, 200, ask))
  expectChanges(lane, person, page.changes)
  if (person.dirty.size > 0) throw new Wrong('the feed does not tell of a change')
  person.cursor = page.cursor
}

/** Held until the write that follows. */
const heldPoll: Operation = async (lane, person) => {
  await poll(lane, person)
  const path = `/changes?since=${person.cursor}&wait=50`
  const held = lane.line.send({ method: 'GET', path, token: person.token })
  const [answer] = await Promise.all([held, comeAndGo(lane, person)])
  const page = json<{ changes: Change[] }>(answer)
  if (page.changes.length === 0) throw new Wrong('a held poll was answered with nothing')
}

const stream: Operation = async (lane, person) => {
  await poll(lane, person)
  const response = await lane.line.open({
    method: 'GET',
    path: `/changes?since=${person.cursor}`,
    token: person.token,
    headers: { Accept: 'text/event-stream' },
  })
  const told = new Promise<void>((resolve, reject) => {
    response.once('close', () => reject(new Wrong('an event stream ended')))
    response.on('error', () => undefined)
    let text = ''
    response.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (/event: change\n[^]*\n\n/.test(text)) resolve()
    })
  })
  told.catch(() => undefined)
  try {
    await put(small)(lane, person)
    await told
  } finally {
    response.destroy()
  }
}

const list: Operation = async (lane, person) => {
  const ask = { method: 'GET', path: '/store', token: person.token }
  const listed = json<{ key: string; token: string }[]>(await expect(lane, 200, ask))
  const now = visible(lane, person)
  const isSame = listed.every(({ key, token }) => now.get(key) === token)
  if (!isSame || listed.length !== now.size) throw new Wrong('a list is not what was acknowledged')
}

const permissionPath = ({ name }: Store): string => `/permission/${name}`

const grant: Operation = async (lane, person) => {
  const store = pick(lane, person, () => true)
  const member = one(lane, lane.people)
  if (member === undefined || member === person) throw NOTHING
  const permission = lane.below(2) === 0 ? 'READ' : 'WRITE'
  await expect(lane, 200, {
    method: 'PUT',
    path: permissionPath(store),
    token: person.token,
    body: [{ user: member.user, permission }],
  })
  if (store.members.get(member) !== permission) member.dirty.add(store.key)
  store.members.set(member, permission)
}

const shared = ({ members }: Store): boolean => members.size > 0

const revoke: Operation = async (lane, person) => {
  const store = pick(lane, person, shared)
  const [member] = [...store.members.keys()] as [Person]
  const path = `${permissionPath(store)}?users=${member.user}`
  await expect(lane, 204, { method: 'DELETE', path, token: person.token })
  store.members.delete(member)
  member.dirty.add(store.key)
}

const permissions: Operation = async (lane, person) => {
  const store = pick(lane, person, () => true)
  const ask = { method: 'GET', path: permissionPath(store), token: person.token }
  const { length } = json<object[]>(await expect(lane, 200, ask))
  if (length !== store.members.size + 1) throw new Wrong('a store has too few or too many members')
}

const forbidden: Operation = async (lane, person) => {
  const reads = ([, permission]: [Person, string]): boolean => permission === 'READ'
  const store = pick(lane, person, ({ members }) => [...members].some(reads))
  const [reader] = [...store.members].find(reads) as [Person, string]
  const ask = { method: 'PUT', path: pathOf(store, reader), token: reader.token }
  await expect(lane, 403, { ...ask, body: Buffer.from('not mine') })
}

const tooLarge: Operation = async (lane, person) => {
  const headers = { 'Content-Length': String(MAX_VALUE_BYTES + 1) }
  const ask = { method: 'PUT', path: '/store/too-large', token: person.token, headers }
  const status = await lane.line.claim(ask)
  if (status !== 413) throw new Wrong(`a value that is too large: ${status}`)
}

const abortedUpload: Operation = async (lane, person) => {
  const store = pick(lane, person, large)
  await lane.line.breakOff({
    method: 'PUT',
    path: pathOf(store, person),
    token: person.token,
    headers: { 'X-Sync-Token': store.token },
    body: valueOf(draw(lane, true)),
  })
}

const abortedDownload: Operation = async (lane, person) => {
  const store = pick(lane, person, large)
  const ask = { method: 'GET', path: pathOf(store, person), token: person.token }
  const response = await lane.line.open(ask)
  response.on('error', () => undefined)
  response.destroy()
}

const sessions: Operation = async (lane, person) => {
  const ask = { method: 'GET', path: '/account', token: person.token }
  const { length } = json<object[]>(await expect(lane, 200, ask))
  if (length < person.others.length + 1) throw new Wrong('a session is missing')
}

const login: Operation = async (lane, person) => {
  const token = await logIn(lane, person)
  // Now and then a device is lost: its session ends by itself.
  if (lane.below(4) === 0) lane.forgotten.push(lane.day)
  else person.others.push({ token, day: lane.day })
}

const logout: Operation = async (lane, person) => {
  const token = person.others.shift()?.token
  if (token === undefined) throw NOTHING
  await expect(lane, 204, { method: 'DELETE', path: '/auth', token })
  await expect(lane, 401, { method: 'GET', path: '/store', token })
}

const endSession: Operation = async (lane, person) => {
  const token = person.others.shift()?.token
  if (token === undefined) throw NOTHING
  const ask = { method: 'GET', path: '/account', token }
  const all = json<{ token: string; current: boolean }[]>(await expect(lane, 200, ask))
  const handle = all.find(({ current }) => current)?.token
  await expect(lane, 204, { method: 'DELETE', path: `/auth/${handle}`, token: person.token })
  await expect(lane, 401, { ...ask })
}

const changePassword: Operation = async (lane, person) => {
  const password = `password ${lane.below(2 ** 31)}`
  const body = { password, current: person.password }
  const ask = { method: 'POST', path: '/password', token: person.token }
  await expectHashed(lane, 204, { ...ask, body })
  person.password = password
  const [other] = person.others
  person.others = []
  const { token = person.token } = other ?? {}
  const status = other === undefined ? 200 : 401
  await expect(lane, status, { method: 'GET', path: '/store', token })
}

/** Somebody goes, and somebody else comes. */
const replace: Operation = async (lane, person) => {
  const token = await logIn(lane, person)
  await expect(lane, 204, { method: 'DELETE', path: '/account', token })
  lane.people.splice(lane.people.indexOf(person), 1)
  // Those who read its stores hear of it a little later.
  for (const { key, members } of person.stores) {
    for (const member of members.keys()) {
      member.dirty.delete(key)
      member.late.add(key)
    }
  }
  person.stores = []
  for (const { stores } of lane.people) for (const { members } of stores) members.delete(person)
  await register(lane)
}

const wrongLogin: Operation = async (lane, { id }) => {
  const body = { id, password: 'not the password' }
  await expectHashed(lane, 401, { method: 'POST', path: '/auth', body })
}

/** Without a person's doing. */
const plain =
  (status: number, path: string, token?: string): Operation =>
  async (lane, person) =>
    void (await expect(lane, status, { method: 'GET', path, token: token ?? person.token }))

/** Of 10,000 operations so many. */
const OPERATIONS: readonly (readonly [string, number, Operation])[] = [
  ['GET of a small value', 2600, get(small)],
  ['GET of a file', 350, get(large)],
  [
    'GET that is not modified',
    900,
    answered(304, 'GET', ({ token }) => ({ 'If-None-Match': `"${token}"` })),
  ],
  ['GET of a range', 350, range],
  ['GET that is broken off', 40, abortedDownload],
  ['HEAD', 130, answered(200, 'HEAD', () => ({}))],
  ['PUT of a small value', 1900, put(small)],
  ['PUT of a file', 200, put(large)],
  ['PUT that is broken off', 60, abortedUpload],
  ['create or delete a store', 600, comeAndGo],
  ['batch', 250, batch],
  ['changes', 1500, poll],
  ['changes, held', 20, heldPoll],
  ['event stream', 60, stream],
  ['list', 100, list],
  ['permissions', 50, permissions],
  ['grant', 110, grant],
  ['revoke', 80, revoke],
  ['sessions', 60, sessions],
  ['login', 4, login],
  ['logout', 2, logout],
  ['end a session', 2, endSession],
  ['change of password', 1, changePassword],
  ['account deleted, another registered', 1, replace],
  ['login refused', 1, wrongLogin],
  ['health', 30, plain(200, '/health')],
  ['401', 100, plain(401, '/store', 'no such token')],
  ['403', 60, forbidden],
  ['404', 100, plain(404, '/store/no-such-store')],
  ['412', 150, answered(412, 'PUT', () => ({ 'X-Sync-Token': '0' }))],
  ['413', 20, tooLarge],
  ['416', 30, answered(416, 'GET', ({ size }) => ({ Range: `bytes=${size + 1}-` }))],
  ['428', 50, answered(428, 'PUT', () => ({}))],
]

const TOTAL = OPERATIONS.reduce((sum, [, share]) => sum + share, 0)

/** Does one of them, as the numbers fall; answers its name. */
export async function operate(lane: Lane): Promise<string> {
  for (;;) {
    const person = one(lane, lane.people) as Person
    let left = lane.below(TOTAL)
    const drawn = OPERATIONS.find(([, share]) => (left -= share) < 0)
    const [name, , work] = drawn as (typeof OPERATIONS)[number]
    try {
      await work(lane, person)
      return name
    } catch (error) {
      if (error !== NOTHING) throw new Wrong(`${name}: ${(error as Error).message}`)
    }
  }
}

/** A lane with its first people and their stores. */
export async function settle(lane: Lane, people: number): Promise<void> {
  for (let i = 0; i < people; i++) {
    const person = await register(lane)
    while (person.stores.length < STORES_EACH) await create(lane, person)
  }
}

/** Reads all; answers how many stores are not as acknowledged last. */
export async function readAll(lane: Lane): Promise<{ read: number; lost: number }> {
  let [read, lost] = [0, 0]
  for (const person of lane.people) {
    for (const store of person.stores) {
      const ask = { method: 'GET', path: pathOf(store, person), token: person.token }
      const answer = await lane.line.send(ask)
      const { status, headers, body } = answer
      const isKept = headers['x-sync-token'] === store.token && sha256(body) === store.digest
      if (status !== 200 || !isKept) lost++
      read++
    }
  }
  return { read, lost }
}
