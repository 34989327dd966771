// Owns a workload: people who write, delete, share and read their feeds all at once, and a record of
// what they were told. Each value's meta names its store and the write, as an app would do it.
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Change } from '../helpers/feed.ts'
import { PASSWORD } from '../helpers/node.ts'
import { FAR, Wrong, begin, settle, type Mark, type Observed, type Recorded } from './history.ts'

export interface Context {
  url: string
  recorded: Recorded
  /** Below so many, evenly, and the same again for the same seed. */
  random: (below: number) => number
  mark: () => Mark
  /** A step takes up to so long more: how much is written in a while. */
  restMs: number
}

export interface Person {
  id: string
  user: string
  token: string
  stores: Map<string, { token: string; grants: Map<string, string> }>
  feed: { cursor: string | undefined; known: Map<string, string> }
}

export class Refused extends Wrong {}

const NAMES_EACH = 10
const MOST_ATTEMPTS = 10
const PERMISSIONS = ['READ', 'WRITE', 'OWN']

/** A new account, which stays. */
export async function signUp(context: Context, id: string): Promise<Person> {
  const { recorded, mark } = context
  const answer = await call(context, '/account', {
    method: 'POST',
    body: JSON.stringify({ id, password: PASSWORD }),
  })
  const { user, token } = (await answer.json()) as { user: string; token: string }
  const at = mark()
  begin(recorded, 0, {
    [`account ${user}`]: 'enabled',
    [`session ${digestOf(token)}`]: user,
  }).confirm(at)
  recorded.people.push({ user, token })
  return { id, user, token, stores: new Map(), feed: { cursor: undefined, known: new Map() } }
}

export const digestOf = (secret: string): string =>
  createHash('sha256').update(secret).digest('base64url')

/** A failed connection throws what fetch throws; any answer but a 2xx is Refused, in the end. */
async function call(
  { url }: Pick<Context, 'url'>,
  path: string,
  init: RequestInit & { as?: Person } = {},
  attempt = 1,
): Promise<Response> {
  const { as, ...rest } = init
  const headers = {
    ...(rest.headers as Record<string, string>),
    ...(as !== undefined && { Authorization: `Bearer ${as.token}` }),
  }
  const answer = await fetch(url + path, { ...rest, headers })
  if (answer.ok) return answer
  const text = await answer.text()
  // A command beside the server can hold the database for longer than a slow machine's patience.
  if (text.includes('ERR05') && attempt < MOST_ATTEMPTS) {
    await pause(1000)
    return call({ url }, path, init, attempt + 1)
  }
  throw new Refused(`${path}: ${answer.status} ${text}`)
}

/** All write until `isOver`. Throws Wrong, also for a connection that ends earlier than that. */
export async function work(
  context: Context,
  people: Person[],
  isOver: () => boolean,
): Promise<void> {
  const { random, restMs } = context
  await Promise.all(
    people.flatMap((self) =>
      // Two clients of each, on names of their own.
      [0, 1].map(async (half) => {
        while (!isOver()) {
          try {
            await pause(random(restMs + 1))
            await step(context, self, { others: people.filter((one) => one !== self), half })
          } catch (error) {
            if (error instanceof Wrong) throw error
            if (!isOver()) throw new Wrong(`no answer: ${String((error as Error).cause ?? error)}`)
          }
        }
      }),
    ),
  )
}

interface Where {
  others: Person[]
  half: number
}

async function step(context: Context, self: Person, { others, half }: Where): Promise<void> {
  const { random } = context
  const name = (n = random(NAMES_EACH / 2)): string => `${self.id}/${half * 5 + n}`
  const what = random(100)
  if (what < 35) return put(context, self, name(), 1 + random(random(4) === 0 ? 16_384 : 2000))
  if (what < 55) {
    return put(context, self, name(), 16_385 + random(random(40) === 0 ? 150_000 : 4000))
  }
  if (what < 68) return remove(context, self, name())
  if (what < 80) return batch(context, self, new Set([name(), name(), name(), name()]))
  if (what < 93) return share(context, self, name(), others[random(others.length)] as Person)
  if (half === 0) return readFeed(context, self)
  await pause(1)
}

function makeValue({ recorded }: Context, name: string, bytes: number) {
  const value = randomBytes(bytes)
  const id = `${name}:${randomBytes(6).toString('hex')}`
  recorded.digests[id] = createHash('sha256').update(value).digest('hex')
  return { value, id }
}

/** What a write of this value changes. */
const written = (self: Person, name: string, id: string): Record<string, string> => ({
  [`store ${name}`]: id,
  ...(self.stores.has(name) ? {} : { [`permission ${name} ${self.user}`]: 'OWN' }),
})

const removed = (self: Person, name: string): Record<string, null> =>
  Object.fromEntries([
    [`store ${name}`, null],
    [`permission ${name} ${self.user}`, null],
    ...[...(self.stores.get(name)?.grants.keys() ?? [])].map((user) => [
      `permission ${name} ${user}`,
      null,
    ]),
  ])

async function put(context: Context, self: Person, name: string, bytes: number): Promise<void> {
  const { recorded, mark } = context
  const { value, id } = makeValue(context, name, bytes)
  const before = self.stores.get(name)
  const pending = begin(recorded, mark(), written(self, name, id))
  const answer = await call(context, `/store/${name}`, {
    method: 'PUT',
    as: self,
    body: value as NonNullable<RequestInit['body']>,
    headers: {
      'X-Sync-Meta': id,
      ...(before === undefined ? { 'If-None-Match': '*' } : { 'X-Sync-Token': before.token }),
    },
  })
  const token = answer.headers.get('x-sync-token') ?? ''
  pending.confirm(mark(), { [`store ${name}`]: token })
  self.stores.set(name, { token, grants: before?.grants ?? new Map() })
}

async function remove(context: Context, self: Person, name: string): Promise<void> {
  const { recorded, mark } = context
  const store = self.stores.get(name)
  if (store === undefined) return
  const pending = begin(recorded, mark(), removed(self, name))
  await call(context, `/store/${name}`, {
    method: 'DELETE',
    as: self,
    headers: { 'X-Sync-Token': store.token },
  })
  pending.confirm(mark())
  self.stores.delete(name)
}

async function batch(context: Context, self: Person, names: Set<string>): Promise<void> {
  const { recorded, mark, random } = context
  const changes: Record<string, string | null> = {}
  const operations = [...names].map((name) => {
    const store = self.stores.get(name)
    const what = random(4)
    if (store !== undefined && what === 0) return { check: name, token: store.token }
    if (store !== undefined && what === 1) {
      Object.assign(changes, removed(self, name))
      return { delete: name, token: store.token }
    }
    const { value, id } = makeValue(context, name, 1 + random(8000))
    Object.assign(changes, written(self, name, id))
    const data = value.toString('base64')
    return { put: name, token: store?.token ?? null, meta: id, data }
  })
  const pending = begin(recorded, mark(), changes)
  const answer = await call(context, '/batch', {
    method: 'POST',
    as: self,
    body: JSON.stringify({ operations }),
  })
  const { results } = (await answer.json()) as { results: { token?: string }[] }
  const tokens: Record<string, string> = {}
  for (const [index, operation] of operations.entries()) {
    const { token = '' } = results[index] ?? {}
    if ('delete' in operation) self.stores.delete(operation.delete ?? '')
    if (!('put' in operation)) continue
    const name = operation.put ?? ''
    tokens[`store ${name}`] = token
    self.stores.set(name, { token, grants: self.stores.get(name)?.grants ?? new Map() })
  }
  pending.confirm(mark(), tokens)
}

/** Grants, changes or takes a permission. */
async function share(context: Context, self: Person, name: string, other: Person): Promise<void> {
  const { recorded, mark, random } = context
  const store = self.stores.get(name)
  if (store === undefined) return
  const subject = `permission ${name} ${other.user}`
  const before = store.grants.get(other.user)
  const permission = PERMISSIONS[random(PERMISSIONS.length)] as string
  if (before !== undefined && random(2) === 0) {
    const pending = begin(recorded, mark(), { [subject]: null })
    await call(context, `/permission/${name}?users=${other.user}`, { method: 'DELETE', as: self })
    pending.confirm(mark())
    store.grants.delete(other.user)
  } else if (before !== permission) {
    const pending = begin(recorded, mark(), { [subject]: permission })
    await call(context, `/permission/${name}`, {
      method: 'PUT',
      as: self,
      body: JSON.stringify([{ user: other.user, permission }]),
    })
    pending.confirm(mark())
    store.grants.set(other.user, permission)
  }
}

/** Reads on where the feed was left, and keeps the cursor with what is known there. */
export async function readFeed(context: Context, self: Person): Promise<void> {
  const { recorded, mark } = context
  for (let more = true; more;) {
    const { feed } = self
    const query = feed.cursor === undefined ? '' : `?since=${feed.cursor}`
    const answer = await call(context, `/changes${query}`, { as: self })
    const page = (await answer.json()) as { cursor: string; more: boolean; changes: Change[] }
    apply(feed.known, page.changes)
    feed.cursor = page.cursor
    ;({ more } = page)
  }
  recorded.cursors.push({
    user: self.user,
    cursor: self.feed.cursor as string,
    at: mark(),
    known: [...self.feed.known],
    lostFrom: FAR,
  })
}

export function apply(known: Map<string, string>, changes: Change[]): void {
  for (const { key, deleted, permission, token } of changes) {
    if (deleted === true) known.delete(key)
    else known.set(key, `${permission} ${token}`)
  }
}

/** After a crash: what everybody sees, from the beginning of their feeds. */
export async function lookAround(context: Context, people: Person[]): Promise<Observed> {
  const observed = new Map<string, string>()
  for (const self of people) {
    const changes: Change[] = []
    for (let query = ''; ;) {
      const answer = await call(context, `/changes${query}`, { as: self })
      const page = (await answer.json()) as { cursor: string; more: boolean; changes: Change[] }
      changes.push(...page.changes)
      query = `?since=${page.cursor}`
      if (!page.more) break
    }
    self.stores.clear()
    for (const { deleted, meta = '', token = '', permission = '' } of changes) {
      if (deleted === true) continue
      const [name = ''] = meta.split(':')
      observed.set(`store ${name}`, `${meta} ${token}`)
      observed.set(`permission ${name} ${self.user}`, permission)
      if (name.startsWith(`${self.id}/`)) self.stores.set(name, { token, grants: new Map() })
    }
  }
  return observed
}

/** Goes on after a crash: what was under way is settled, and everybody knows what is there. */
export async function resume(context: Context, people: Person[]): Promise<Observed> {
  const observed = await lookAround(context, people)
  const seen = new Map(observed)
  // Of these a feed does not tell.
  for (const [subject, versions] of Object.entries(context.recorded.versions)) {
    if (/^(store|permission) /.test(subject)) continue
    const last = versions.findLast(({ sure }) => sure !== FAR)
    if (last !== undefined && last.value !== null) seen.set(subject, last.value)
  }
  settle(context.recorded, context.mark(), seen)
  for (const [subject, value] of observed) {
    const [kind, name = '', user = ''] = subject.split(' ')
    if (kind !== 'permission') continue
    for (const self of people) {
      if (self.user !== user) self.stores.get(name)?.grants.set(user, value)
    }
  }
  return seen
}
