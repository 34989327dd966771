// Owns the people of a soak and what was acknowledged to them: it is what the server has to have.
import { hash } from 'node:crypto'
import { turns } from '../../src/turns.ts'
import { Wrong, type Answer, type Ask, type Line } from './ask.ts'

export interface Store {
  name: string
  key: string
  owner: Person
  token: string
  /** What the value is made of. */
  text: string
  size: number
  digest: string
  members: Map<Person, 'READ' | 'WRITE'>
}

export interface Person {
  id: string
  password: string
  user: string
  token: string
  /** Other sessions, and when they were opened. */
  others: { token: string; day: number }[]
  stores: Store[]
  cursor: string | null
  /** Keys that changed for this account since its cursor. */
  dirty: Set<string>
  /** Keys of deleted accounts, of which the feed tells soon, and once more when all of it is gone. */
  late: Set<string>
}

/** Those who share among themselves, one request at a time. */
export interface Lane {
  line: Line
  below: (most: number) => number
  people: Person[]
  address: string
  made: number
  name: string
  day: number
  /** When sessions were opened that nobody ends: they have to go by themselves. */
  forgotten: number[]
}

// The server takes 18 at once, and refuses more.
const hashing = turns(4)

function expectStatus({ status, body }: Answer, expected: number, what: string): void {
  if (status === expected) return
  throw new Wrong(`${what}: ${status}, not ${expected}: ${body.toString().slice(0, 200)}`)
}

export async function expect(lane: Lane, expected: number, ask: Ask): Promise<Answer> {
  const answer = await lane.line.send(ask)
  expectStatus(answer, expected, `${ask.method} ${ask.path.split(/[?~]/)[0]}`)
  return answer
}

export const json = <T>({ body }: Answer): T => JSON.parse(body.toString()) as T

/** Takes its turn, since it makes the server hash a password. */
export const expectHashed = (lane: Lane, expected: number, ask: Ask): Promise<Answer> =>
  hashing(() =>
    expect(lane, expected, {
      ...ask,
      headers: { 'X-Forwarded-For': lane.address, ...ask.headers },
    }),
  )

export async function register(lane: Lane): Promise<Person> {
  const id = `${lane.name} ${++lane.made}`
  const password = `password of ${id}`
  const body = { id, password }
  const answer = await expectHashed(lane, 200, { method: 'POST', path: '/account', body })
  const { token, user } = json<{ token: string; user: string }>(answer)
  const person: Person = {
    id,
    password,
    user,
    token,
    others: [],
    stores: [],
    cursor: null,
    dirty: new Set(),
    late: new Set(),
  }
  lane.people.push(person)
  return person
}

export async function logIn(lane: Lane, { id, password }: Person): Promise<string> {
  const body = { id, password }
  const answer = await expectHashed(lane, 200, { method: 'POST', path: '/auth', body })
  return json<{ token: string }>(answer).token
}

export const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'base64')

export const valueOf = ({ text, size }: Pick<Store, 'text' | 'size'>): Buffer =>
  Buffer.alloc(size, text)

export const pathOf = ({ name, key, owner }: Store, person: Person): string =>
  `/store/${person === owner ? name : key}`

/** Everyone who reads the store is to hear of it. */
export function touch({ key, owner, members }: Store): void {
  for (const person of [owner, ...members.keys()]) person.dirty.add(key)
}
