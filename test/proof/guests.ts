// Owns the people of a workload who come and go, one at a time: they register, with an invitation where
// there is one, log in and out, share with one who stays and then leaves, change their password, and delete
// themselves. All of it is promised as a write is.
import { begin } from './history.ts'
import {
  call,
  digestOf,
  put,
  removed,
  type Context,
  type Guest,
  type Guests,
  type Person,
} from './people.ts'

const SMALL = 2000
const FILE = 20_000

export const noGuests = (): Guests => ({ count: 0, now: null, invitations: [] })

/** Has one come who is logged in twice: where time is short, both take too long for it. */
export async function welcome(context: Context): Promise<void> {
  const { guests } = context
  if (guests.now === null) await register(context)
  if (guests.now?.others.length === 0)
    guests.now.others.push(await openSession(context, guests.now))
}

/** One thing that a guest does; `host` is one who stays. */
export async function visit(context: Context, host: Person): Promise<void> {
  const { guests, random } = context
  const guest = guests.now
  if (guest === null) return register(context)
  // What the outcome of is unknown is settled by what is there: nobody goes on from it.
  guests.now = null
  const what = random(10)
  if (what < 2) await put(context, guest, `${guest.id}/${random(2)}`, size(random))
  else if (what < 5) await share(context, guest, host)
  else if (what === 5) return remove(context, guest)
  else if (guest.others.length === 0) guest.others.push(await openSession(context, guest))
  else if (what < 9) await logOut(context, guest)
  else await changePassword(context, guest)
  guests.now = guest
}

const size = (random: Context['random']): number => 1 + random(random(2) === 0 ? SMALL : FILE)

const ask = (
  context: Context,
  [method, path]: [string, string],
  { as, ...body }: { as?: { token: string }; [member: string]: unknown },
): Promise<Response> =>
  call(context, path, {
    method,
    ...(as !== undefined && { as }),
    ...(Object.keys(body).length > 0 && { body: JSON.stringify(body) }),
  })

const ended = (tokens: string[]): Record<string, null> =>
  Object.fromEntries(tokens.map((token) => [`session ${digestOf(token)}`, null]))

async function register(context: Context): Promise<void> {
  const { guests, recorded, mark } = context
  const id = `guest-${++guests.count}`
  const password = `${id}-first`
  const invitation = guests.invitations.pop()
  const spent = invitation === undefined ? {} : { [`invitation ${digestOf(invitation)}`]: null }
  const pending = begin(recorded, mark(), spent)
  const invited = invitation === undefined ? {} : { invitation }
  const answer = await ask(context, ['POST', '/account'], { id, password, ...invited })
  const { user, token } = (await answer.json()) as { user: string; token: string }
  pending.also({
    [`account ${user}`]: 'enabled',
    [`password ${user}`]: password,
    [`session ${digestOf(token)}`]: user,
  })
  pending.confirm(mark())
  recorded.people.push({ id, user, token })
  const feed = { cursor: undefined, known: new Map() }
  guests.now = { id, user, token, stores: new Map(), feed, password, others: [], changes: 0 }
}

/** Grants what is not granted, which the other leaves the next time. */
async function share(context: Context, guest: Guest, host: Person): Promise<void> {
  const { recorded, mark, random } = context
  const [name, store] = [...guest.stores][0] ?? []
  if (name === undefined || store === undefined) return
  const subject = (user: string): string => `permission ${name} ${user}`
  const [user] = store.grants.keys()
  if (user === undefined) {
    const permission = random(2) === 0 ? 'READ' : 'WRITE'
    const pending = begin(recorded, mark(), { [subject(host.user)]: permission })
    const body = JSON.stringify([{ user: host.user, permission }])
    await call(context, `/permission/${name}`, { method: 'PUT', as: guest, body })
    pending.confirm(mark())
    store.grants.set(host.user, permission)
  } else if (user === host.user) {
    const { headers } = await call(context, `/store/${name}`, { method: 'HEAD', as: guest })
    const path = `/permission/${headers.get('x-sync-key')}?users=${user}`
    const pending = begin(recorded, mark(), { [subject(user)]: null })
    await ask(context, ['DELETE', path], { as: host })
    pending.confirm(mark())
    store.grants.delete(user)
  }
}

/** Logs in; answers the token. */
export async function openSession(
  context: Context,
  { id, password }: { id: string; password: string },
): Promise<string> {
  const { recorded, mark } = context
  const pending = begin(recorded, mark(), {})
  const answer = await ask(context, ['POST', '/auth'], { id, password })
  const { user, token } = (await answer.json()) as { user: string; token: string }
  pending.also({ [`session ${digestOf(token)}`]: user })
  pending.confirm(mark())
  recorded.people.push({ id, user, token })
  return token
}

async function logOut(context: Context, guest: Guest): Promise<void> {
  const { recorded, mark } = context
  const token = guest.others.pop()
  if (token === undefined) return
  const pending = begin(recorded, mark(), ended([token]))
  await ask(context, ['DELETE', '/auth'], { as: { token } })
  pending.confirm(mark())
}

/** Ends all other sessions with it. */
async function changePassword(context: Context, guest: Guest): Promise<void> {
  const { recorded, mark } = context
  const password = `${guest.id}-${++guest.changes}`.padEnd(8, '-')
  const pending = begin(recorded, mark(), {
    [`password ${guest.user}`]: password,
    ...ended(guest.others),
  })
  await ask(context, ['POST', '/password'], { as: guest, password, current: guest.password })
  pending.confirm(mark())
  guest.password = password
  guest.others = []
}

async function remove(context: Context, guest: Guest): Promise<void> {
  const { recorded, mark } = context
  const changes = {
    [`account ${guest.user}`]: null,
    [`password ${guest.user}`]: null,
    ...ended([guest.token, ...guest.others]),
  }
  for (const name of guest.stores.keys()) Object.assign(changes, removed(guest, name))
  const pending = begin(recorded, mark(), changes)
  await ask(context, ['DELETE', '/account'], { as: guest })
  pending.confirm(mark())
}
