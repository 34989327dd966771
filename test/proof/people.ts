// Owns the people of a workload: how they ask, what they know, and a write of theirs, of which each
// value's meta names its store and the write, as an app would do it.
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { PASSWORD } from '../helpers/node.ts'
import { Wrong, begin, type Mark, type Recorded } from './history.ts'

export interface Context {
  url: string
  recorded: Recorded
  /** Below so many, evenly, and the same again for the same seed. */
  random: (below: number) => number
  mark: () => Mark
  /** A step takes up to so long more: how much is written in a while. */
  restMs: number
  guests: Guests
}

export interface Person {
  id: string
  user: string
  token: string
  stores: Map<string, { token: string; grants: Map<string, string> }>
  feed: { cursor: string | undefined; known: Map<string, string> }
}

export class Refused extends Wrong {}

export interface Guests {
  /** How many there were. */
  count: number
  now: Guest | null
  /** Secrets that nobody has used. */
  invitations: string[]
}

export interface Guest extends Person {
  password: string
  /** The tokens of its other sessions. */
  others: string[]
  changes: number
}

const MIB = 1024 * 1024
const MOST_ATTEMPTS = 10

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
  recorded.people.push({ id, user, token })
  return { id, user, token, stores: new Map(), feed: { cursor: undefined, known: new Map() } }
}

export const digestOf = (secret: string): string =>
  createHash('sha256').update(secret).digest('base64url')

/** A failed connection throws what fetch throws; any answer but a 2xx is Refused, in the end. */
export async function call(
  { url }: Pick<Context, 'url'>,
  path: string,
  init: RequestInit & { as?: { token: string } } = {},
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

export function makeValue({ recorded }: Context, name: string, bytes: number) {
  const value = randomBytes(bytes)
  const id = `${name}:${randomBytes(6).toString('hex')}`
  recorded.digests[id] = createHash('sha256').update(value).digest('hex')
  return { value, id }
}

/** What a write of this value changes. */
export const written = (self: Person, name: string, id: string): Record<string, string> => ({
  [`store ${name}`]: id,
  ...(self.stores.has(name) ? {} : { [`permission ${name} ${self.user}`]: 'OWN' }),
})

export const removed = (self: Person, name: string): Record<string, null> =>
  Object.fromEntries([
    [`store ${name}`, null],
    [`permission ${name} ${self.user}`, null],
    ...[...(self.stores.get(name)?.grants.keys() ?? [])].map((user) => [
      `permission ${name} ${user}`,
      null,
    ]),
  ])

export async function put(
  context: Context,
  self: Person,
  name: string,
  bytes: number,
): Promise<void> {
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

/** One that is synced while the rest of it comes in; then another in its place. */
export const putVast = (context: Context, self: Person): Promise<void> =>
  put(context, self, `${self.id}/vast`, (9 + context.random(11)) * MIB + 1)
