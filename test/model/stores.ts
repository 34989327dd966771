// Owns the commands on stores: written, deleted, shared, one by one and in batches.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { post } from '../helpers/ask.ts'
import { encodeKey, type Client } from '../helpers/client.ts'
import { expectProblem, expectStatus } from '../helpers/expect.ts'
import { ACCOUNTS, command, existing, resolve, target, type Target } from './command.ts'
import {
  NOT_FOUND,
  digestOf,
  grant,
  placeOf,
  refusalOf,
  refusalOfMembers,
  remove,
  revoke,
  used,
  write,
  type Account,
  type Condition,
  type Model,
  type Permission,
  type Place,
  type Refusal,
} from './model.ts'
import { ask, everyDevice, expectRefusal, isAlive, type Device, type World } from './world.ts'

const LARGE = 16_385
const NOBODY = 'nobody'
const UNHEARD = '0'.repeat(26)

// Values

type Saying = { says: 'right' | 'stale' | 'any' | 'none' | 'new'; nth: number }

const sayings = (rightWeight: number): fc.Arbitrary<Saying> =>
  fc.record({
    says: fc.oneof(
      { weight: rightWeight, arbitrary: fc.constant('right' as const) },
      { weight: 1, arbitrary: fc.constantFrom('stale', 'any', 'none', 'new') },
    ),
    nth: fc.nat(1000),
  })

const saying = sayings(2)

function toCondition(model: Model, { store }: Place, { says, nth }: Saying): Condition {
  if (says === 'any' || says === 'none' || says === 'new') return { kind: says }
  if (says === 'stale') {
    return { kind: 'match', token: model.tokens[nth % model.tokens.length] ?? UNHEARD }
  }
  return store === undefined ? { kind: 'none' } : { kind: 'match', token: store.token }
}

function toHeaders(condition: Condition, isEtag: boolean): Record<string, string> {
  if (condition.kind === 'none') return {}
  if (condition.kind === 'new') return { 'If-None-Match': '*' }
  const [token, tag] =
    condition.kind === 'match' ? [condition.token, `"${condition.token}"`] : ['*', '*']
  return isEtag ? { 'If-Match': tag } : { 'X-Sync-Token': token }
}

/** A value that no other write has, unless it is empty. */
const valueOf = (model: Model, size: number): Buffer =>
  Buffer.alloc(size, `${model.tokens.length} ${model.seq} `)

const small = fc.constantFrom(0, 8, 8, 30)

const size = fc.oneof(
  { weight: 6, arbitrary: small },
  { weight: 1, arbitrary: fc.constant(LARGE - 1) },
  { weight: 2, arbitrary: fc.constantFrom(LARGE, 40_000) },
)

const meta = fc.option(fc.constantFrom('m', 'eyJuYW1lIjoiYSJ9', 'x y ~'), { nil: undefined })

type Wanted = {
  on: Target
  saying: Saying
  size: number
  meta: string | undefined
  isEtag: boolean
}

export const SMALL: Omit<Wanted, 'on'> = {
  saying: { says: 'none', nth: 0 },
  size: 8,
  meta: undefined,
  isEtag: false,
}

const wanted = { on: target, saying, size, meta, isEtag: fc.boolean() }

const send = (
  client: Client,
  path: string,
  { value, meta: text, headers }: { value: Buffer; meta: string | undefined; headers: object },
): Promise<Response> =>
  client.put(path, value, { ...headers, ...(text !== undefined && { 'X-Sync-Meta': text }) })

export async function putAs(
  model: Model,
  world: World,
  { device, on, saying: said, size: bytes, meta: text, isEtag }: Wanted & { device: Device },
): Promise<void> {
  const place = resolve(model, device.account, on)
  const condition = toCondition(model, place, said)
  const value = valueOf(model, bytes)
  const headers = toHeaders(condition, isEtag)
  const answer = await ask(model, world, device, (client) =>
    send(client, place.path, { value, meta: text, headers }),
  )
  if (answer === null) return
  const refusal = refusalOf('put', place, condition)
  if (refusal !== null) return expectRefusal(answer, refusal)
  await takeWritten(model, place, answer, { value, meta: text })
}

/** A write was taken: the model has it, too. */
async function takeWritten(
  model: Model,
  place: Place,
  answer: Response,
  { value, meta: text }: { value: Buffer; meta: string | undefined },
): Promise<void> {
  await expectStatus(answer, place.store === undefined ? 201 : 204)
  const [key, token, etag] = ['x-sync-key', 'x-sync-token', 'etag'].map(
    (name) => answer.headers.get(name) ?? '',
  ) as [string, string, string]
  assert.equal(etag, `"${token}"`)
  expectNew(model, place, { key, token })
  write(model, place, { key, token, meta: text, value })
  expectUsed(model, place.account, answer)
}

/** The token is new, and the key the one that this name has, or new. */
function expectNew(
  { keys, tokens }: Model,
  place: Place,
  { key, token }: { key: string; token: string },
): void {
  assert.ok(!tokens.includes(token), 'a token is never used twice')
  if (place.key === undefined) assert.ok(!keys.includes(key), 'names of accounts never meet')
  else assert.equal(key, place.key)
}

const expectUsed = (model: Model, account: Account, { headers }: Response): void =>
  assert.equal(headers.get('x-sync-quota-used'), String(used(model, account)))

export const put = command('put', wanted, putAs)

export const del = command(
  'delete',
  { on: existing, saying, isEtag: fc.boolean() },
  async (model, world, { device, on, saying: said, isEtag }) => {
    const place = resolve(model, device.account, on)
    const condition = toCondition(model, place, said)
    const init = { method: 'DELETE', headers: toHeaders(condition, isEtag) }
    const answer = await ask(model, world, device, (client) =>
      client.request(`/store/${encodeKey(place.path)}`, init),
    )
    if (answer === null) return
    const refusal = refusalOf('delete', place, condition)
    if (refusal !== null) return expectRefusal(answer, refusal)
    await expectStatus(answer, 204)
    assert.equal(answer.headers.get('x-sync-key'), place.key)
    if (place.store !== undefined) remove(model, place.store)
    expectUsed(model, device.account, answer)
  },
)

/** All devices write to one store at once, and say the same of the version: one lands at most. */
export const race = command(
  'race',
  { on: existing, says: fc.constantFrom('right' as const, 'none' as const, 'new' as const), size },
  async (model, world, { device, on, says, size: bytes }) => {
    const place = resolve(model, device.account, on)
    const condition = toCondition(model, place, { says, nth: 0 })
    const value = valueOf(model, bytes)
    const racers = everyDevice(world).flatMap((one) => {
      const path = one.account === device.account ? place.path : place.key
      return path === undefined || !isAlive(model, one.session) ? [] : [{ one, path }]
    })
    const placeFor = ({ one, path }: (typeof racers)[number]): Place =>
      placeOf(model, one.account, path === place.key ? { key: path } : path)
    const mayLand = racers.some((racer) => refusalOf('put', placeFor(racer), condition) === null)
    const raced = await Promise.all(
      racers.map(async (racer) => {
        const headers = toHeaders(condition, false)
        const sent = (client: Client) =>
          send(client, racer.path, { value, meta: undefined, headers })
        return { racer, answer: (await ask(model, world, racer.one, sent)) as Response }
      }),
    )
    const landed = raced.filter(({ answer }) => answer.ok)
    assert.equal(landed.length, mayLand ? 1 : 0, 'one lands')
    for (const { racer, answer } of landed) {
      const at = placeFor(racer)
      assert.equal(refusalOf('put', at, condition), null)
      await takeWritten(model, at, answer, { value, meta: undefined })
    }
    for (const { racer, answer } of raced) {
      if (answer.ok) continue
      await expectRefusal(answer, refusalOf('put', placeFor(racer), condition) as Refusal)
    }
  },
)

// Permissions

const permission = fc.constantFrom<Permission[]>('READ', 'WRITE', 'WRITE', 'OWN', 'OWN')

/** Somebody with an account, or with one past the last, nobody; by id or by handle. */
const user = fc.record({
  account: fc.oneof(
    { weight: 12, arbitrary: fc.nat(ACCOUNTS - 1) },
    { weight: 1, arbitrary: fc.constant(ACCOUNTS) },
  ),
  isHandle: fc.boolean(),
})
type User = { account: number; isHandle: boolean }

const users = fc.uniqueArray(user, {
  minLength: 1,
  maxLength: 2,
  selector: ({ account }) => account,
})

const nameOf = (model: Model, { account, isHandle }: User): string => {
  const found = model.accounts[account]
  return found === undefined ? NOBODY : isHandle ? found.user : found.id
}

interface Giving {
  on: Target
  to: User[]
  permission: Permission
}

export async function giveAs(
  model: Model,
  world: World,
  { device, on, to, permission: level }: Giving & { device: Device },
): Promise<void> {
  const place = resolve(model, device.account, on)
  const grants = to.map((one) => ({ user: nameOf(model, one), permission: level }))
  const answer = await ask(model, world, device, (client) =>
    client.request(`/permission/${encodeKey(place.path)}`, {
      method: 'PUT',
      body: JSON.stringify(grants),
    }),
  )
  if (answer === null) return
  const accounts = to.flatMap(({ account }) => model.accounts[account] ?? [])
  const why = refusalOfMembers(place, (members) => {
    for (const account of accounts) members.set(account, level)
  })
  // Who they are comes before what the store would be left with.
  const isUnknown = accounts.length < to.length && why?.code !== 'PERM01'
  const refusal = isUnknown ? NOT_FOUND : why
  if (refusal !== null) return expectRefusal(answer, refusal)
  await expectStatus(answer, 200)
  assert.deepEqual(
    await answer.json(),
    accounts.map(({ user: handle }) => ({ user: handle, permission: level })),
  )
  if (place.store === undefined) return
  for (const account of accounts) grant(model, place.store, account, level)
}

export const give = command('grant', { on: existing, to: users, permission }, giveAs)

interface Taking {
  on: Target
  from: User[]
  /** Itself alone, not those. */
  isLeave: boolean
}

export async function takeAs(
  model: Model,
  world: World,
  { device, on, from, isLeave }: Taking & { device: Device },
): Promise<void> {
  const { account } = device
  const place = resolve(model, account, on)
  const leaver = { account: model.accounts.indexOf(account), isHandle: true }
  const named = isLeave ? [leaver] : from
  const answer = await ask(model, world, device, (client) =>
    client.revoke(place.path, ...named.map((one) => nameOf(model, one))),
  )
  if (answer === null) return
  const accounts = named.flatMap(({ account: i }) => model.accounts[i] ?? [])
  const isOnlySelf = named.every(({ account: i }) => i === leaver.account)
  const without = (members: Map<Account, Permission>): void => {
    for (const one of accounts) members.delete(one)
  }
  const refusal = refusalOfMembers(place, without, isOnlySelf)
  if (refusal !== null) return expectRefusal(answer, refusal)
  await expectStatus(answer, 204)
  if (place.store === undefined) return
  for (const one of accounts) revoke(model, place.store, one)
}

export const take = command('revoke', { on: existing, from: users, isLeave: fc.boolean() }, takeAs)

// Batches

const operation = fc.record({
  kind: fc.constantFrom('put' as const, 'put' as const, 'delete' as const, 'check' as const),
  on: fc.oneof(target, existing),
  saying: sayings(9),
  size: fc.oneof(
    { weight: 20, arbitrary: small },
    { weight: 1, arbitrary: fc.constantFrom(LARGE - 1, LARGE) },
  ),
  meta,
})

export const batch = command(
  'batch',
  {
    operations: fc.array(operation, { minLength: 1, maxLength: 4 }),
    isDouble: fc.nat(9).map((n) => n === 0),
  },
  async (model, world, { device, operations, isDouble }) => {
    const { account } = device
    const all = operations.map((one, i) => {
      const place = resolve(model, account, one.on)
      const condition = toCondition(model, place, one.saying)
      // A deletion and a check name a token.
      const isBare = condition.kind === 'none' && one.kind !== 'put'
      const value = Buffer.concat([Buffer.from(`${i} `), valueOf(model, one.size)])
      return {
        ...one,
        place,
        condition: isBare ? ({ kind: 'new' } as const) : condition,
        value: value.subarray(0, one.size),
      }
    })
    const keyOf = ({ place }: (typeof all)[number]): string => place.key ?? `name ${place.path}`
    const steps = all.filter(
      (step, i) => isDouble || all.findIndex((other) => keyOf(other) === keyOf(step)) === i,
    )
    const answer = await ask(model, world, device, (client) =>
      post(world.node, '/batch', { operations: steps.map(toOperation) }, client.headers),
    )
    if (answer === null) return
    if (new Set(steps.map(keyOf)).size < steps.length) {
      await expectProblem(answer, 'REQ01', 400)
      return
    }
    const refusals = steps.map(({ kind, place, condition, value }) => {
      const isLarge = kind === 'put' && value.length >= LARGE
      return refusalOf(kind, place, condition) ?? (isLarge ? { status: 413, code: 'SIZE01' } : null)
    })
    if (refusals.some(Boolean)) return expectFailed(answer, refusals)
    await expectStatus(answer, 200)
    const { results } = (await answer.json()) as { results: { key: string; token?: string }[] }
    assert.equal(results.length, steps.length)
    for (const [i, { kind, place, value, meta: text }] of steps.entries()) {
      const { key, token = '' } = results[i] as { key: string; token?: string }
      if (kind === 'put') {
        expectNew(model, place, { key, token })
        write(model, place, { key, token, meta: text, value })
        continue
      }
      const { store } = place
      assert.equal(key, place.key ?? key)
      assert.equal(token, kind === 'check' && store !== undefined ? store.token : '')
      if (kind === 'delete' && store !== undefined) remove(model, store)
    }
  },
)

interface Step {
  kind: 'put' | 'delete' | 'check'
  place: { path: string }
  condition: Condition
  value: Buffer
  meta: string | undefined
}

function toOperation({ kind, place, condition, value, meta: text }: Step): object {
  const named = {
    none: {},
    new: { token: null },
    any: { token: '*' },
    match: { token: condition.kind === 'match' ? condition.token : undefined },
  }[condition.kind]
  if (kind !== 'put') return { [kind]: place.path, ...named }
  return { put: place.path, ...named, meta: text, data: value.toString('base64') }
}

async function expectFailed(answer: Response, refusals: (Refusal | null)[]): Promise<void> {
  const first = refusals.find((refusal) => refusal !== null) as Refusal
  const { failed } = await expectProblem(answer, first.code, first.status)
  const expected = refusals.flatMap((refusal, index) => {
    if (refusal === null) return []
    const { code, current } = refusal
    if (current === undefined) return [{ index, code }]
    const { token, value, meta: text } = current
    return [
      { index, code, token, digest: digestOf(value), ...(text !== undefined && { meta: text }) },
    ]
  })
  assert.deepEqual(failed, expected)
}
