// Owns restoring a backup into an empty folder: nothing is written for one that is not whole, and what
// a crash leaves behind is marked, so that nobody takes it for data.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { isDeepStrictEqual } from 'node:util'
import { broken, type Bytes } from './archive.ts'
import type { Progress } from './backup.ts'
import { Away, type Place } from './blobs/calls.ts'
import { openDelivery, refusal, type Delivery } from './blobs/delivery.ts'
import { work } from './copies.ts'
import { lock as takeLock } from './database/lock.ts'
import { statementsOn } from './database/embedded.ts'
import { ownSchema, schemaOf } from './database/inspect.ts'
import { checkApplied } from './database/migrate.ts'
import { connect, type Connection } from './database/sqlite.ts'
import { Refusal } from './errors.ts'
import { createFolder, nearest, syncFolder } from './folder.ts'
import { DATABASE, SECRET, VALUES, sumsOf, valuesIn, type Manifest } from './manifest.ts'
import { deriveKeys } from './secret.ts'
import { openSpace } from './space.ts'
import { isValue, verify, type Verified } from './verify.ts'

const MARKER = 'restoring'
const LOG = `${DATABASE}-wal`
// The database has its name when all else is there.
const UNNAMED = 'restoring.db'
// All that it replaces; the last are of a server that nobody has used yet.
const MADE = [SECRET, 'blobs', UNNAMED, DATABASE, LOG, `${DATABASE}-shm`, 'trash', 'reserve']
const ANYWHERE = ['lost+found', 'lock']
const SYNC_EVERY_BYTES = 8 * 1024 * 1024
const MAX_SYNCS = 8

export interface Restored {
  manifest: Manifest
  /** What tells the secret that the data was made with. */
  secretCheck: string
}

export interface Restoring extends Progress {
  /** The backup from its beginning, of so many bytes; it is read twice. */
  read(): Bytes
  bytes: number
  /** Where its values go, if not to the folder. */
  bucket?: Place | null
}

/** True when a restore into this folder did not come to its end. */
export const isUnfinished = (root: string): boolean => existsSync(join(root, MARKER))

/** When it resolves, the data survives a power cut. Throws Refusal. */
export async function restore(root: string, restoring: Restoring): Promise<Restored> {
  checkEmpty(root)
  const { manifest } = await verify(told('verifying', restoring))
  checkRoom(root, manifest, Boolean(restoring.bucket))
  const isNew = !existsSync(root)
  await createFolder(root)
  const lock = takeLock(root)
  if (lock === 'taken') throw new Refusal(`${root} is in use: stop the server first.`)
  try {
    checkEmpty(root)
    return await fill(root, restoring)
  } catch (error) {
    await clear(root)
    await rm(join(root, MARKER), { force: true })
    if (isNew) await rm(root, { recursive: true })
    throw error instanceof Away ? refusal(error) : error
  } finally {
    lock.close()
  }
}

/** Throws Refusal unless there is nothing, or what an earlier restore or a server without accounts left. */
function checkEmpty(root: string): void {
  if (!existsSync(root)) return
  const names = readdirSync(root).filter((name) => !ANYWHERE.includes(name))
  if (names.length === 0) return
  const isOurs = names.every((name) => [...MADE, MARKER].includes(name))
  if (isOurs && (isUnfinished(root) || isUnused(root))) return
  throw new Refusal(`${root} is not empty: set STATIC_ROOT to an empty folder, or one to be made.`)
}

/** True for what an installed service makes before anybody has an account. */
function isUnused(root: string): boolean {
  try {
    const { database, prepare } = connect(join(root, DATABASE), { writes: false, busyTimeoutMs: 0 })
    const used = prepare('SELECT 1 FROM sync_account UNION ALL SELECT 1 FROM invitation').get()
    database.close()
    // With a bucket there are no such folders.
    const folders = ['blobs', 'trash'].map((name) => join(root, name)).filter(existsSync)
    const files = folders.flatMap((folder) => readdirSync(folder))
    return used === undefined && files.length === 0
  } catch {
    return false
  }
}

function checkRoom(root: string, { database, files }: Manifest, isInBucket: boolean): void {
  const { room } = openSpace(nearest(root), () => performance.now())
  const missing = database.bytes + (isInBucket ? 0 : files.bytes) - room()
  if (missing <= 0) return
  throw new Refusal(
    `There is no room on the disk for ${root}: ${Math.ceil(missing / 2 ** 20)} MiB more are needed.`,
  )
}

async function* told(what: string, { read, bytes, signal, begin, add }: Restoring): Bytes {
  begin(what, bytes)
  for await (const chunk of read()) {
    signal.throwIfAborted()
    add(chunk.length)
    yield chunk
  }
}

async function clear(root: string): Promise<void> {
  for (const name of MADE) await rm(join(root, name), { recursive: true, force: true })
}

async function fill(root: string, restoring: Restoring): Promise<Restored> {
  const before = replaced(root)
  const bucket = restoring.bucket ? intoBucket(root, { place: restoring.bucket, before }) : null
  try {
    const files = keeper()
    await files.keep(join(root, MARKER), [Buffer.from(before.id ?? '')])
    await files.settle()
    await syncFolder(root)
    await clear(root)
    if (bucket === null) await mkdir(join(root, 'blobs'), { mode: 0o700 })
    const found = await verify(told('restoring', restoring), async (name, body) => {
      if (bucket !== null && isValue(name)) return bucket.put(name, body)
      await files.keep(join(root, name === DATABASE ? UNNAMED : name), body)
    })
    await files.settle()
    const secretCheck = await checkDatabase(root, found, restoring.signal)
    if (bucket === null) await syncFolder(join(root, VALUES))
    await syncFolder(root)
    await rename(join(root, UNNAMED), join(root, DATABASE))
    await syncFolder(root)
    await bucket?.end()
    await rm(join(root, MARKER))
    await syncFolder(root)
    return { manifest: found.manifest, secretCheck }
  } finally {
    bucket?.close()
  }
}

/** A server that nobody used, or a restore that was interrupted, which has noted the same. */
interface Replaced {
  id: string | null
  isUnfinished: boolean
}

function replaced(root: string): Replaced {
  if (!isUnfinished(root)) return { id: idIn(join(root, DATABASE)), isUnfinished: false }
  return { id: readFileSync(join(root, MARKER), 'utf8') || null, isUnfinished: true }
}

interface Filling {
  put(name: string, body: Bytes): Promise<void>
  end(): Promise<void>
  close(): void
}

/** Values go there from the first on, when the database that names them has come. Throws Refusal, Away. */
function intoBucket(root: string, { place, before }: { place: Place; before: Replaced }): Filling {
  const delivery = openDelivery(place)
  let id: string | undefined

  async function claim(at: string): Promise<string> {
    const own = idIn(join(root, at)) ?? ''
    await claimFor(delivery, own, before)
    return own
  }

  return {
    async put(name, body) {
      id ??= await claim(UNNAMED)
      await delivery.put(name.slice(VALUES.length), body)
    },
    async end() {
      id ??= await claim(DATABASE)
      await delivery.setOwner({ id, isUnfinished: false })
    },
    close: () => delivery.close(),
  }
}

/** Nothing is restored beside values that are in use, were they of the same data once. */
async function claimFor(delivery: Delivery, id: string, before: Replaced): Promise<void> {
  const found = await delivery.owner()
  const isOfUnfinished = found?.id === id && (found.isUnfinished || before.isUnfinished)
  // Of a server without any account, which it takes the place of.
  if (found !== null && !isOfUnfinished && found.id !== before.id) {
    throw new Refusal(
      'BLOB_URL names a place that has values already: take another prefix, as nothing is overwritten.',
    )
  }
  await delivery.setOwner({ id, isUnfinished: true })
}

/** Null where there is no database. */
function idIn(path: string): string | null {
  if (!existsSync(path)) return null
  const { database, prepare } = connect(path, { writes: false, busyTimeoutMs: 0 })
  try {
    return String(prepare('SELECT id FROM node').get()?.['id'])
  } finally {
    database.close()
  }
}

/** Writes files; those given survive a power cut when it has settled, and their folder is synced. */
function keeper() {
  const syncing = new Set<Promise<void>>()
  let failure: Error | undefined
  async function sync(file: FileHandle): Promise<void> {
    await file.sync().catch((error: Error) => (failure ??= error))
    await file.close()
  }

  async function write(file: FileHandle, chunks: Bytes | Uint8Array[]): Promise<void> {
    let unsynced = 0
    for await (const chunk of chunks) {
      await file.writeFile(chunk)
      unsynced += chunk.length
      if (unsynced < SYNC_EVERY_BYTES) continue
      unsynced = 0
      await file.datasync()
    }
  }

  return {
    async keep(path: string, chunks: Bytes | Uint8Array[]): Promise<void> {
      const file = await open(path, 'w', 0o600)
      try {
        await write(file, chunks)
      } catch (error) {
        await file.close()
        throw error
      }
      // While it is synced, the next one is written: a card takes long for each.
      const one = sync(file).finally(() => syncing.delete(one))
      syncing.add(one)
      if (syncing.size >= MAX_SYNCS) await Promise.race(syncing)
      if (failure !== undefined) throw failure
    },
    async settle(): Promise<void> {
      await Promise.all(syncing)
      if (failure !== undefined) throw failure
    },
  }
}

/** What the backup says is what its database says; answers the check value of its secret. */
async function checkDatabase(
  root: string,
  { manifest, sums, heads }: Verified,
  signal: AbortSignal,
): Promise<string> {
  const at = join(root, UNNAMED)
  const found = await work({ name: 'inspect', at }, signal)
  if (found === null || found.problems.length > 0) throw broken(found?.problems)
  checkApplied(new Map(found.migrations))
  const { accounts, stores, bytes, schema, files, damaged } = manifest
  const small = damaged.filter(({ file }) => file === null).map(({ store }) => store)
  const lost = damaged.flatMap(({ file }) => (file === null ? [] : [file]))
  const isAsSaid = isDeepStrictEqual(
    [found.accounts, found.stores, found.bytes, found.files.count, found.damaged],
    [accounts, stores, bytes, files.count + lost.length, small],
  )
  // Who can write a backup can have it name any file, for the server to remove.
  if (!isAsSaid || !lost.every((file) => isValue(VALUES + file))) throw broken()
  const copy = connect(at, { writes: false, busyTimeoutMs: 0 })
  try {
    const listed = createHash('sha256')
    for (const line of sumsOf(heads, valuesIn(copy, damaged))) listed.update(line)
    if (!listed.digest().equals(sums) || !(await isOurs(copy, schema))) throw broken()
  } finally {
    copy.database.close()
  }
  if (manifest.secret) {
    const secret = (await readFile(join(root, SECRET), 'utf8')).trim()
    if (deriveKeys(secret).check !== found.secretCheck) throw broken()
  }
  return found.secretCheck
}

/** Made by this program's migrations, and with nothing left to remove. */
async function isOurs(copy: Connection, schema: number): Promise<boolean> {
  const [found, own] = [await schemaOf(statementsOn(copy)), await ownSchema(schema)]
  const left = copy.prepare('SELECT 1 FROM hold UNION ALL SELECT 1 FROM blob_garbage LIMIT 1').get()
  return isDeepStrictEqual(found, own) && left === undefined
}
