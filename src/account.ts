// Owns accounts: registration, login, change of password, deletion.
import { TimeSpan } from 'oslo'
import { commit, require, requireChanges, sql, type Statement } from './database/database.ts'
import type { Deps } from './deps.ts'
import { SyncError } from './errors.ts'
import { checkId, exists, toHandle } from './handle.ts'
import * as invitation from './invitation.ts'
import type { Limit } from './limit.ts'
import * as password from './password.ts'
import * as resetToken from './reset-token.ts'
import * as session from './session.ts'
import type { OpenedSession, Session } from './session.ts'

interface Registration {
  id: string
  password: string
  device?: string | undefined
  invitation?: string | undefined
}

interface Login {
  id: string
  password: string
  device?: string | undefined
}

/** The client's address (IPv6 by its /64), or null where a proxy hides it. */
export type Address = string | null

const KEY_SALT_BYTES = 32

const QUARTER = new TimeSpan(15, 'm').milliseconds()
const HOUR = new TimeSpan(1, 'h').milliseconds()
const REGISTRATIONS: Limit = { name: 'registration', count: 20, windowMs: HOUR }
const FAILURES_HERE: Limit = { name: 'login here', count: 10, windowMs: QUARTER }
const FAILURES_ADDRESS: Limit = { name: 'login address', count: 100, windowMs: QUARTER }
const FAILURES_ACCOUNT: Limit = { name: 'login account', count: 300, windowMs: HOUR }
const MOST_KNOWN_RANK = 10

/** Throws ACCT02 unless the password may be set for the account with this handle. */
function checkPassword(deps: Pick<Deps, 'keys'>, handle: string, secret: string): string {
  const normal = password.normalize(secret)
  password.check(normal)
  if (toHandle(deps, normal) === handle) throw password.unacceptable('The password is not the id.')
  return normal
}

/** The statements that make an account, in the caller's batch. */
export function create(
  { random }: Pick<Deps, 'random'>,
  { handle, phc }: { handle: string; phc: string },
): Statement[] {
  return [
    sql('UPDATE node SET account_number = account_number + 1'),
    sql(
      `INSERT INTO sync_account (id, number, password, key_salt)
       SELECT ?, account_number, ?, ? FROM node`,
      [handle, phc, random(KEY_SALT_BYTES)],
    ),
  ]
}

/** Creates an account and a first session. Throws ACCT01, ACCT02, ACCT03, RATE01, SIZE03. */
export async function register(
  deps: Deps,
  wanted: Registration,
  address: Address,
): Promise<OpenedSession> {
  const { config, database, limiter, passwords, space } = deps
  if (address !== null) limiter.take(REGISTRATIONS, address)
  const isInvited =
    wanted.invitation !== undefined && (await invitation.find(deps, wanted.invitation))
  if (config.registration === 'closed' || (config.registration === 'invite' && !isInvited)) {
    throw notInvited()
  }
  const handle = checkId(deps, wanted.id)
  const secret = checkPassword(deps, handle, wanted.password)
  space.check(0)
  if (await exists(deps, handle)) throw inUse()
  const phc = await passwords.hash(secret, rankOf(deps, address ?? handle))
  const { opened, statements } = session.open(deps, { handle, device: wanted.device })
  const invited = isInvited ? invitation.spend(deps, wanted.invitation as string) : []
  await commit(
    database,
    () => [...invited, ...create(deps, { handle, phc }), ...statements],
    async () => {
      if (isInvited && !(await invitation.find(deps, wanted.invitation as string)))
        throw notInvited()
      if (await exists(deps, handle)) throw inUse()
    },
  )
  return opened
}

const inUse = (): SyncError =>
  new SyncError('ACCT03', 'This id is in use: log in, or take another.')

const notInvited = (): SyncError =>
  new SyncError('ACCT01', 'An account here takes a valid invitation from the operator.')

/** Opens a session. Throws AUTH02, alike in all for every cause; RATE01, ERR05. */
export async function login(deps: Deps, given: Login, address: Address): Promise<OpenedSession> {
  const handle = toHandle(deps, given.id)
  const phc = await verify(deps, { handle, password: given.password, address })
  const { opened, statements } = session.open(deps, {
    handle,
    where: 'password = ?',
    args: [phc],
    device: given.device,
  })
  await commit(
    deps.database,
    () => statements,
    async () => {
      throw wrongLogin()
    },
  )
  return opened
}

/** Who asks most waits longest, behind those who are known where they are. */
const rankOf = ({ limiter }: Pick<Deps, 'limiter'>, asking: string): number =>
  MOST_KNOWN_RANK + limiter.ask(asking)

const wrongLogin = (): SyncError => new SyncError('AUTH02', 'The id or the password is wrong.')

/**
 * The PHC string that the password matched, or AUTH02. Only failures count against the limits; each
 * attempt is counted before it is tried, so that many at once pass no further than many in a row.
 */
async function verify(
  deps: Deps,
  { handle, password: secret, address }: { handle: string; password: string; address: Address },
): Promise<string> {
  const { limiter, database, passwords } = deps
  const here = address === null ? undefined : `${handle} ${address}`
  const isKnownHere = here !== undefined && limiter.remembers(here)
  const taken: [Limit, string][] = []
  if (here !== undefined && address !== null) {
    taken.push([FAILURES_HERE, here], [FAILURES_ADDRESS, address])
  }
  if (!isKnownHere) taken.push([FAILURES_ACCOUNT, handle])
  limiter.takeAll(taken)
  const refund = (): void => taken.forEach(([limit, key]) => limiter.refund(limit, key))
  const rank = isKnownHere
    ? Math.min(limiter.ask(here), MOST_KNOWN_RANK)
    : rankOf(deps, address ?? handle)
  const { rows } = await database.execute(
    sql(`SELECT password FROM sync_account WHERE id = ? AND dead = 0 AND disabled = 0`, [handle]),
  )
  const phc = rows[0] === undefined ? undefined : String(rows[0]['password'])
  let isRight: boolean
  try {
    isRight = await passwords.verify(password.normalize(secret), phc, rank)
  } catch (error) {
    refund() // too busy to try
    throw error
  }
  if (!isRight || phc === undefined) throw wrongLogin()
  refund()
  if (here !== undefined) limiter.remember(here)
  return phc
}

/** Sets a new password; every other session ends. Throws AUTH01, AUTH02, ACCT02, RATE01. */
export async function changePassword(
  deps: Deps,
  self: Session,
  change: { password: string; current: string; address: Address },
): Promise<void> {
  const { database, clock, passwords } = deps
  await session.check(deps, self)
  const handle = await handleOf(deps, self)
  const wanted = checkPassword(deps, handle, change.password)
  const was = await verify(deps, { handle, password: change.current, address: change.address })
  const phc = await passwords.hash(wanted)
  await commit(
    database,
    () => [
      require(session.ALIVE, [self.token, clock.now()]),
      sql('UPDATE sync_account SET password = ? WHERE number = ? AND password = ?', [
        phc,
        self.account,
        was,
      ]),
      requireChanges(),
      sql('DELETE FROM sync_session WHERE id = ? AND token <> ?', [self.account, self.token]),
      sql('DELETE FROM password_reset_token WHERE id = ?', [self.account]),
    ],
    async () => {
      await session.check(deps, self)
      throw wrongLogin()
    },
  )
}

/** Spends a reset token: sets the password and ends every session. Throws AUTH02, ACCT02. */
export async function resetPassword(
  deps: Deps,
  reset: { password: string; token: string },
): Promise<void> {
  const { database, passwords } = deps
  const found = await resetToken.find(deps, reset.token)
  if (found === undefined) throw resetToken.wrong()
  const phc = await passwords.hash(checkPassword(deps, found.handle, reset.password))
  await commit(
    database,
    () => [
      ...resetToken.spend(deps, reset.token),
      sql('UPDATE sync_account SET password = ? WHERE number = ? AND dead = 0', [
        phc,
        found.account,
      ]),
      requireChanges(),
      sql('DELETE FROM sync_session WHERE id = ?', [found.account]),
    ],
    async () => {
      throw resetToken.wrong()
    },
  )
}

async function handleOf({ database }: Pick<Deps, 'database'>, self: Session): Promise<string> {
  const { rows } = await database.execute(
    sql('SELECT id FROM sync_account WHERE number = ?', [self.account]),
  )
  return String(rows[0]?.['id'])
}

/** Deletes the account of a fresh session, at once for everyone to see. Throws AUTH01, AUTH03. */
export async function remove(deps: Deps, self: Session): Promise<void> {
  await commit(
    deps.database,
    () => [
      require(session.FRESH, session.freshArgs(self, deps.clock.now())),
      ...removal(deps, self.account),
    ],
    () => session.checkFresh(deps, self),
  )
}

/**
 * The statements that delete an account: it moves to an id that nobody can have, and every read asks
 * for a living OWN. Its rows go later: see housekeeping.ts.
 */
export function removal({ random }: Pick<Deps, 'random'>, account: number): Statement[] {
  const grave = `-${Buffer.from(random(32)).toString('base64url')}`
  return [
    sql('DELETE FROM sync_session WHERE id = ?', [account]),
    sql('DELETE FROM password_reset_token WHERE id = ?', [account]),
    sql(`UPDATE sync_account SET id = ?, password = '', dead = 1 WHERE number = ?`, [
      grave,
      account,
    ]),
    requireChanges(),
  ]
}
