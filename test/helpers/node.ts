// Owns a running node for a test: the real server on a real database in a temporary folder, with a
// clock that the test moves and a mailbox that it reads.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import type { TestContext } from 'node:test'
import type { Blobs } from '../../src/blobs/blobs.ts'
import { readConfig, type Config, type Environment } from '../../src/config.ts'
import { openLog } from '../../src/log.ts'
import { start, type RunningNode } from '../../src/node.ts'
import { startBucket, type FakeBucket } from './bucket.ts'
import { client, type Client } from './client.ts'
import { openapiOf, type Openapi } from './openapi.ts'
import { startSqld, type Sqld } from './sqld.ts'

export interface TestNode {
  root: string
  url: string
  port: number
  running: RunningNode
  /** Where large values are, with TEST_BLOBS=s3; else they are in its folder. */
  bucket: FakeBucket | null
  mails: { address: string; token: string }[]
  /** What made the node stop, if anything did. */
  fatal: string[]
  /** Moves both clocks; `wall` alone is a clock that was set. */
  advance(ms: number): void
  setWall(deltaMs: number): void
  /** An answer, checked against /openapi.json. */
  request(path: string, init?: RequestInit): Promise<Response>
  /** A new account and a session on it. */
  signUp(id: string, options?: { device?: string }): Promise<Client>
  logIn(id: string, options?: { password?: string; device?: string }): Promise<Client>
  restart(environment?: Environment): Promise<void>
  stop(): Promise<void>
}

export const PASSWORD = 'correct horse battery'

export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'sync-node-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Of nodes that a test starts on one database server. */
export const SECRET_KEY = 'of the tests, which all nodes share'

const isOnServer = process.env['TEST_DATABASE'] === 'sqld'

/** For a test of what only the database in a file has. */
export const ofFile = { skip: isOnServer && 'it is of the database in a file' }

/** The same, with the database on this server; values stay on the disk, as they may not elsewhere. */
const onDatabase = (config: Config, url: string, secret: string): Config => ({
  ...config,
  database: { url, authToken: null },
  secretKey: config.secretKey ?? secret,
})

// A second node on the same folder has the same database.
const databases = new Map<string, Sqld>()

/** A database server for this node alone, when the suite runs on such: see the Makefile. */
async function ownDatabase(root: string): Promise<Sqld | null> {
  if (!isOnServer) return null
  const sqld = databases.get(root) ?? (await startSqld())
  databases.set(root, sqld)
  return sqld
}

const buckets = new Map<string, FakeBucket>()

/** The one of this folder, which a second node on it has too. */
async function bucketOf(
  t: Pick<TestContext, 'after'>,
  root: string,
  environment: Environment,
): Promise<FakeBucket | null> {
  if (process.env['TEST_BLOBS'] !== 's3' || 'BLOB_URL' in environment) return null
  const bucket = buckets.get(root) ?? (await startBucket(t))
  buckets.set(root, bucket)
  return bucket
}

/** Notes what is on its way: in a bucket, and among the files that are open, there is nothing of it yet. */
function watch(blobs: Blobs, bucket: FakeBucket): void {
  const { create, read } = blobs
  const { unfinished } = bucket
  blobs.create = async (length) => {
    const upload = await create(length)
    const { name, write, finish, leave, discard } = upload
    unfinished.set(name, 0)
    const ending = (end: () => Promise<void>) => () => end().finally(() => unfinished.delete(name))
    return {
      ...upload,
      async write(chunk) {
        await write(chunk)
        unfinished.set(name, (unfinished.get(name) ?? 0) + chunk.length)
      },
      finish: ending(finish),
      leave: ending(leave),
      discard: ending(discard),
    }
  }
  blobs.read = async (name, part) => {
    const reading = await read(name, part)
    if (reading === undefined) return undefined
    bucket.reading++
    const close = () => reading.close().finally(() => bucket.reading--)
    return { ...reading, close }
  }
}

/** Starts a node on a free port; the test's end stops it and removes its folder. */
export async function startNode(
  t: Pick<TestContext, 'after'>,
  environment: Environment = {},
  options: { root?: string; floorBytes?: number; databaseUrl?: string } = {},
): Promise<TestNode> {
  const folder = options.root === undefined ? mkdtempSync(join(tmpdir(), 'sync-node-')) : undefined
  const root = options.root ?? join(folder as string, 'data')
  const sqld = options.databaseUrl === undefined ? await ownDatabase(root) : null
  const databaseUrl = options.databaseUrl ?? sqld?.url ?? null
  const secret = sqld === null ? SECRET_KEY : `of the tests, of ${root}`
  const bucket = await bucketOf(t, root, environment)
  let offset = { wall: 0, uptime: 0 }
  const mails: TestNode['mails'] = []
  const fatal: string[] = []
  let isRunning = false
  let openapi: Openapi

  async function open(env: Environment): Promise<RunningNode> {
    const place = { STATIC_ROOT: root, HOST: '127.0.0.1', PORT: '0', ...bucket?.environment }
    const read = readConfig({ ...place, ...env })
    const config = databaseUrl === null ? read : onDatabase(read, databaseUrl, secret)
    const running = await start(config, {
      log: openLog({ logLevel: process.env['TEST_LOG'] === undefined ? 'silent' : 'info' }),
      time: {
        wall: () => Date.now() + offset.wall,
        uptime: () => performance.now() + offset.uptime,
      },
      mailer: {
        maxDelayMs: 0,
        sendReset: async (address, token) => {
          mails.push({ address, token })
        },
      },
      // Disks of test machines may be nearly full; the tests of the floor set their own.
      floorBytes: options.floorBytes ?? 1,
      onFatal: (reason) => fatal.push(reason),
      isQuiet: true,
    })
    isRunning = true
    if (bucket !== null) watch(running.deps.blobs, bucket)
    return running
  }

  const node: TestNode = {
    root,
    url: '',
    port: 0,
    running: await open(environment),
    bucket,
    mails,
    fatal,
    advance(ms) {
      offset = { wall: offset.wall + ms, uptime: offset.uptime + ms }
    },
    setWall(deltaMs) {
      offset = { ...offset, wall: offset.wall + deltaMs }
    },
    async request(path, init) {
      openapi ??= await openapiOf(node.url)
      const response = await fetch(node.url + path, init)
      await openapi.check({ method: init?.method ?? 'GET', path }, response)
      return response
    },
    async signUp(id, { device } = {}) {
      const response = await node.request('/account', {
        method: 'POST',
        body: JSON.stringify({ id, password: PASSWORD, device }),
      })
      if (response.status !== 200) throw new Error(`sign-up: ${await response.text()}`)
      return client(node, id, (await response.json()) as { token: string; user: string })
    },
    async logIn(id, { password = PASSWORD, device } = {}) {
      const response = await node.request('/auth', {
        method: 'POST',
        body: JSON.stringify({ id, password, device }),
      })
      if (response.status !== 200) throw new Error(`login: ${await response.text()}`)
      return client(node, id, (await response.json()) as { token: string; user: string })
    },
    async restart(env = environment) {
      await node.stop()
      node.running = await open(env)
      place()
    },
    async stop() {
      if (!isRunning) return
      isRunning = false
      await node.running.stop()
    },
  }

  function place(): void {
    node.port = node.running.port
    node.url = `http://127.0.0.1:${node.port}`
  }

  place()
  t.after(async () => {
    await node.stop()
    await sqld?.remove()
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  })
  return node
}
