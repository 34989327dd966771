// Owns what is tried on a disk that fails: each change that a client can make, and how to see whether it
// happened.
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { Client } from '../helpers/client.ts'
import { PASSWORD } from '../helpers/node.ts'
import type { Opened } from '../helpers/remote.ts'
import { mailed } from './mailed.ts'
import { bytes, type Place, type Scope } from './place.ts'

/** One request, and what it changes. */
export interface Change {
  act(): Promise<Response>
  /** 'old' or 'new'; anything else is neither. */
  look(): Promise<string>
  /** Done or not, whatever is answered. */
  promisesNothing?: true
}

export interface Deed {
  name: string
  /** What it changes by, as the route table has it. */
  route: string
  /** So many cases, by chance, of one that takes its time. */
  most?: number
  /** SQLite writes some of it before the commit: it is more than fits in its memory. */
  spills?: true
  settings?(scope: Scope): Promise<Record<string, string>>
  /** `turn` is another number each time. */
  prepare(place: Place, turn: number): Promise<Change[]>
}

const SMALL = 3000
const LARGE = 150_000
const MIB = 1024 * 1024
// Above what is synced while the rest comes in.
const VAST = 20 * MIB + 1
const MOST_VAST = 60
const NEXT_PASSWORD = 'battery horse correct'

/** Sees a value as it was, or as it should be; null is none. */
function seen(
  client: Client,
  key: string,
  { was, wanted }: { was: Buffer | null; wanted: Buffer | null },
) {
  return async (): Promise<string> => {
    const response = await client.get(key)
    const found = Buffer.from(await response.arrayBuffer())
    const is = (value: Buffer | null): boolean =>
      value === null ? response.status === 404 : response.status === 200 && value.equals(found)
    const isListed = (await client.list()).some(
      (store) => store.token === response.headers.get('x-sync-token'),
    )
    if (isListed !== (response.status === 200)) return `GET ${response.status}, listed: ${isListed}`
    if (is(was)) return 'old'
    return is(wanted) ? 'new' : `GET ${response.status}, ${found.length} bytes`
  }
}

/** A write to one store, of so many bytes before and after; null is none. */
function write(name: string, before: number | null, after: number | null, most?: number): Deed {
  return {
    name,
    route: `${after === null ? 'DELETE' : 'PUT'} /store/{key}`,
    ...(most !== undefined && { most }),
    async prepare({ keeper }, turn) {
      return [await writeOf(keeper, `${name} ${turn}`, { before, after, turn })]
    },
  }
}

async function writeOf(
  client: Client,
  key: string,
  { before, after, turn }: { before: number | null; after: number | null; turn: number },
): Promise<Change> {
  const was = before === null ? null : bytes(before, turn)
  const wanted = after === null ? null : bytes(after, turn + 1)
  const token = was === null ? undefined : (await client.save(key, was)).token
  const headers = token === undefined ? undefined : { 'X-Sync-Token': token }
  return {
    act: () => (wanted === null ? client.delete(key, token) : client.put(key, wanted, headers)),
    look: seen(client, key, { was, wanted }),
  }
}

const several: Deed = {
  name: 'PUT, four at once',
  route: 'PUT /store/{key}',
  async prepare({ keeper }, turn) {
    const sizes: [number | null, number][] = [
      [null, SMALL],
      [SMALL, SMALL],
      [null, LARGE],
      [LARGE, LARGE],
    ]
    const changes: Change[] = []
    for (const [one, [before, after]] of sizes.entries()) {
      changes.push(
        await writeOf(keeper, `several ${turn} ${one}`, { before, after, turn: turn + one }),
      )
    }
    return changes
  },
}

const batch: Deed = {
  name: 'POST /batch',
  route: 'POST /batch',
  async prepare({ keeper }, turn) {
    const value = (one: number): Buffer => bytes(SMALL, turn + one)
    const [made, replaced, deleted, checked] = ['a', 'b', 'c', 'd'].map(
      (one) => `batch ${turn} ${one}`,
    ) as [string, string, string, string]
    const tokens: string[] = []
    for (const key of [replaced, deleted, checked])
      tokens.push((await keeper.save(key, value(0))).token)
    const [second, third, fourth] = tokens
    const operations = [
      { put: made, data: value(1).toString('base64') },
      { put: replaced, token: second, data: value(2).toString('base64') },
      { delete: deleted, token: third },
      { check: checked, token: fourth },
    ]
    const looks = [
      seen(keeper, made, { was: null, wanted: value(1) }),
      seen(keeper, replaced, { was: value(0), wanted: value(2) }),
      seen(keeper, deleted, { was: value(0), wanted: null }),
    ]
    return [
      {
        act: () =>
          keeper.request('/batch', { method: 'POST', body: JSON.stringify({ operations }) }),
        look: async () => {
          const all: string[] = []
          for (const look of looks) all.push(await look())
          return new Set(all).size === 1 ? (all[0] as string) : `torn: ${all.join()}`
        },
      },
    ]
  },
}

/** An account for the deeds that change accounts; the same for all turns of a deed where it can be. */
async function friend(place: Place, id: string): Promise<Client> {
  const login = await place.logIn(id)
  return login.ok ? place.as(id, (await login.json()) as Opened) : place.signUp(id)
}

function grantee(
  name: string,
  { from, to, leaves = false }: { from: string | null; to: string | null; leaves?: boolean },
): Deed {
  return {
    name,
    route: `${to === null ? 'DELETE' : 'PUT'} /permission/{key}`,
    async prepare(place, turn) {
      const { keeper } = place
      const ben = await friend(place, 'ben')
      const { key } = await keeper.save(`shared ${name} ${turn}`, 'value')
      if (from !== null) assert.ok((await keeper.grant(key, ben.user, from)).ok)
      return [
        {
          act: () =>
            to === null
              ? (leaves ? ben : keeper).revoke(key, ben.user)
              : keeper.grant(key, ben.user, to),
          async look() {
            const members = (await (await keeper.request(`/permission/${key}`)).json()) as {
              user: string
              permission: string
            }[]
            const permission = members.find(({ user }) => user === ben.user)?.permission ?? null
            const isReadable = (await ben.get(key)).ok
            if (isReadable !== (permission !== null))
              return `${permission}, readable: ${isReadable}`
            return permission === to ? 'new' : permission === from ? 'old' : String(permission)
          },
        },
      ]
    },
  }
}

/** Keeps the session that an answer opened, which from then on has to live. */
function opening(place: Place, id: string, act: () => Promise<Response>) {
  const state: { self?: Client } = {}
  return {
    async act() {
      const response = await act()
      if (response.ok) state.self = place.as(id, (await response.clone().json()) as Opened)
      return response
    },
    /** False when a session was answered, and is none. */
    isAlive: async () => state.self === undefined || (await state.self.request('/account')).ok,
  }
}

const postAccount = (place: Place, body: object): Promise<Response> =>
  place.request('/account', { method: 'POST', body: JSON.stringify(body) })

function registration(name: string, invited: boolean): Deed {
  return {
    name,
    route: 'POST /account',
    ...(invited && { settings: async () => ({ REGISTRATION: 'invite' }) }),
    async prepare(place, turn) {
      const id = `${name} ${turn}`
      const invitation = invited ? (await place.run(['invite'])).stdout.trim() : undefined
      const { act, isAlive } = opening(place, id, () =>
        postAccount(place, { id, password: PASSWORD, invitation }),
      )
      return [
        {
          act,
          async look() {
            const { status } = await place.logIn(id)
            if (status === 401) return 'old'
            if (!(await isAlive())) return 'a session that does not live'
            if (!invited) return status === 200 ? 'new' : String(status)
            const again = await postAccount(place, {
              id: `${id} again`,
              password: PASSWORD,
              invitation,
            })
            return status === 200 && again.status === 403
              ? 'new'
              : `${status}, invitation: ${again.status}`
          },
        },
      ]
    },
  }
}

const devices = async (self: Client): Promise<(string | undefined)[]> =>
  ((await (await self.request('/account')).json()) as { device?: string }[]).map(
    ({ device }) => device,
  )

const login: Deed = {
  name: 'POST /auth',
  route: 'POST /auth',
  async prepare(place, turn) {
    const ana = await friend(place, 'ana')
    const device = `phone ${turn}`
    const body = JSON.stringify({ id: 'ana', password: PASSWORD, device })
    const { act, isAlive } = opening(place, 'ana', () =>
      place.request('/auth', { method: 'POST', body }),
    )
    return [
      {
        act,
        async look() {
          if (!(await devices(ana)).includes(device)) return 'old'
          return (await isAlive()) ? 'new' : 'a session that does not live'
        },
      },
    ]
  },
}

/** Ends a session, by itself or from another. */
function logout(name: string, fromAnother: boolean): Deed {
  return {
    name,
    route: name,
    async prepare(place) {
      const ending = await friend(place, 'ana')
      const other = await friend(place, 'ana')
      const sessions = (await (await ending.request('/account')).json()) as {
        token: string
        current: boolean
      }[]
      const handle = sessions.find(({ current }) => current)?.token
      return [
        {
          act: () =>
            fromAnother
              ? other.request(`/auth/${handle}`, { method: 'DELETE' })
              : ending.request('/auth', { method: 'DELETE' }),
          async look() {
            const { status } = await ending.request('/account')
            const isListed = (await (await other.request('/account')).text()).includes(
              String(handle),
            )
            return status === 200 && isListed
              ? 'old'
              : status === 401 && !isListed
                ? 'new'
                : `${status}, listed: ${isListed}`
          },
        },
      ]
    },
  }
}

/** Which of both passwords is taken, and whether another session lives. */
async function passwordState(place: Place, id: string, other: Client): Promise<string> {
  const now = await place.logIn(id)
  const next = await place.logIn(id, NEXT_PASSWORD)
  const { status } = await other.request('/account')
  const state = [now.status, next.status, status].join()
  return state === '200,401,200' ? 'old' : state === '401,200,401' ? 'new' : state
}

const password: Deed = {
  name: 'POST /password',
  route: 'POST /password',
  async prepare(place, turn) {
    const id = `password ${turn}`
    const other = await place.signUp(id)
    const self = await friend(place, id)
    const body = JSON.stringify({ password: NEXT_PASSWORD, current: PASSWORD })
    return [
      {
        act: () => self.request('/password', { method: 'POST', body }),
        look: () => passwordState(place, id, other),
      },
    ]
  },
}

const reset: Deed = {
  name: 'POST /password, reset token',
  route: 'POST /password',
  async prepare(place, turn) {
    const id = `reset ${turn}`
    const other = await place.signUp(id)
    const { stdout } = await place.run(['reset', id])
    const body = JSON.stringify({ password: NEXT_PASSWORD, token: stdout.trim() })
    return [
      {
        act: () => place.request('/password', { method: 'POST', body }),
        look: () => passwordState(place, id, other),
      },
    ]
  },
}

const deletion: Deed = {
  name: 'DELETE /account',
  route: 'DELETE /account',
  async prepare(place, turn) {
    const id = `deleted ${turn}`
    const self = await place.signUp(id)
    const ben = await friend(place, 'ben')
    await self.save('own', bytes(LARGE, turn))
    const { key } = await self.save('shared', 'value')
    assert.ok((await self.grant('shared', ben.user, 'READ')).ok)
    return [
      {
        act: () => self.request('/account', { method: 'DELETE' }),
        async look() {
          const states = [await self.request('/account'), await self.get('own'), await ben.get(key)]
          const state = states.map(({ status }) => status).join()
          return state === '200,200,200' ? 'old' : state === '401,401,404' ? 'new' : state
        },
      },
    ]
  },
}

const CHECKPOINT_BYTES = 16 * MIB
const ONE = 16 * 1024

const fillers = (count: number): string =>
  JSON.stringify({
    operations: Array.from({ length: count }, (_, one) => ({
      put: `filler ${one}`,
      token: '*',
      data: bytes(ONE, one).toString('base64'),
    })),
  })

/** A write after which the log of the database is large enough for a checkpoint. */
const checkpoint: Deed = {
  name: 'a checkpoint',
  route: 'POST /batch',
  spills: true,
  async prepare({ keeper, root }, turn) {
    const log = (): number => statSync(join(root, 'sync-node.db-wal')).size
    await keeper.request('/batch', {
      method: 'POST',
      body: fillers(340).replaceAll(',"token":"*"', ''),
    })
    for (let left = CHECKPOINT_BYTES - log(); left > 2 * MIB; left = CHECKPOINT_BYTES - log()) {
      const count = Math.min(340, Math.floor((left - MIB) / (1.5 * ONE)))
      assert.ok((await keeper.request('/batch', { method: 'POST', body: fillers(count) })).ok)
    }
    const change = await writeOf(keeper, `checkpoint ${turn}`, { before: null, after: SMALL, turn })
    const operations = [
      ...(JSON.parse(fillers(130)) as { operations: object[] }).operations,
      { put: `checkpoint ${turn}`, data: bytes(SMALL, turn + 1).toString('base64') },
    ]
    return [
      {
        ...change,
        act: () =>
          keeper.request('/batch', { method: 'POST', body: JSON.stringify({ operations }) }),
      },
    ]
  },
}

export const deeds: Deed[] = [
  write('PUT, new', null, SMALL),
  write('PUT, new file', null, LARGE),
  write('PUT, in place', SMALL, SMALL),
  write('PUT, file for small', SMALL, LARGE),
  write('PUT, file for file', LARGE, LARGE),
  write('PUT, small for file', LARGE, SMALL),
  write('PUT, new file of many syncs', null, VAST, MOST_VAST),
  write('PUT, file of many syncs for another', VAST, VAST, MOST_VAST),
  write('DELETE', SMALL, null),
  write('DELETE, file', LARGE, null),
  several,
  batch,
  grantee('PUT /permission', { from: null, to: 'READ' }),
  grantee('PUT /permission, more', { from: 'READ', to: 'OWN' }),
  grantee('DELETE /permission', { from: 'WRITE', to: null }),
  grantee('DELETE /permission, leaving', { from: 'WRITE', to: null, leaves: true }),
  registration('POST /account', false),
  registration('POST /account, invited', true),
  login,
  logout('DELETE /auth', false),
  logout('DELETE /auth/{handle}', true),
  password,
  reset,
  mailed,
  deletion,
  checkpoint,
]
