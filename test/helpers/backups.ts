// Owns what tests do with backups: a server with data to back up, and what must hold of what comes back.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { TestContext } from 'node:test'
import { backup, type Target } from '../../src/backup.ts'
import { readConfig } from '../../src/config.ts'
import { openLog } from '../../src/log.ts'
import { openForCommand } from '../../src/node.ts'
import type { Client } from './client.ts'
import { install, type Installation, type Ran, type Server } from './executable.ts'
import { expectStatus } from './expect.ts'
import { remoteClient, signUp, type Opened } from './remote.ts'

export interface Served {
  here: Installation
  server: Server
  opened: Opened
  ana: Client
  /** By key, what was put. */
  values: Map<string, Buffer>
}

/** An executable that serves an account with three small values and three files. */
export async function serveValues(
  t: TestContext,
  { environment = {}, sizes = [0, 5, 16_384, 16_385, 200_000, 1_000_000] } = {},
): Promise<Served> {
  const here = install(t)
  const server = await here.serve(environment)
  const opened = await signUp(server.url, { id: 'ana' })
  const ana = remoteClient(server.url, opened)
  const values = new Map<string, Buffer>()
  for (const [index, size] of sizes.entries()) {
    const value = randomBytes(size)
    values.set(`value ${index}`, value)
    await expectStatus(await ana.put(`value ${index}`, value), 201)
  }
  return { here, server, opened, ana, values }
}

/** For what is done in this process: nobody watches it, nobody stops it. */
export const unwatched = () => ({
  signal: new AbortController().signal,
  begin: (): void => undefined,
  add: (): void => undefined,
})

/** Makes a backup in this process, as a command beside the server. */
export async function backupOf({ root }: { root: string }, write: Target['write']): Promise<void> {
  const { deps, close } = await openForCommand(
    readConfig({ STATIC_ROOT: root }),
    openLog({ logLevel: 'silent' }),
  )
  try {
    await backup(deps, { write, restart: null }, unwatched())
  } finally {
    await close()
  }
}

/** It was done; answers what stands on stdout. */
export function done({ code, stdout, stderr }: Ran): string {
  assert.equal(code, 0, stderr)
  return stdout
}

/** It was refused in one line; answers that. */
export function refused({ code, stdout, stderr }: Ran): string {
  assert.deepEqual([code, stdout], [1, ''], stderr)
  const said = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Data: '))
  assert.equal(said.length, 1, stderr)
  return said[0] as string
}

export async function expectValues(client: Client, values: Map<string, Buffer>): Promise<void> {
  for (const [key, value] of values) {
    const read = await expectStatus(await client.get(key), 200)
    assert.ok(Buffer.from(await read.arrayBuffer()).equals(value), `${key} is another`)
  }
  assert.equal((await client.list()).length, values.size)
}

/** The database that no server has open is whole, and its sums are exact. */
export function expectExact(root: string): void {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  const all = (query: string): unknown[] => database.prepare(query).all()
  assert.deepEqual(
    all('PRAGMA integrity_check').map((row) => Object.values(row as object)),
    [['ok']],
  )
  assert.deepEqual(all('PRAGMA foreign_key_check'), [])
  assert.deepEqual(
    all(`SELECT a.used, coalesce(sum(s.size), 0) AS owned FROM sync_account a
      LEFT JOIN account_permission p ON p.sync_account_id = a.number AND p.permission = 'OWN'
      LEFT JOIN sync_store s USING (store_key)
      GROUP BY a.number HAVING a.used <> owned`),
    [],
  )
  assert.deepEqual(
    all(`SELECT 1 FROM node WHERE stores <> (SELECT count(*) FROM sync_store)
      OR bytes <> (SELECT sum(size) FROM sync_store)
      OR garbage <> (SELECT count(*) FROM blob_garbage)`),
    [],
  )
  const named = all('SELECT store_file AS name FROM sync_store WHERE store_file IS NOT NULL')
  const files = readdirSync(join(root, 'blobs'))
  assert.deepEqual(
    named.filter((row) => !files.includes((row as { name: string }).name)),
    [],
    'each file is there',
  )
  database.close()
}

/** Copies of the database in a folder of data, and what holds files there. */
export function leftovers(root: string): { copies: string[]; holds: number } {
  const database = new DatabaseSync(join(root, 'sync-node.db'), { readOnly: true })
  const { holds } = database.prepare('SELECT count(*) AS holds FROM hold').get() as {
    holds: number
  }
  database.close()
  return { copies: readdirSync(root).filter((name) => /^(backup|before)-/.test(name)), holds }
}

const run = (program: string, ...args: string[]): unknown =>
  execFileSync(program, args, { stdio: 'pipe' })

/** A small disk; skips the test where none can be mounted. */
export function mountSmall(t: TestContext, megabytes = 4): string | undefined {
  const disk = mkdtempSync(join(tmpdir(), 'sync-node-disk-'))
  try {
    if (process.getuid?.() !== 0) throw new Error('only root can')
    run('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', disk)
  } catch (error) {
    rmSync(disk, { recursive: true })
    if (process.env['CI'] !== undefined) throw error
    t.skip(`NOT TESTED: nothing can be mounted here: ${(error as Error).message}`)
    return undefined
  }
  t.after(() => {
    run('umount', '-l', disk)
    rmSync(disk, { recursive: true })
  })
  return disk
}
