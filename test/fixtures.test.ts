// Proves that data of every schema there ever was opens with this program, with all that is in it; that
// the way back from that is open; and that no schema comes without data of it to prove this with.
//
//   MAKE_FIXTURE=1 make test T=fixtures    makes that of a new migration: commit it with the migration
import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import { done, expectExact, leftovers } from './helpers/backups.ts'
import type { Client } from './helpers/client.ts'
import { install, type Server } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import * as fixtures from './helpers/fixtures.ts'
import { SCHEMA } from './helpers/newer.ts'
import { PASSWORD } from './helpers/node.ts'
import { post, remoteClient, type Opened } from './helpers/remote.ts'

const MOST_BYTES = 32_000
const SCHEMAS = Array.from({ length: SCHEMA }, (_, index) => index + 1)
/** What is of the running server alone, and in no backup. */
const PASSING = ['hold', 'blob_garbage']

if (process.env['MAKE_FIXTURE'] !== undefined) {
  it('makes data of the newest schema', async (t) => fixtures.make(t))
}

describe('The data kept of earlier schemas', () => {
  it('is there for every migration', () => {
    const missing = SCHEMAS.filter((schema) => !existsSync(fixtures.backupOf(schema)))
    assert.deepEqual(missing, [], 'MAKE_FIXTURE=1 make test T=fixtures makes it')
    assert.equal(readdirSync(fixtures.folder).length, 2 * SCHEMA)
  })

  it('is small', () => {
    for (const name of readdirSync(fixtures.folder)) {
      assert.ok(statSync(join(fixtures.folder, name)).size < MOST_BYTES, name)
    }
  })
})

async function logIn({ url }: Server, id: string): Promise<Client> {
  const answer = await expectStatus(await post(url, '/auth', { id, password: PASSWORD }), 200)
  return remoteClient(url, (await answer.json()) as Opened)
}

/** Everything is as the account was told, and is found as it was asked for. */
async function expectTold(client: Client, told: fixtures.Told): Promise<void> {
  assert.partialDeepStrictEqual(await client.list(), told.list)
  assert.equal((await client.list()).length, told.list.length)
  for (const [name, value] of Object.entries(told.values)) {
    assert.deepEqual(await fixtures.readValue(client, name), value, name)
  }
}

/** A device of that time goes on where it was, and begins anew if it was further. */
async function expectFeed(client: Client, { cursor, changes, lost }: fixtures.Told): Promise<void> {
  const page = await fixtures.changes(client, cursor)
  assert.partialDeepStrictEqual(page.changes, changes)
  assert.equal(page.changes.length, changes.length)
  await expectProblem(await client.request(`/changes?since=${lost}`), 'FEED01', 410)
  const { key } = await client.save(`after ${client.id}`, 'written since')
  const next = await fixtures.changes(client, page.cursor)
  assert.deepEqual(
    next.changes.map((change) => change.key),
    [key],
  )
  await expectStatus(await client.delete(key, '*'), 204)
}

function open(root: string): DatabaseSync {
  return new DatabaseSync(join(root, 'sync-node.db'))
}

function expectFilled(root: string): void {
  const database = open(root)
  const tables = database.prepare(`SELECT name FROM sqlite_schema WHERE type = 'table'`).all()
  const names = tables.map(({ name }) => String(name))
  const empty = names.filter((name) => !database.prepare(`SELECT 1 FROM "${name}"`).get())
  database.close()
  assert.deepEqual(empty.sort(), PASSING.toSorted(), 'a migration has to meet rows of every table')
}

function schemaOf(root: string): unknown {
  const database = open(root)
  const row = database.prepare('SELECT schema FROM node').get()
  database.close()
  return row?.['schema']
}

/** An installation on the data of that schema, which no server has opened yet. */
async function restored(t: TestContext, schema: number) {
  const here = install(t)
  done(await here.run(['restore', fixtures.backupOf(schema)]))
  return here
}

describe('Data of an earlier schema', () => {
  for (const schema of SCHEMAS) {
    it(`${schema} opens, with all that is in it, and devices of that time sync on`, async (t) => {
      const here = await restored(t, schema)
      expectFilled(here.root)
      assert.equal(schemaOf(here.root), schema)
      const told = fixtures.read(schema)
      const server = await here.serve()
      for (const [id, one] of Object.entries(told)) {
        const client = await logIn(server, id)
        await expectTold(client, one)
        await expectFeed(client, one)
        await expectTold(client, one)
      }
      await server.stop()
      assert.equal(schemaOf(here.root), SCHEMA)
      done(await here.run(['doctor', '--deep']))
      expectExact(here.root)
    })
  }

  for (const schema of SCHEMAS.slice(-2, -1)) {
    it('can be had back by a rollback, and upgraded again', async (t) => {
      const here = await restored(t, schema)
      const server = await here.serve()
      const copy = `before-schema-${SCHEMA}.db`
      assert.deepEqual(leftovers(here.root), { copies: [copy], holds: 1 })
      await (await logIn(server, 'ana')).save('made since', 'lost')
      await server.stop('SIGKILL')
      done(await here.run(['rollback', '--yes']))
      assert.equal(schemaOf(here.root), schema)
      const again = await here.serve()
      const told = fixtures.read(schema)
      for (const [id, one] of Object.entries(told)) await expectTold(await logIn(again, id), one)
      await again.stop()
      expectExact(here.root)
    })
  }
})
