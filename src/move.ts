// Owns bringing all data to where it can grow: the rows to a database server, large values to a bucket.
// What it comes from is only read, and what has come is compared before anybody can be served from it.
import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { Progress } from './backup.ts'
import { Away } from './blobs/calls.ts'
import type { Blobs } from './blobs/blobs.ts'
import { DELIVERED_AT_ONCE, openDelivery, refusal, type Delivery } from './blobs/delivery.ts'
import { openBlobs } from './blobs/disk.ts'
import type { Config } from './config.ts'
import { UNKNOWN_OUTCOME, UNREACHABLE, type Database } from './database/database.ts'
import { inspect } from './database/inspect.ts'
import { lock as takeLock } from './database/lock.ts'
import { checkSchema } from './database/migrate.ts'
import { open as openServer } from './database/remote.ts'
import * as transfer from './database/transfer.ts'
import { Refusal } from './errors.ts'
import { DATABASE } from './manifest.ts'
import { findSecret } from './node.ts'
import * as peers from './peers.ts'
import { expectFolder, isUnused } from './place.ts'
import { deriveKeys } from './secret.ts'
import { randomBytes, unique } from './token.ts'
import { turns } from './turns.ts'
import {
  Damaged,
  hasAll,
  isWhole,
  listLarge,
  listSmall,
  readValue,
  type LargeValue,
} from './values.ts'

export interface Moved {
  accounts: number
  stores: number
  /** Of all values. */
  bytes: number
  /** What was damaged already, and is refused there as here: its store, and its file where it had one. */
  damaged: Map<string, string | null>
}

export interface Moving extends Progress {
  source: Config
  target: Config
}

interface Source extends Progress {
  root: string
  database: Database
  node: Record<string, unknown>
  /** The values on the disk. */
  files: Blobs
  damaged: Moved['damaged']
}

/** When it resolves, a server can start on what `target` says. Throws Refusal, StartError. */
export async function move(moving: Moving): Promise<Moved> {
  const { root } = moving.source
  const { check } = deriveKeys(await findSecret(moving.source, false))
  const lock = takeLock(root)
  if (lock === 'taken') throw new Refusal(`${root} is in use: stop the server first.`)
  const onFatal = (): void => undefined
  const files = await openBlobs({ root, start: 0, random: randomBytes, unique, onFatal })
  try {
    const database = inspect(join(root, DATABASE), { isAlone: true })
    try {
      return await moveAll(moving, await openSource(moving, { database, files, check }))
    } finally {
      database.close()
    }
  } catch (error) {
    throw explain(error)
  } finally {
    await files.close()
    lock.close()
  }
}

/** Throws Refusal for what could not be served there. */
async function openSource(
  moving: Moving,
  { database, files, check }: Pick<Source, 'database' | 'files'> & { check: string },
): Promise<Source> {
  await checkSchema(database)
  const { rows: found } = await database.execute('PRAGMA integrity_check(1)')
  const problem = String(found[0]?.['integrity_check'])
  if (problem !== 'ok') throw new Refusal(`The database is damaged: ${problem}.`)
  const [node] = (await database.execute('SELECT * FROM node')).rows
  if (node?.['secret_check'] !== check) {
    throw new Refusal(
      'The secret is not the one this data was made with: restore the file secret, or set SECRET_KEY.',
    )
  }
  if (moving.source.blobUrl === null) await expectFolder(moving.source.root, database)
  const damaged: Source['damaged'] = new Map()
  for await (const values of listSmall(database, { isDeep: true })) {
    for (const { store, isIntact, length, size } of values) {
      if (!isIntact || length !== size) damaged.set(store, null)
    }
  }
  const { root } = moving.source
  const { signal, begin, add } = moving
  return { root, database, node: { ...node }, files, damaged, signal, begin, add }
}

async function moveAll(moving: Moving, source: Source): Promise<Moved> {
  const { target } = moving
  if (target.blobUrl === null) throw new Error('there is no bucket')
  const delivery = openDelivery(target.blobUrl)
  const silent = { isServer: false, onWarning: () => undefined, onChange: () => undefined }
  const server = target.database && (await openServer({ ...target.database, ...silent }))
  const before = stateOf(source)
  try {
    const id = server === null ? idOf(source) : await prepare(source, server, before)
    const isOnDisk = moving.source.blobUrl === null
    if (isOnDisk) await claim(source, delivery, { id, isNew: server !== null })
    else await expectBucket(source, delivery, id)
    if (isOnDisk) await bringValues(source, delivery)
    else await findLost(source, delivery)
    if (server !== null) await bringRows(source, server)
    if (isOnDisk) await checkValues(source, delivery)
    if (stateOf(source) !== before) {
      throw new Refusal('The data was changed meanwhile: run this again while nothing else does.')
    }
    await delivery.setOwner({ id, isUnfinished: false })
    const isThere = server === null || (await transfer.markOf(server)) === null
    if (!isThere) await transfer.end(source.database, server)
    return await describe(source)
  } finally {
    server?.close()
    delivery.close()
  }
}

const idOf = ({ node }: Source): string => String(node['id'])

/** Changes with all that is done to the data: its files are only asked for their times. */
function stateOf({ root, node }: Source): string {
  const files = ['', '-wal'].map((end) => {
    const stat = statSync(join(root, DATABASE + end), { throwIfNoEntry: false })
    return stat === undefined || stat.size === 0 ? '-' : `${stat.size}.${stat.mtimeMs}`
  })
  return [node['start'], node['seq'], ...files].join(' ')
}

/** Makes the server's database ready to take rows; answers its id. Throws Refusal where others' are. */
async function prepare(source: Source, server: Database, state: string): Promise<string> {
  const mark = { source: idOf(source), state }
  // An id of its own: with the same one, the server that is left would take the values for its own.
  const begin = async (id: string): Promise<string> => {
    await transfer.begin(server, { node: { ...source.node, id }, mark })
    return id
  }
  const tables = await transfer.tablesIn(server)
  if (tables.length === 0) return begin(unique(randomBytes))
  if (!tables.includes('migration')) throw othersData()
  const [node] = (await server.execute('SELECT * FROM node')).rows
  if (node === undefined) throw othersData()
  const id = String(node['id'])
  const found = await transfer.markOf(server)
  if (found !== null) {
    if (found.source !== mark.source) throw othersData()
    // Rows that have come may be others by now.
    return found.state === state ? id : begin(id)
  }
  if (await isUnused(server)) {
    // It would go on with what comes and goes under it, and take in what is then thrown away.
    if (await peers.areThere(server, Date.now())) throw inUse()
    return begin(id)
  }
  if (node['secret_check'] !== source.node['secret_check']) throw othersData()
  if (isSameNode(source, node)) return id
  throw new Refusal(
    'The data has been moved to this database server already, and was used there or here since: an empty one takes it again.',
  )
}

const isSameNode = ({ node }: Source, other: Record<string, unknown>): boolean =>
  Object.entries(node).every(([name, value]) => name === 'id' || other[name] === value)

const inUse = (): Refusal =>
  new Refusal(
    'A node runs on the database at --to: stop it first (a killed node counts for 10 minutes).',
  )

const othersData = (): Refusal =>
  new Refusal(
    'The database at --to has data already that is not of this server: take an empty one.',
  )

/** Throws Refusal where the values of other data are. */
async function claim(
  { database, files }: Source,
  delivery: Delivery,
  { id, isNew }: { id: string; isNew: boolean },
): Promise<void> {
  const found = await delivery.owner()
  if (found !== null && found.id !== id) throw othersValues()
  // All has come before; or this data was restored from a backup, and where it was goes on with other values.
  const isUsed = found !== null && !found.isUnfinished && !isNew
  if (isUsed && !(await hasAll(database, delivery, files))) throw othersValues()
  await delivery.setOwner({ id, isUnfinished: true })
}

const othersValues = (): Refusal =>
  new Refusal('The bucket at --to has values of other data there: take another prefix.')

/** The values stay where they are; only whose they are changes in the end. */
async function expectBucket(source: Source, delivery: Delivery, id: string): Promise<void> {
  const found = await delivery.owner()
  const isOurs = found !== null && [idOf(source), id].includes(found.id)
  if (isOurs && !found.isUnfinished) return
  if (found === null && (await hasAll(source.database, delivery))) return
  throw new Refusal('BLOB_URL names a bucket without the values of this data: set it as it was.')
}

/** Brings the values that are not there yet. */
async function bringValues(source: Source, delivery: Delivery): Promise<void> {
  source.begin('values', await bytesOf(source.database))
  await eachValue(source, delivery, async (value, sizes) => {
    if (sizes.get(value.file) === value.size) source.add(value.size)
    else await bring(source, delivery, value)
  })
}

/** Each is read as it will be read; one that is not as it was sent is sent once more. */
async function checkValues(source: Source, delivery: Delivery): Promise<void> {
  const { begin, add, damaged, signal } = source
  begin('checking values', await bytesOf(source.database))
  const seen = (bytes: number): void => {
    signal.throwIfAborted()
    add(bytes)
  }
  await eachValue(source, delivery, async (value) => {
    if (damaged.has(value.store) || (await isWhole(delivery, value, seen))) return
    await bring({ ...source, add: () => undefined }, delivery, value)
    if (damaged.has(value.store) || (await isWhole(delivery, value))) return
    throw new Refusal('The bucket does not give back what it was given: take another one.')
  })
}

/** Some at once; `sizes` is of what the bucket has. */
async function eachValue(
  { database, signal }: Source,
  delivery: Delivery,
  work: (value: LargeValue, sizes: Map<string, number>) => Promise<void>,
): Promise<void> {
  const inTurn = turns(DELIVERED_AT_ONCE)
  const failures: unknown[] = []
  for await (const values of listLarge(database)) {
    const sizes = await delivery.sizes(values.map(({ file }) => file))
    const works = values.map((value) =>
      inTurn(async () => {
        if (failures.length > 0 || signal.aborted) return
        await work(value, sizes).catch((error: unknown) => failures.push(error))
      }),
    )
    // Those that have begun come to their end first: nothing is closed under one.
    await Promise.all(works)
    signal.throwIfAborted()
    if (failures.length > 0) throw failures[0]
  }
}

/** What is damaged on the disk is noted, and not brought. */
async function bring(
  { files, damaged, signal, add }: Source,
  delivery: Delivery,
  value: LargeValue,
): Promise<void> {
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const chunk of readValue(files, value)) {
      signal.throwIfAborted()
      add(chunk.length)
      yield chunk
    }
  }
  try {
    await delivery.put(value.file, counted(), value.size)
  } catch (error) {
    if (!(error instanceof Damaged)) throw error
    damaged.set(value.store, value.file)
  }
}

/** Where the values stay, they are not read: `doctor --deep` does that. */
async function findLost({ database, damaged }: Source, delivery: Delivery): Promise<void> {
  for await (const values of listLarge(database)) {
    const sizes = await delivery.sizes(values.map(({ file }) => file))
    for (const { store, file, size } of values) {
      const found = sizes.get(file) ?? (await delivery.size(file))
      if (found !== size) damaged.set(store, file)
    }
  }
}

/** Brings all rows, and compares them. Throws Refusal. */
async function bringRows(source: Source, server: Database): Promise<void> {
  const { database, signal, begin, add } = source
  const tables = await transfer.tablesOf(database)
  const counts = await Promise.all(tables.map((table) => transfer.countRows(database, table)))
  const rows = counts.reduce((sum, count) => sum + count, 0)
  const { rows: sizes } = await database.execute(
    'SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size',
  )
  const bytes = Number(sizes[0]?.['bytes'])
  const rowsDone = (count: number): void => add(Math.round((count * bytes) / Math.max(rows, 1)))
  const work = { signal, add: rowsDone }
  if ((await transfer.markOf(server)) !== null) {
    begin('rows', bytes)
    for (const table of tables) await transfer.copy(database, server, table, work)
  }
  begin('checking rows', bytes)
  try {
    for (const table of tables) await transfer.compare(database, server, table, work)
  } catch (error) {
    if (!(error instanceof transfer.Different)) throw error
    await transfer.spoil(server)
    throw new Refusal(
      `The database server does not have what it was given (${error.message}): run this again, it begins anew.`,
    )
  }
}

async function bytesOf(database: Database): Promise<number> {
  const { rows } = await database.execute(
    'SELECT coalesce(sum(size), 0) AS bytes FROM sync_store WHERE store_file IS NOT NULL',
  )
  return Number(rows[0]?.['bytes'])
}

async function describe({ database, damaged }: Source): Promise<Moved> {
  const { rows } = await database.execute(
    `SELECT (SELECT count(*) FROM sync_account WHERE dead = 0) AS accounts, stores, bytes FROM node`,
  )
  const of = (name: string): number => Number(rows[0]?.[name])
  return { accounts: of('accounts'), stores: of('stores'), bytes: of('bytes'), damaged }
}

/** What an interruption means: all of it can be run again. */
function explain(error: unknown): unknown {
  if (error instanceof Away) return refusal(error)
  const { code, message } = error as NodeJS.ErrnoException
  if (code !== UNREACHABLE && code !== UNKNOWN_OUTCOME) return error
  return / answers 40[13]:/.test(message)
    ? new Refusal(`The database server refuses DATABASE_AUTH_TOKEN: ${message}.`)
    : new Refusal(`The database server does not answer (${message}): run this again.`)
}
