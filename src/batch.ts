// Owns batches: many writes and checks, all or nothing, in one transaction.
import { hash } from 'node:crypto'
import { commit, require, sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError, malformed, type ErrorCode } from './errors.ts'
import * as keys from './key.ts'
import { isOwned, usedBy } from './quota.ts'
import * as session from './session.ts'
import type { Session } from './session.ts'
import { COLUMNS, toReprDigest, toStore } from './store.ts'
import type { Condition, Permission, Store } from './store.ts'
import { unique } from './token.ts'
import { INLINE_BYTES } from './value.ts'
import { creation, isQuotaGuard, removal, replacement } from './write.ts'

/** A token, null for "must be new" (of a check: "must not exist"), * for whatever is there. */
type Token = string | null

export type Operation =
  | { put: string; token?: Token | undefined; meta?: string | undefined; data: string }
  | { delete: string; token: Token }
  | { check: string; token: Token }

export interface Result {
  key: string
  token?: string
}

interface Failure {
  index: number
  code: ErrorCode
  token?: string
  digest?: string
  meta?: string
}

interface Step {
  operation: Operation
  kind: 'put' | 'delete' | 'check'
  /** The store key. */
  key: string
  isName: boolean
  condition: Condition
  /** Of a put. */
  value: Buffer
  /** The token that a put gives the store. */
  next: string
}

interface Found {
  store: Store | null
  /** Living accounts have it, though this one has no permission. */
  isElsewhere: boolean
  members: number
}

const MAX_OPERATIONS = 1000
const MAX_OPERATIONS_X_MEMBERS = 20_000
const NOT_BASE64 = /[^A-Za-z0-9+/]/
const NEEDS: Record<Step['kind'], Permission[]> = {
  put: ['WRITE', 'OWN'],
  delete: ['OWN'],
  check: ['READ', 'WRITE', 'OWN'],
}

/**
 * Does all operations or none; answers also the bytes that count against the caller's quota then.
 * Throws AUTH01, REQ01, and the first failure's code with all of them in the member `failed`.
 */
export async function run(
  deps: Deps,
  self: Session,
  operations: Operation[],
): Promise<{ results: Result[]; used: number }> {
  await session.check(deps, self)
  if (operations.length > MAX_OPERATIONS) {
    throw new SyncError('SIZE01', `A batch has at most ${MAX_OPERATIONS} operations.`)
  }
  const steps = operations.map((operation) => toStep(deps, self, operation))
  if (new Set(steps.map(({ key }) => key)).size < steps.length) {
    throw malformed('Two operations are on one store.')
  }
  let found = await lookAll(deps, self, steps)
  refuseFailures(deps, steps, found)
  // Checks and deletions go on when the disk is nearly full.
  if (steps.some(({ kind }) => kind === 'put')) {
    deps.space.check(steps.reduce((bytes, { value }) => bytes + value.length, 0))
  }
  let statements: Statement[] = []
  let steppedBy: number[] = [] // each statement's index among the operations
  const written = await commit(
    deps.database,
    () => {
      const groups = steps.map((step, i) => toStatements(deps, self, step, found[i] as Found))
      steppedBy = groups.flatMap((group, i) => group.map(() => i))
      statements = [...groups.flat(), usedBy(self)]
      return statements
    },
    async (failedAt) => {
      await session.check(deps, self)
      found = await lookAll(deps, self, steps)
      refuseFailures(deps, steps, found)
      if (failedAt !== undefined && isQuotaGuard(statements[failedAt])) {
        throw toError([{ index: steppedBy[failedAt] as number, code: 'SIZE02' }])
      }
    },
  )
  const results = steps.map(({ kind, key, next }, i) => {
    const token = kind === 'put' ? next : kind === 'check' ? found[i]?.store?.token : undefined
    return token === undefined ? { key } : { key, token }
  })
  return { results, used: Number(written.at(-1)?.rows[0]?.['used']) }
}

function toStep({ random }: Pick<Deps, 'random'>, self: Session, operation: Operation): Step {
  const [kind, name] =
    'put' in operation
      ? (['put', operation.put] as const)
      : 'delete' in operation
        ? (['delete', operation.delete] as const)
        : (['check', operation.check] as const)
  keys.check(name)
  return {
    operation,
    kind,
    key: keys.toStoreKey(name, self.keySalt),
    isName: !keys.isStoreKey(name),
    condition: toCondition(operation.token),
    value: 'put' in operation ? decode(operation.data) : Buffer.alloc(0),
    next: unique(random),
  }
}

function decode(data: string): Buffer {
  // Looks for what may not be there: a pattern of what may would take its stack from a large value.
  const digits = data.replace(/={1,2}$/, '')
  if (data.length % 4 !== 0 || NOT_BASE64.test(digits)) {
    throw malformed('The data of a put is base64.')
  }
  return Buffer.from(data, 'base64')
}

function toCondition(token: Token | undefined): Condition {
  if (token === undefined) return { kind: 'none' }
  if (token === null) return { kind: 'new' }
  return token === '*' ? { kind: 'any' } : { kind: 'match', tokens: [token] }
}

async function lookAll(
  { database }: Pick<Deps, 'database'>,
  self: Session,
  steps: Step[],
): Promise<Found[]> {
  const { rows } = await database.execute(
    sql(
      `SELECT k.value AS store_key, ${COLUMNS},
         (SELECT count(*) FROM account_permission m WHERE m.store_key = k.value) AS members,
         ${isOwned('k.value')} AS lives
       FROM json_each(?) k
       LEFT JOIN held_permission p ON p.sync_account_id = ? AND p.store_key = k.value
       LEFT JOIN sync_store t ON t.store_key = p.store_key
       ORDER BY k.key`,
      [JSON.stringify(steps.map(({ key }) => key)), self.account],
    ),
  )
  return rows.map((row) => ({
    store: row['permission'] === null ? null : toStore(String(row['store_key']), row),
    isElsewhere: row['permission'] === null && row['lives'] === 1,
    members: Number(row['members']),
  }))
}

function refuseFailures({ config }: Pick<Deps, 'config'>, steps: Step[], found: Found[]): void {
  const rows = found.reduce((sum, { members }) => sum + members, 0)
  if (rows > MAX_OPERATIONS_X_MEMBERS) {
    throw new SyncError('SIZE01', 'The stores of the batch have too many members together.')
  }
  const largest = Math.min(INLINE_BYTES, config.maxValueSize)
  const failures = steps.flatMap((step, index): Failure[] => {
    const failure = failureOf(step, found[index] as Found, largest)
    return failure === null ? [] : [{ index, ...failure }]
  })
  const [first] = failures
  if (first === undefined) return
  const isUnnamed = first.code === 'KEY01' && steps[first.index]?.condition.kind === 'none'
  throw toError(failures, isUnnamed ? 428 : undefined)
}

/** Why an operation cannot be done, in the protocol's order, or null. */
function failureOf(step: Step, found: Found, largest: number): Omit<Failure, 'index'> | null {
  const refused = found.store === null ? withoutStore(step, found) : withStore(step, found.store)
  if (refused !== null) return refused
  return step.value.length > largest ? { code: 'SIZE01' } : null
}

function withoutStore(
  { kind, isName, condition }: Step,
  { isElsewhere }: Found,
): Omit<Failure, 'index'> | null {
  if (!isName || isElsewhere || kind === 'delete') return { code: 'ERR01' }
  return condition.kind === 'match' || condition.kind === 'any' ? { code: 'KEY01' } : null
}

function withStore({ kind, condition }: Step, store: Store): Omit<Failure, 'index'> | null {
  if (!NEEDS[kind].includes(store.permission)) return { code: 'PERM01' }
  if (condition.kind === 'any') return null
  if (condition.kind === 'match' && condition.tokens[0] === store.token) return null
  return {
    code: 'KEY01',
    token: store.token,
    digest: toReprDigest(store.digest),
    ...(store.meta === null ? {} : { meta: store.meta }),
  }
}

const DETAIL = 'Nothing was done: `failed` names the operations that could not be.'

function toError(failed: Failure[], status?: number): SyncError {
  const [{ code }] = failed as [Failure]
  return new SyncError(code, DETAIL, { ...(status && { status }), members: { failed } })
}

function toStatements(
  deps: Deps,
  self: Session,
  { operation, kind, key, condition, value, next }: Step,
  { store }: Found,
): Statement[] {
  if (kind === 'check') return checking(deps, self, { key, condition, store })
  if (kind === 'delete') return removal(deps, self, { condition, before: store as Store })
  const received = { inline: value, size: value.length, digest: hash('sha256', value, 'buffer') }
  const row = {
    key,
    token: next,
    meta: ('put' in operation ? operation.meta : null) ?? null,
    received,
  }
  return store === null
    ? creation(deps, self, row)
    : replacement(deps, self, row, { condition, before: store })
}

function checking(
  { clock }: Pick<Deps, 'clock'>,
  self: Session,
  { key, condition, store }: { key: string; condition: Condition; store: Store | null },
): Statement[] {
  const held = `SELECT 1 FROM sync_session s JOIN held_permission p ON p.sync_account_id = s.id
    JOIN sync_store t ON t.store_key = p.store_key
    WHERE s.token = ? AND s.expiration > ? AND p.store_key = ?`
  const args = [self.token, clock.now(), key]
  if (store === null) {
    return [require(session.ALIVE, args.slice(0, 2)), require(`NOT ${isOwned('?')}`, [key])]
  }
  if (condition.kind === 'any') return [require(`EXISTS (${held})`, args)]
  return [require(`EXISTS (${held} AND t.store_token = ?)`, [...args, store.token])]
}
