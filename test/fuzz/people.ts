// Owns who takes part: a bystander whose data must stay as it is, a friend to whom one store of it is
// shown, and members who come and go. The fuzz speaks for the friend and the members.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from '../helpers/client.ts'
import { expectStatus } from '../helpers/expect.ts'
import { PASSWORD } from '../helpers/node.ts'
import { post, remoteClient, type Opened } from '../helpers/remote.ts'

/** Stands in every id, key, value, password and device here; no log line and no error may have it. */
export const MARK = 'zq7mark'
/** Stands in what only the bystander may read. */
export const PRIVATE = 'zq7-for-nobody-else'

const FILE_BYTES = 100_000
const MEMBERS = 2
const MOST_LEARNT = 64

export interface Scene {
  /** The friend first; the last one may lose its sessions, its password and its account. */
  people: Opened[]
  /** Ids of the members. */
  ids: string[]
  /** The store key of what the bystander shows to the friend. */
  shared: string
  /** Tokens of versions, cursors and store keys that answers had, the latest last. */
  tokens: string[]
  cursors: string[]
  keys: string[]
}

export interface People {
  scene: Scene
  bystander: Bystander
  /** Replaces the members, and gives the friend back what it may have lost. */
  renew(): Promise<void>
}

interface Bystander {
  client: Client
  /** Throws unless all that it has is as it was. */
  check(): Promise<void>
  /** Throws unless its password opens a session. */
  logIn(): Promise<void>
}

export const learn = (list: string[], one: string | undefined): void => {
  if (one === undefined || list.includes(one)) return
  list.push(one)
  if (list.length > MOST_LEARNT) list.shift()
}

// Each from an address of its own: an address may register 20 an hour.
let opens = 0

/** Registers or logs in, however busy the server is with others who do. */
async function open(url: string, path: '/account' | '/auth', id: string): Promise<Opened> {
  for (;;) {
    const from = `192.0.${opens >> 8}.${opens++ & 255}`
    const answer = await post(url, path, { id, password: PASSWORD }, from)
    if (answer.status !== 503) return (await (await expectStatus(answer, 200)).json()) as Opened
    await answer.text()
    await pause(50)
  }
}

export async function gather(url: string): Promise<People> {
  const ids = { bystander: `${MARK} bystander`, friend: `${MARK} friend` }
  const opened = await open(url, '/account', ids.bystander)
  const client = remoteClient(url, opened)
  const friend = await open(url, '/account', ids.friend)
  await client.save(`${MARK} inline`, `${PRIVATE} ${'x'.repeat(500)}`)
  await client.save(`${MARK} file`, `${PRIVATE} ${'y'.repeat(FILE_BYTES)}`)
  const shared = await client.save(`${MARK} shared`, `${MARK} what the friend may read`)
  const scene: Scene = {
    people: [friend],
    ids: [],
    shared: shared.key,
    tokens: [],
    cursors: [],
    keys: [],
  }
  let round = 0

  async function renew(): Promise<void> {
    for (const { token } of scene.people.splice(1)) {
      await fetch(`${url}/account`, { method: 'DELETE', headers: bearer(token) })
    }
    const isIn = await fetch(`${url}/account`, { headers: bearer(scene.people[0]?.token ?? '') })
    if (!isIn.ok) scene.people = [await open(url, '/auth', ids.friend)]
    await isIn.text()
    await expectStatus(await client.grant(shared.key, friend.user, 'READ'), 200)
    round++
    scene.ids = Array.from({ length: MEMBERS }, (_, i) => `${MARK} member ${round} ${i}`)
    for (const id of scene.ids) scene.people.push(await open(url, '/account', id))
  }
  return { scene, renew, bystander: await watch(url, client, ids.bystander) }
}

const bearer = (token: string): Record<string, string> => ({ Authorization: `Bearer ${token}` })

async function watch(url: string, client: Client, id: string): Promise<Bystander> {
  const changes = async (query = ''): Promise<{ cursor: string; changes: unknown[] }> => {
    const answer = await expectStatus(await client.request(`/changes${query}`), 200)
    return (await answer.json()) as { cursor: string; changes: unknown[] }
  }
  async function state(): Promise<unknown[]> {
    const stores = await client.list()
    const read = stores.map(async ({ key }) => {
      const answer = await client.get(key)
      const { headers } = answer
      return [await answer.text(), headers.get('x-sync-token'), headers.get('x-sync-meta')]
    })
    const sessions = (await (await client.request('/account')).json()) as unknown[]
    return [stores, await Promise.all(read), sessions.length]
  }
  const was = await state()
  const { cursor } = await changes()
  return {
    client,
    async check() {
      assert.deepEqual(await state(), was, 'the bystander has what it had')
      const { changes: found } = await changes(`?since=${cursor}`)
      assert.deepEqual(found, [], 'nothing changed for the bystander')
    },
    async logIn() {
      const { user } = await open(url, '/auth', id)
      assert.equal(user, client.user)
    },
  }
}
