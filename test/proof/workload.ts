// Owns a workload: people who write, delete, share and read their feeds all at once, and a record of
// what they were told.
import { setTimeout as pause } from 'node:timers/promises'
import type { Change } from '../helpers/feed.ts'
import { visit } from './guests.ts'
import { FAR, Wrong, begin, settle, type Observed } from './history.ts'
import { call, makeValue, put, removed, written, type Context, type Person } from './people.ts'

const NAMES_EACH = 10
const PERMISSIONS = ['READ', 'WRITE', 'OWN']

/** All write until `isOver`. Throws Wrong, also for a connection that ends earlier than that. */
export async function work(
  context: Context,
  people: Person[],
  isOver: () => boolean,
  beside: (() => Promise<void>)[] = [],
): Promise<void> {
  const { random, restMs } = context
  async function attempt(act: () => Promise<void>): Promise<void> {
    try {
      await act()
    } catch (error) {
      if (error instanceof Wrong) throw error
      if (!isOver()) throw new Wrong(`no answer: ${String((error as Error).cause ?? error)}`)
    }
  }
  async function goOn(act: () => Promise<void>): Promise<void> {
    while (!isOver()) {
      await pause(random(restMs + 1))
      await attempt(act)
    }
  }
  await Promise.all([
    ...beside.map(attempt),
    goOn(() => visit(context, people[0] as Person)),
    // Two clients of each, on names of their own.
    ...people.flatMap((self) => {
      const others = people.filter((one) => one !== self)
      return [0, 1].map((half) => goOn(() => step(context, self, { others, half })))
    }),
  ])
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
export async function lookAround(
  context: Pick<Context, 'url'>,
  people: Person[],
): Promise<Observed> {
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

/**
 * Goes on after a crash: what was under way is settled, and everybody knows what is there. The rows say
 * that of which no feed of theirs tells.
 */
export async function resume(
  context: Context,
  people: Person[],
  rows: Observed,
): Promise<Observed> {
  const observed = await lookAround(context, people)
  const seen = new Map(observed)
  for (const [subject, value] of rows) {
    const [kind, name = '', user] = subject.split(' ')
    const isTold =
      (kind === 'store' && people.some(({ id }) => name.startsWith(`${id}/`))) ||
      (kind === 'permission' && people.some((one) => one.user === user))
    if (!isTold) seen.set(subject, value)
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
