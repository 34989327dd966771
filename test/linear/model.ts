// Owns what one store may do, one operation after the other: the protocol's *Stores* and *Permissions*,
// as far as clients on the same few stores can see them.

export type Permission = '' | 'READ' | 'WRITE' | 'OWN'

/** A store as it is for everybody: by account, the first of which made it and OWNs it. */
export interface State {
  /** The digest of what is stored, unique to its write; null: there is no store. */
  value: string | null
  permissions: readonly Permission[]
}

export interface Operation {
  by: number
  kind: 'read' | 'write' | 'delete' | 'grant' | 'revoke'
  /** When it was asked and answered; never answered: it happened at any time since, or not at all. */
  call: number
  answered: number
  /** Of a write or deletion: '' is no token, '*' any, else the digest of the value whose token was sent. */
  expects?: string
  writes?: string
  /** Answered for all at once: 200 where it was done, 412 where its token was wrong or missing. */
  inBatch?: boolean
  /** Of a grant or revocation. */
  whose?: number
  permission?: Permission
  /** Undefined where no answer came. */
  status?: number
  /** The digest in the answer: of what was read, or was in the way. */
  shows?: string | undefined
}

export const absent = (accounts: number): State => ({
  value: null,
  permissions: Array<Permission>(accounts).fill(''),
})

/** The state after it; null when it cannot have happened in this one with this answer. */
export function step(state: State, operation: Operation): State | null {
  const { status, shows } = operation
  const [exact, after] = answerOf(state, operation)
  const expected = operation.inBatch === true ? inBatch(exact) : exact
  // Who heard no answer cannot tell it from a refusal, which changes nothing: that need not be tried.
  if (status === undefined) return expected < 300 ? after : null
  if (status !== expected) return null
  const isShown =
    expected === 412 || expected === 428 || (expected === 200 && operation.kind === 'read')
  if (isShown && (shows ?? null) !== state.value) return null
  return after
}

function answerOf(state: State, operation: Operation): [status: number, after: State] {
  const { by, kind } = operation
  const permission = state.permissions[by] as Permission
  if (kind === 'write' && by === 0 && state.value === null) return created(state, operation)
  if (state.value === null || permission === '') return [404, state]
  if (kind === 'read') return [200, state]
  if (kind === 'write') {
    if (permission === 'READ') return [403, state]
    return conditioned(state, operation, 204, { ...state, value: operation.writes as string })
  }
  if (kind === 'revoke' && operation.whose === by && by !== 0) return [204, without(state, by)]
  if (permission !== 'OWN') return [403, state]
  if (kind === 'delete') {
    return conditioned(state, operation, 204, absent(state.permissions.length))
  }
  const whose = operation.whose as number
  if (kind === 'revoke') return [204, without(state, whose)]
  const permissions = state.permissions.with(whose, operation.permission as Permission)
  return [200, { ...state, permissions }]
}

const inBatch = (status: number): number => ({ 201: 200, 204: 200, 428: 412 })[status] ?? status

function created(state: State, { expects, writes }: Operation): [number, State] {
  if (expects !== '') return [412, state]
  return [201, { value: writes as string, permissions: state.permissions.with(0, 'OWN') }]
}

function conditioned(
  state: State,
  { expects }: Operation,
  status: number,
  after: State,
): [number, State] {
  if (expects === '') return [428, state]
  return expects === '*' || expects === state.value ? [status, after] : [412, state]
}

const without = (state: State, account: number): State => ({
  ...state,
  permissions: state.permissions.with(account, ''),
})
