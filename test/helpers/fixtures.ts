// Owns test/fixtures/: for each schema that there ever was a backup of a server of that time, and what
// its people were told then. One is never made anew once a release has it.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { done } from './backups.ts'
import type { Client, Listed } from './client.ts'
import { install, type Server } from './executable.ts'
import { expectStatus } from './expect.ts'
import { SCHEMA } from './newer.ts'
import { remoteClient, signUp } from './remote.ts'

/** What an account was told, which is to hold ever after. */
export interface Told {
  list: Listed[]
  /** Of what it reads, by name and by store key. */
  values: Record<string, { key: string; digest: string }>
  /** From before the last changes. */
  cursor: string
  changes: { key: string }[]
  /** From after the backup, which no server that is restored from it ever gave. */
  lost: string
}

/** By account id. */
export type Fixture = Record<string, Told>

export const folder = fileURLToPath(new URL('../fixtures/', import.meta.url))

export const backupOf = (schema: number): string => join(folder, `schema-${schema}.tar.zst`)

const toldOf = (schema: number): string => join(folder, `schema-${schema}.json`)

export const read = (schema: number): Fixture =>
  JSON.parse(readFileSync(toldOf(schema), 'utf8')) as Fixture

/** What each account made, by its own names. */
const NAMES = {
  ana: ['empty', 'notes/todo', 'notes/ünïcode ☀', 'inline', 'file', 'edited', 'both'],
  ben: ['list'],
}
// Any other would do, too: it is kept so that a fixture that is made anew differs in nothing but time.
const SECRET = 'of-no-use-to-anybody-but-the-fixtures-here_'
const INLINE = 'i'.repeat(16_384)
const FILE = 'f'.repeat(16_385)
const ANY = { 'X-Sync-Token': '*' }

/** Makes that of the newest schema, unless it is there. `command` is what is run. */
export async function make(t: TestContext, command?: string[], schema = SCHEMA): Promise<void> {
  const here = install(t, command)
  mkdirSync(here.root, { mode: 0o700 })
  writeFileSync(join(here.root, 'secret'), SECRET, { mode: 0o600 })
  const server = await here.serve()
  const ana = await open(server, 'ana')
  const ben = await open(server, 'ben')
  await fill(ana, ben)
  for (const args of [['invite'], ['reset', 'ben']]) done(await here.run(args))
  const cursors = { ana: (await changes(ana)).cursor, ben: (await changes(ben)).cursor }
  await ana.save('edited', 'the second version', ANY)
  await expectStatus(await ben.grant('list', 'ana', 'WRITE'), 200)
  const told = {
    ana: await tell(ana, NAMES.ana, cursors.ana),
    ben: await tell(ben, NAMES.ben, cursors.ben),
  }
  done(await here.run(['backup', backupOf(schema)]))
  await ana.save('edited', 'lost', ANY)
  await ben.save('made', 'lost')
  const fixture: Fixture = {
    ana: { ...told.ana, lost: (await changes(ana)).cursor },
    ben: { ...told.ben, lost: (await changes(ben)).cursor },
  }
  writeFileSync(toldOf(schema), `${JSON.stringify(fixture, null, 2)}\n`, { flag: 'wx' })
}

const open = async ({ url }: Server, id: string): Promise<Client> =>
  remoteClient(url, await signUp(url, { id }))

async function fill(ana: Client, ben: Client): Promise<void> {
  await ana.save('empty', '')
  await ana.save('notes/todo', 'buy milk', { 'X-Sync-Meta': 'bm90ZXMvdG9kbw' })
  await ana.save('notes/ünïcode ☀', 'sun')
  await ana.save('inline', INLINE)
  await ana.save('file', FILE)
  await ana.save('edited', 'the first version')
  await ana.save('both', 'owned by two')
  const { token } = await ana.save('gone', 'deleted')
  await expectStatus(await ana.delete('gone', token), 204)
  await expectStatus(await ana.grant('notes/todo', 'ben', 'READ'), 200)
  await expectStatus(await ana.grant('both', 'ben', 'OWN'), 200)
  await ben.save('list', 'of ben')
  await expectStatus(await ben.grant('list', 'ana', 'READ'), 200)
}

export interface Page {
  cursor: string
  changes: { key: string }[]
}

export async function changes(client: Client, since?: string): Promise<Page> {
  const path = since === undefined ? '/changes' : `/changes?since=${since}`
  const response = await expectStatus(await client.request(path), 200)
  return (await response.json()) as Page
}

async function tell(client: Client, names: string[], cursor: string): Promise<Omit<Told, 'lost'>> {
  const list = await client.list()
  const values: Told['values'] = {}
  for (const name of [...names, ...list.map(({ key }) => key)]) {
    values[name] = await readValue(client, name)
  }
  const page = await changes(client, cursor)
  return { list, values, cursor, changes: page.changes }
}

/** Reads it whole; answers what tells that it is the same. */
export async function readValue(client: Client, name: string): Promise<Told['values'][string]> {
  const response = await expectStatus(await client.get(name), 200)
  const sha256 = createHash('sha256').update(Buffer.from(await response.arrayBuffer()))
  const digest = `sha-256=:${sha256.digest('base64')}:`
  assert.equal(response.headers.get('repr-digest'), digest, name)
  return { key: response.headers.get('x-sync-key') as string, digest }
}
