// Owns the histories that the checker judges: several people with many clients on the same few stores of
// a real server, which is killed now and then, as is a connection.
import * as http from 'node:http'
import * as https from 'node:https'
import { hash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { numbers } from '../helpers/random.ts'
import type { Opened } from '../helpers/remote.ts'
import type { Operation, Permission } from './model.ts'

export interface Played {
  /** By store key, each by their calls. */
  histories: Map<string, Operation[]>
  /** What no history can say: a token that was used twice, bytes that are not those of their digest. */
  faults: string[]
  /** Which value a token stands for. */
  valueOf: Map<string, string>
  unknown: number
}

export interface Play {
  url: string
  people: Opened[]
  operations: number
  clients: number
  seed: number
  /** So many times, spread over all; resolves when the server is back. */
  kills: number
  kill: () => Promise<void>
  /** The same few stores for so many operations, then others, that each has a history of its own. */
  epoch?: number
  /** The ways to the server break, besides its kills: answers get lost, and outcomes are unknown. */
  isFlaky?: boolean
}

const STORES = 3
const EPOCH = 3000
const LARGE = 20_000
const MOST_MS = 30_000

type Kind = Operation['kind'] | 'cut' | 'batch'
// Of 100 operations so many; what is cut is a write whose answer nobody waits for.
const SHARES: readonly (readonly [Kind, number])[] = [
  ['read', 40],
  ['write', 34],
  ['batch', 6],
  ['delete', 3],
  ['grant', 8],
  ['revoke', 7],
  ['cut', 2],
]

interface Asked {
  method: string
  path: string
  token: string
  headers?: Record<string, string>
  body?: Buffer
}

interface Answer {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
}

interface Store {
  name: string
  key: string
  operations: Operation[]
  /** The token and digest that somebody was shown last. */
  last: { token: string; value: string } | null
}

export async function play(o: Play): Promise<Played> {
  const below = numbers(o.seed)
  const { Agent, request } = o.url.startsWith('https:') ? https : http
  const agent = new Agent({ keepAlive: true, maxSockets: o.clients })
  const stores = new Map<string, Promise<Store>>()
  const valueOf = new Map<string, string>()
  const tokenOf = new Map<string, string>()
  const faults: string[] = []
  let begun = 0
  let back = Promise.resolve()
  let killed = 0
  let isDown = false

  async function kill(): Promise<void> {
    killed++
    isDown = true
    await o.kill()
    isDown = false
  }

  /** Whether the server was killed since, which is the only reason to get no answer. */
  function watchForKill(): () => boolean {
    const [before, wasDown] = [killed, isDown]
    return () => wasDown || isDown || killed > before
  }

  const mayLose = (isKilled: () => boolean): boolean => o.isFlaky === true || isKilled()

  /** Said on the ways that break: a healthy disk knows what became of a write. */
  const isUnknown = ({ status, body }: Answer): boolean =>
    o.isFlaky === true && status === 503 && body.includes('ERR04')

  const storeAt = (number: number): Promise<Store> => {
    const name = `${Math.floor(number / (o.epoch ?? EPOCH))}-${below(STORES)}`
    const store = stores.get(name) ?? make(name)
    stores.set(name, store)
    return store
  }

  /** Made, for its key. */
  async function make(name: string): Promise<Store> {
    const store: Store = { name, key: '', operations: [], last: null }
    const ask = { path: `/store/${name}`, token: (o.people[0] as Opened).token }
    const about = { by: 0, call: 0, answered: Infinity }
    for (let attempt = 0; ; attempt++) {
      const body = Buffer.from(`${name} made ${attempt}`)
      const writes = sha256(body)
      const write: Operation = { ...about, kind: 'write', expects: '', writes }
      const key = (await note(store, write, { ...ask, method: 'PUT', body }))?.['x-sync-key']
      if (typeof key === 'string') return Object.assign(store, { key })
      const headers = { 'X-Sync-Token': '*' }
      const remove: Operation = { ...about, kind: 'delete', expects: '*' }
      await note(store, remove, { ...ask, method: 'DELETE', headers })
    }
  }

  function send(
    { method, path, token, headers = {}, body }: Asked,
    cutAfterMs?: number,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined
      const asked = request(new URL(path, o.url), {
        method,
        agent,
        timeout: MOST_MS,
        headers: {
          ...headers,
          Authorization: `Bearer ${token}`,
          'Content-Length': String(body?.length ?? 0),
        },
      })
      asked.once('timeout', () => asked.destroy(new Error('no answer in time')))
      asked.once('error', reject)
      asked.once('response', (response) => {
        clearTimeout(timer)
        buffer(response).then((body) => {
          const { statusCode: status = 0, headers } = response
          if (isOfProxy(status, headers)) reject(new Error('the node behind the proxy is gone'))
          else resolve({ status, headers, body })
        }, reject)
      })
      asked.end(body)
      if (cutAfterMs === undefined) return
      timer = setTimeout(() => asked.destroy(new Error('cut')), cutAfterMs)
    })
  }

  /** A token stands for one value for ever, and a value for one token: each is written once. */
  function learn(store: Store, token: unknown, digest: unknown): string | undefined {
    if (typeof token !== 'string' || typeof digest !== 'string') return undefined
    const value = digest.replace(/^sha-256=:|:$/g, '')
    if ((valueOf.get(token) ?? value) !== value) faults.push(`token ${token} stands for two values`)
    if ((tokenOf.get(value) ?? token) !== token) faults.push(`value ${value} has two tokens`)
    valueOf.set(token, value)
    tokenOf.set(value, token)
    store.last = { token, value }
    return value
  }

  /** What an answer says of it; false for one that says that nothing happened. */
  function settle(store: Store, operation: Operation, answer: Answer): boolean {
    const { status, headers, body } = answer
    if (isRefused(answer)) return false
    if (isUnknown(answer)) {
      operation.answered = Infinity
      return true
    }
    operation.status = status
    if (status >= 500) faults.push(`a ${operation.kind} was answered by ${status}`)
    const isWritten = operation.kind === 'write' && status < 300
    const digest = isWritten ? operation.writes : headers['repr-digest']
    operation.shows = learn(store, headers['x-sync-token'], digest)
    if (operation.kind === 'read' && status === 200 && sha256(body) !== operation.shows) {
      faults.push('a value is not that of its digest')
    }
    return true
  }

  /** Notes it under its store when the answer is there, or none ever will be. */
  async function note(store: Store, operation: Operation, ask: Asked, cutAfterMs?: number) {
    operation.call = performance.now()
    const isKilled = watchForKill()
    try {
      const answer = await send(ask, cutAfterMs)
      operation.answered = performance.now()
      if (answer.status === 503) await back
      if (settle(store, operation, answer)) store.operations.push(operation)
      return answer.headers
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (cutAfterMs === undefined) {
        if (!mayLose(isKilled)) faults.push(`${ask.method} was not answered: ${String(error)}`)
        await back
      }
      if (operation.kind === 'read' || code === 'ECONNREFUSED') return undefined
      operation.answered = Infinity
      store.operations.push(operation)
      return undefined
    }
  }

  async function one(client: number, number: number): Promise<unknown> {
    const store = await storeAt(number)
    const by = below(10) < 5 ? 0 : below(o.people.length)
    const kind = pick(SHARES, below)
    if (kind === 'batch') return batch(client, number, store)
    const ask = { token: (o.people[by] as Opened).token, path: `/store/${pathOf(store, by)}` }
    const operation = (what: Operation['kind']): Operation => ({
      by,
      kind: what,
      call: 0,
      answered: Infinity,
    })
    if (kind === 'read') return note(store, operation(kind), { ...ask, method: 'GET' })
    if (kind === 'grant' || kind === 'revoke') {
      const whose = 1 + below(o.people.length - 1)
      const user = (o.people[whose] as Opened).user
      const path = `/permission/${pathOf(store, by)}`
      if (kind === 'revoke') {
        const asked = { ...ask, method: 'DELETE', path: `${path}?users=${user}` }
        return note(store, { ...operation(kind), whose }, asked)
      }
      const permission: Permission = below(2) === 0 ? 'READ' : 'WRITE'
      const body = Buffer.from(JSON.stringify([{ user, permission }]))
      return note(
        store,
        { ...operation(kind), whose, permission },
        { ...ask, method: 'PUT', path, body },
      )
    }
    const { expects, headers } = condition(store)
    if (kind === 'delete') {
      return note(store, { ...operation(kind), expects }, { ...ask, method: 'DELETE', headers })
    }
    const body = valueFor(client, number)
    const write = { ...operation('write'), expects, writes: sha256(body) }
    const cutAfterMs = kind === 'cut' ? below(4) : undefined
    return note(store, write, { ...ask, method: 'PUT', headers, body }, cutAfterMs)
  }

  /** Mostly the token that was seen last; sometimes none, or any. */
  function condition({ last }: Store): { expects: string; headers: Record<string, string> } {
    const chance = below(20)
    if (last === null || chance < 3) return { expects: '', headers: {} }
    if (chance === 3) return { expects: '*', headers: { 'X-Sync-Token': '*' } }
    return { expects: last.value, headers: { 'X-Sync-Token': last.token } }
  }

  /** Two stores in one transaction: to each history it is a write of its own. */
  async function batch(client: number, number: number, store: Store): Promise<void> {
    const other = await storeAt(number)
    const both = other === store ? [store] : [store, other]
    const writes = both.map((each, i) => {
      const body = Buffer.from(`${client} ${number} ${i}`)
      const { expects, headers } = condition(each)
      const token = headers['X-Sync-Token']
      const put = { put: each.name, data: body.toString('base64'), ...(token && { token }) }
      return { each, body, expects, put }
    })
    const call = performance.now()
    const noteEach = (result: (i: number) => Partial<Operation> | null): void =>
      writes.forEach(({ each, body, expects }, i) => {
        const known = result(i)
        if (known === null) return
        each.operations.push({
          by: 0,
          kind: 'write',
          inBatch: true,
          call,
          answered: performance.now(),
          expects,
          writes: sha256(body),
          ...known,
        })
      })
    const isKilled = watchForKill()
    try {
      const answer = await send({
        method: 'POST',
        path: '/batch',
        token: (o.people[0] as Opened).token,
        body: Buffer.from(JSON.stringify({ operations: writes.map(({ put }) => put) })),
      })
      if (answer.status === 503) await back
      if (isRefused(answer)) return
      if (isUnknown(answer)) return noteEach(() => ({ answered: Infinity }))
      const { status } = answer
      const { results, failed = [] } = readBatch(answer, writes.length)
      noteEach((i) => {
        const { each, body: written } = writes[i] as (typeof writes)[number]
        if (results !== undefined) {
          learn(each, results[i]?.token, sha256(written))
          return { status }
        }
        const failure = failed.find(({ index }) => index === i)
        if (failure === undefined) return null
        return { status: 412, shows: learn(each, failure.token, failure.digest) }
      })
    } catch (error) {
      if (error instanceof NotDocumented || !mayLose(isKilled)) {
        faults.push(`POST /batch: ${String(error)}`)
      }
      await back
      if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') return
      noteEach(() => ({ answered: Infinity }))
    }
  }

  const every = Math.ceil(o.operations / (o.kills + 1))

  async function client(number: number): Promise<void> {
    while (begun < o.operations) {
      const at = begun++
      if (at > 0 && at % every === 0) back = kill()
      await one(number, at)
    }
  }

  await Promise.all(Array.from({ length: o.clients }, (_, i) => client(i)))
  agent.destroy()
  const all = await Promise.all(stores.values())
  const histories = new Map(
    all.map(({ key, operations }) => [key, operations.toSorted((a, b) => a.call - b.call)]),
  )
  const unknown = all
    .flatMap(({ operations }) => operations)
    .filter((op) => op.answered === Infinity)
  return { histories, faults, valueOf, unknown: unknown.length }
}

interface BatchAnswer {
  code?: string
  results?: { token?: string }[]
  failed?: { index: number; code: string; token?: string; digest?: string }[]
}

class NotDocumented extends Error {}

/** The only answers that a batch of puts by their owner may have: all of it, or which were in the way. */
function readBatch({ status, body }: Answer, count: number): BatchAnswer {
  const text = body.toString()
  try {
    const answer = JSON.parse(text) as BatchAnswer
    const { code, results, failed = [] } = answer
    const isDone = status === 200 && results?.length === count
    const isRefusal = (status === 412 || status === 428) && code === 'KEY01' && failed.length > 0
    if (isDone || (isRefusal && failed.every((one) => one.code === 'KEY01'))) return answer
  } catch {
    // is not JSON
  }
  throw new NotDocumented(`answered ${status} ${text.slice(0, 300)}`)
}

/** Too busy, or too often: nothing happened. */
const isRefused = ({ status, headers, body }: Answer): boolean =>
  headers['retry-after'] !== undefined &&
  ((status === 503 && body.includes('ERR05')) || (status === 429 && body.includes('RATE01')))

/** Who made it says its name, by which it can be made again; others know it by its key. */
const pathOf = ({ name, key }: Store, by: number): string => (by === 0 ? name : key)

/** Said by a proxy of a node that did not answer it. */
const isOfProxy = (status: number, headers: http.IncomingHttpHeaders): boolean =>
  [502, 504].includes(status) && headers['content-type'] !== 'application/problem+json'

const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'base64')

/** Unique; one in ten goes into a file. */
function valueFor(client: number, number: number): Buffer {
  const text = Buffer.from(`${client} ${number}`)
  return number % 10 === 0 ? Buffer.concat([text, Buffer.alloc(LARGE)]) : text
}

function pick<T>(shares: readonly (readonly [T, number])[], below: (n: number) => number): T {
  let left = below(shares.reduce((sum, [, share]) => sum + share, 0))
  for (const [value, share] of shares) {
    left -= share
    if (left < 0) return value
  }
  throw new Error('no shares')
}
