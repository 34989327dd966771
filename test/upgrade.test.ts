// Proves that an upgrade can be taken back for 7 days: with all that there was before it, and nothing
// of what came after.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { StartError } from '../src/errors.ts'
import { done, expectExact, leftovers, refused } from './helpers/backups.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { install } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode } from './helpers/node.ts'
import { SCHEMA, newerProgram, takeBack } from './helpers/newer.ts'
import { version } from './helpers/release.ts'
import { post, remoteClient, signUp } from './helpers/remote.ts'

const LARGE = 100_000
const DAY = 24 * 3_600_000
const COPY = `before-schema-${SCHEMA + 1}.db`
const FILE = 'backup.tar.zst'

const cursorOf = async (client: Client): Promise<string> =>
  ((await (await client.request('/changes')).json()) as { cursor: string }).cursor

async function textOf(client: Client, key: string): Promise<string> {
  return (await expectStatus(await client.get(key), 200)).text()
}

/** Data of this program, and two to run on it: this one and a newer one. */
async function withData(t: TestContext) {
  const old = install(t)
  const server = await old.serve()
  const opened = await signUp(server.url, { id: 'ana' })
  const ana = remoteClient(server.url, opened)
  for (const key of ['kept', 'edited', 'gone']) await ana.save(key, `${key} before`)
  const large = randomBytes(LARGE).toString('hex')
  await ana.save('large', large)
  const cursor = await cursorOf(ana)
  await server.stop()
  const newer = install(t, newerProgram(t))
  const there = { STATIC_ROOT: old.root }
  return {
    old,
    opened,
    large,
    cursor,
    serveNewer: () => newer.serve(there),
    runNewer: (...args: string[]) => newer.run(args, there),
    launchNewer: (...args: string[]) => newer.launch(args, there),
  }
}

/** What is done on the newer program, to be lost. */
async function work(url: string, ana: Client): Promise<string[]> {
  const { token } = await ana.save('edited', 'edited since', { 'X-Sync-Token': '*' })
  const large = await ana.save('large', randomBytes(LARGE), { 'X-Sync-Token': '*' })
  await expectStatus(await ana.delete('gone', '*'), 204)
  const made = await ana.save('made', randomBytes(LARGE))
  await signUp(url, { id: 'ben' })
  return [token, large.token, made.token]
}

function schemaOf(root: string): unknown {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  const row = database.prepare('SELECT schema FROM node').get()
  assert.equal(database.prepare('PRAGMA integrity_check').get()?.['integrity_check'], 'ok')
  database.close()
  return row?.['schema']
}

describe('sync-node rollback', () => {
  it('goes back to the data from before the upgrade, after saying what is lost', async (t) => {
    const { old, opened, large, cursor, serveNewer, runNewer } = await withData(t)
    const { root } = old
    const newer = await serveNewer()
    assert.match(newer.output().stdout, /the data is upgraded to schema/)
    assert.equal(statSync(join(root, COPY)).mode & 0o777, 0o600)
    const ana = remoteClient(newer.url, opened)
    const tokens = await work(newer.url, ana)
    const lost = await cursorOf(ana)
    assert.match(refused(await runNewer('rollback', '--yes')), /in use: stop the server first/)
    await newer.stop()
    for (const args of [['serve'], ['account', 'list'], ['backup', FILE]]) {
      assert.match(refused(await old.run(args)), /written by a newer sync-node/)
    }
    const looked = await old.run(['doctor'])
    assert.equal(looked.code, 1)
    assert.match(looked.stdout, /^problem +schema: The data was written by a newer sync-node/m)

    const asked = await runNewer('rollback')
    assert.deepEqual([asked.code, schemaOf(root)], [1, SCHEMA + 1])
    assert.match(asked.stderr, /Nothing was done: Go back\? Say so by --yes\.\n$/)
    const { code, stderr } = await runNewer('rollback', '--yes')
    assert.equal(code, 0, stderr)
    assert.match(stderr, /\n +2 stores were written, 1 created, 1 deleted; 1 accounts were made;\n/)
    assert.ok(stderr.includes(`\nDone. Start sync-node ${version} now: `), stderr)
    assert.deepEqual([schemaOf(root), leftovers(root)], [SCHEMA, { copies: [], holds: 0 }])
    assert.match(refused(await runNewer('rollback', '--yes')), /no copy from before an upgrade/)

    const server = await old.serve()
    const again = remoteClient(server.url, opened)
    for (const key of ['kept', 'edited', 'gone']) {
      assert.equal(await textOf(again, key), `${key} before`)
    }
    assert.equal(await textOf(again, 'large'), large)
    assert.equal((await again.list()).length, 4)
    const ben = { id: 'ben', password: PASSWORD }
    await expectProblem(await post(server.url, '/auth', ben), 'AUTH02', 401)
    await expectForgotten(again, { cursor, lost, tokens })
    // The files written since have no row any more.
    await eventually(() => readdirSync(join(root, 'trash')).length, 2)
    await server.stop()
    expectExact(root)
    await (await serveNewer()).stop()
    assert.equal(schemaOf(root), SCHEMA + 1)
  })

  it('ends in the one or the other, wherever it is killed', async (t) => {
    const { old, opened, serveNewer, runNewer, launchNewer } = await withData(t)
    const newer = await serveNewer()
    const ana = remoteClient(newer.url, opened)
    for (let i = 0; i < 500; i++) await ana.save(`filler ${i}`, randomBytes(15_000))
    await newer.stop()
    for (let ms = 300; schemaOf(old.root) === SCHEMA + 1 && ms < 1000; ms += 100) {
      const child = launchNewer('rollback', '--yes')
      await Promise.race([pause(ms), child.ended])
      await child.stop('SIGKILL')
      assert.doesNotMatch(child.output().stderr, /Going back to 19/)
    }
    if (schemaOf(old.root) === SCHEMA + 1) done(await runNewer('rollback', '--yes'))
    const server = await old.serve()
    assert.equal((await remoteClient(server.url, opened).list()).length, 4)
    await server.stop()
    expectExact(old.root)
  })

  it('is refused when the copy is damaged, and changes nothing', async (t) => {
    const { old, serveNewer, runNewer } = await withData(t)
    await (await serveNewer()).stop()
    const copy = join(old.root, COPY)
    writeFileSync(copy, readFileSync(copy).fill(7, 3 * 4096, 4 * 4096))
    const { code, stderr } = await runNewer('rollback', '--yes')
    assert.deepEqual([code, schemaOf(old.root)], [1, SCHEMA + 1])
    assert.match(stderr, /\nsync-node: The copy from before the upgrade is damaged: [^\n]*\n$/)
    await (await serveNewer()).stop()
  })

  it('is refused where there is no data, and none is made', async (t) => {
    const here = install(t)
    assert.match(refused(await here.run(['rollback', '--yes'])), /holds no data/)
    assert.deepEqual(readdirSync(here.folder), [])
  })
})

/** Nothing that was handed out after the copy is known, or comes again. */
async function expectForgotten(
  client: Client,
  { cursor, lost, tokens }: { cursor: string; lost: string; tokens: string[] },
): Promise<void> {
  const later: string[] = []
  for (let round = 0; round < 12; round++) {
    await expectStatus(await client.request(`/changes?since=${cursor}`), 200)
    await expectProblem(await client.request(`/changes?since=${lost}`), 'FEED01', 410)
    later.push((await client.save('kept', 'again', { 'X-Sync-Token': '*' })).token)
  }
  const all = [...tokens, ...later]
  assert.equal(new Set(all).size, all.length, 'a token was used twice')
}

describe('A backup and an upgrade', () => {
  it('of an older schema is restored, and upgraded by the start; a newer one is refused', async (t) => {
    const { old, opened, large, serveNewer, runNewer } = await withData(t)
    const file = join(old.folder, FILE)
    done(await old.run(['backup', FILE]))
    rmSync(old.root, { recursive: true })
    done(await runNewer('restore', file))
    const newer = await serveNewer()
    assert.equal(await textOf(remoteClient(newer.url, opened), 'large'), large)
    rmSync(file)
    done(await runNewer('backup', file))
    await newer.stop()
    const elsewhere = { STATIC_ROOT: join(old.folder, 'elsewhere') }
    for (const command of ['verify', 'restore']) {
      assert.match(refused(await old.run([command, file], elsewhere)), /made by a newer sync-node/)
    }
    assert.deepEqual(readdirSync(old.folder).sort(), [FILE, 'data'])
  })
})

describe('The copy that an upgrade keeps', () => {
  const name = 'before-schema-3.db'

  async function withOlder(t: TestContext) {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('large', randomBytes(LARGE))
    await node.stop()
    takeBack(node.root)
    return { node, ana, names: () => leftovers(node.root).copies }
  }

  it('is not made where nothing is upgraded', async (t) => {
    const node = await startNode(t)
    await node.restart()
    assert.deepEqual(leftovers(node.root), { copies: [], holds: 0 })
  })

  it('goes after 7 days, and with it the files that it needs', async (t) => {
    const { node, ana, names } = await withOlder(t)
    await node.restart()
    await ana.save('large', 'small', { 'X-Sync-Token': '*' })
    const later = async (ms: number): Promise<number> => {
      node.advance(ms)
      for (let round = 0; round < 2; round++) await node.running.housekeep()
      return readdirSync(join(node.root, 'blobs')).length
    }
    for (let day = 0; day < 6; day++) assert.equal(await later(DAY), 1)
    await node.restart()
    assert.equal(await later(DAY - 3_600_000), 1)
    assert.deepEqual(names(), [name])
    assert.equal(await later(3_600_000), 0)
    assert.deepEqual(leftovers(node.root), { copies: [], holds: 0 })
  })

  it('holds no files any more when its operator removes it', async (t) => {
    const { node, ana } = await withOlder(t)
    await node.restart()
    await ana.save('large', 'small', { 'X-Sync-Token': '*' })
    rmSync(join(node.root, name))
    node.advance(3_600_000)
    for (let round = 0; round < 2; round++) await node.running.housekeep()
    assert.deepEqual(readdirSync(join(node.root, 'blobs')), [])
  })

  it('takes the place of what an earlier attempt left', async (t) => {
    const { node } = await withOlder(t)
    for (const left of [name, `${name}.new`])
      writeFileSync(join(node.root, left), 'of another time')
    await node.restart()
    assert.deepEqual(leftovers(node.root).copies, [name])
    const copy = new DatabaseSync(join(node.root, name), { readOnly: true })
    assert.equal(copy.prepare('SELECT schema FROM node').get()?.['schema'], 2)
    copy.close()
  })

  it('has to have room, or nothing is upgraded', async (t) => {
    const { node } = await withOlder(t)
    const before = readFileSync(join(node.root, 'sync-node.db'))
    await assert.rejects(
      startNode(t, {}, { root: node.root, floorBytes: 2 ** 60 }),
      (error) =>
        error instanceof StartError && /no room on the disk for a copy/.test(error.message),
    )
    assert.ok(readFileSync(join(node.root, 'sync-node.db')).equals(before))
    assert.deepEqual(leftovers(node.root), { copies: [], holds: 0 })
    await node.restart()
  })
})
