// Owns the model: what accounts, stores and feeds have to be after each operation, in a few maps.
import { createHash } from 'node:crypto'

export type Permission = 'READ' | 'WRITE' | 'OWN'

export const DAY = 24 * 60 * 60 * 1000
const TOMBSTONE_MS = 180 * DAY

export interface Store {
  key: string
  token: string
  meta: string | undefined
  value: Buffer
  /** Known once somebody was told. */
  modified: number | undefined
  members: Map<Account, Permission>
}

/** An account as it was created: one that takes the id again is another. */
export interface Account {
  id: string
  /** The handle. */
  user: string
  password: string
  /** Store keys by the name under which this account made them. */
  names: Map<string, string>
  /** Where each key stands in the feed; `gone` is when it was lost. */
  feed: Map<string, { at: number; gone?: number }>
  /** Deletions up to here are forgotten. */
  forgotten: number
  /** Lost with the account of their last OWN, which the feed has yet to say. */
  limbo: Set<string>
  isDeleted: boolean
}

export interface Model {
  /** Those who have the ids now. */
  accounts: Account[]
  /** All that live, by key. */
  stores: Map<string, Store>
  /** Every key and every token that there ever was. */
  keys: string[]
  tokens: string[]
  /** The last place in any feed. */
  seq: number
  /** Passed since the beginning. */
  now: number
}

export const newModel = (): Model => ({
  accounts: [],
  stores: new Map(),
  keys: [],
  tokens: [],
  seq: 0,
  now: 0,
})

export const newAccount = (id: string, user: string, password: string): Account => ({
  id,
  user,
  password,
  names: new Map(),
  feed: new Map(),
  forgotten: 0,
  limbo: new Set(),
  isDeleted: false,
})

// What an operation is about

/** What an account meets under a name or a store key. */
export interface Place {
  account: Account
  name: string | undefined
  /** Unknown for a name under which there never was a store. */
  key: string | undefined
  store: Store | undefined
  permission: Permission | undefined
}

export function placeOf(model: Model, account: Account, name: string | { key: string }): Place {
  const isName = typeof name === 'string'
  const key = isName ? account.names.get(name) : name.key
  const store = key === undefined ? undefined : model.stores.get(key)
  return {
    account,
    name: isName ? name : undefined,
    key,
    store,
    permission: store?.members.get(account),
  }
}

/** A token, or what else a write may say of the version it changes. */
export type Condition = { kind: 'none' | 'new' | 'any' } | { kind: 'match'; token: string }

export interface Refusal {
  status: number
  code: string
  /** The version that a refusal for its token tells of. */
  current?: Store
}

const NEEDS: Record<string, Permission[]> = {
  put: ['WRITE', 'OWN'],
  delete: ['OWN'],
  check: ['READ', 'WRITE', 'OWN'],
}

export const NOT_FOUND: Refusal = { status: 404, code: 'ERR01' }
const NOT_ENOUGH: Refusal = { status: 403, code: 'PERM01' }
const OWNERLESS: Refusal = { status: 409, code: 'PERM02' }

/** Why an operation is refused, in the protocol's order; null when it is not. */
export function refusalOf(
  kind: 'put' | 'delete' | 'check',
  { name, store, permission }: Place,
  condition: Condition,
): Refusal | null {
  if (store === undefined || permission === undefined) {
    const isLost = store !== undefined
    if (name === undefined || isLost || kind === 'delete') return NOT_FOUND
    const isAboutOne = condition.kind === 'match' || condition.kind === 'any'
    return isAboutOne ? { status: 412, code: 'KEY01' } : null
  }
  if (NEEDS[kind]?.includes(permission) !== true) return NOT_ENOUGH
  if (condition.kind === 'any') return null
  if (condition.kind === 'match' && condition.token === store.token) return null
  return { status: condition.kind === 'none' ? 428 : 412, code: 'KEY01', current: store }
}

const isOwned = (members: Map<Account, Permission>): boolean =>
  [...members.values()].includes('OWN')

/** Why members cannot become these. */
export function refusalOfMembers(
  { store, permission }: Place,
  after: (members: Map<Account, Permission>) => void,
  isLeaving = false,
): Refusal | null {
  if (store === undefined || permission === undefined) return NOT_FOUND
  if (permission !== 'OWN' && !isLeaving) return NOT_ENOUGH
  const members = new Map(store.members)
  after(members)
  return isOwned(members) ? null : OWNERLESS
}

// What an operation does

export interface Written {
  key: string
  token: string
  meta: string | undefined
  value: Buffer
}

export function write(model: Model, { account, name, store }: Place, written: Written): void {
  const { key, token } = written
  model.tokens.push(token)
  if (store !== undefined) {
    Object.assign(store, written, { modified: undefined })
    model.seq++
    for (const member of store.members.keys()) member.feed.set(key, { at: model.seq })
    return
  }
  if (!model.keys.includes(key)) model.keys.push(key)
  if (name !== undefined) account.names.set(name, key)
  const members = new Map([[account, 'OWN' as const]])
  model.stores.set(key, { ...written, modified: undefined, members })
  // What was left of one that died with its OWN is gone first.
  account.limbo.delete(key)
  tell(model, account, key)
}

export function remove(model: Model, { key, members }: Store): void {
  model.stores.delete(key)
  for (const member of members.keys()) lose(model, member, key)
}

export function grant(model: Model, store: Store, to: Account, permission: Permission): void {
  if (store.members.get(to) === permission) return
  store.members.set(to, permission)
  tell(model, to, store.key)
}

export function revoke(model: Model, store: Store, from: Account): void {
  if (store.members.delete(from)) lose(model, from, store.key)
}

/** Deletes an account, with every store that it alone OWNs. */
export function bury(model: Model, account: Account): void {
  account.isDeleted = true
  for (const store of model.stores.values()) {
    if (!store.members.delete(account) || isOwned(store.members)) continue
    model.stores.delete(store.key)
    for (const member of store.members.keys()) member.limbo.add(store.key)
  }
}

function tell(model: Model, account: Account, key: string): void {
  account.feed.set(key, { at: ++model.seq })
}

export function lose(model: Model, account: Account, key: string): void {
  account.limbo.delete(key)
  account.feed.set(key, { at: ++model.seq, gone: model.now })
}

/** Something else turned out to have happened before it. */
export function move(model: Model, account: Account, key: string): void {
  account.feed.set(key, { ...account.feed.get(key), at: ++model.seq })
}

/** Forgets the deletions of 180 days ago. */
export function forget(model: Model): void {
  for (const account of model.accounts) {
    for (const [key, { at, gone }] of account.feed) {
      if (gone === undefined || gone > model.now - TOMBSTONE_MS) continue
      account.feed.delete(key)
      account.forgotten = Math.max(account.forgotten, at)
    }
  }
}

// What an account is shown

export interface Listed {
  key: string
  permission: Permission
  token: string
  meta?: string
  size: number
  modified: number | undefined
}

export const listed = (
  { key, token, meta, value, modified }: Store,
  permission: Permission,
): Listed => ({
  key,
  permission,
  token,
  ...(meta !== undefined && { meta }),
  size: value.length,
  modified,
})

/** All that an account can read, ordered by key. */
export function list(model: Model, account: Account): Listed[] {
  return [...model.stores.values()]
    .flatMap((store) => {
      const permission = store.members.get(account)
      return permission === undefined ? [] : [listed(store, permission)]
    })
    .toSorted((a, b) => (a.key < b.key ? -1 : 1))
}

/** The bytes of what an account OWNs. */
export const used = (model: Model, account: Account): number =>
  list(model, account).reduce(
    (sum, { permission, size }) => sum + (permission === 'OWN' ? size : 0),
    0,
  )

export interface Entry {
  at: number
  key: string
  /** Absent for a deletion. */
  store?: Store
  permission?: Permission
}

/** What the feed has yet to say to one who stands at `position` of a sync that began at `began`. */
export function entriesAfter(
  model: Model,
  account: Account,
  { position, began }: { position: number; began: number },
): Entry[] {
  const entries = [...account.feed].flatMap(([key, { at, gone }]): Entry[] => {
    if (account.limbo.has(key)) return []
    if (gone !== undefined) return at > Math.max(position, began) ? [{ at, key }] : []
    const store = model.stores.get(key)
    const permission = store?.members.get(account)
    if (store === undefined || permission === undefined) throw new Error('the model is wrong')
    return at > position ? [{ at, key, store, permission }] : []
  })
  return entries.toSorted((a, b) => a.at - b.at)
}

export const digestOf = (value: Uint8Array): string =>
  `sha-256=:${createHash('sha256').update(value).digest('base64')}:`
