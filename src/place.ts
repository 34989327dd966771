// Owns where large values are: in the folder of the data or in a bucket, and that it is the place where
// they were put. A start elsewhere would find none of them, and take those of others for left over.
import { existsSync, readdirSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { Blobs } from './blobs/blobs.ts'
import { Away, type Place } from './blobs/calls.ts'
import { openBlobs as openDisk } from './blobs/disk.ts'
import { openBlobs as openS3, type S3Blobs } from './blobs/s3.ts'
import type { Deps } from './deps.ts'
import { Refusal } from './errors.ts'
import { createFolder, syncFolder } from './folder.ts'
import { unique } from './token.ts'
import { hasAll } from './values.ts'

type PlaceDeps = Pick<Deps, 'clock' | 'config' | 'database' | 'log' | 'random'>

interface Opening {
  /** The number of this server start. */
  start: number
  isServer: boolean
  onFatal: (reason: string) => void
}

// Some may be lost, and the others in good order.
const LOOKED_AT = 10

/** Throws Refusal. */
export async function open(deps: PlaceDeps, { start, isServer, onFatal }: Opening): Promise<Blobs> {
  const { config, random } = deps
  const { root } = config
  if (config.blobUrl === null) {
    if (isServer) await makeFolders(deps)
    return openDisk({ root, start, random, unique, onFatal })
  }
  const blobs = await openBucket(deps, config.blobUrl, { start, isServer })
  if (isServer) {
    await leaveFolder(deps, blobs, start)
    await expectOurs(deps, blobs)
  }
  return blobs
}

async function makeFolders({ config, database }: PlaceDeps): Promise<void> {
  await expectFolder(config.root, database)
  for (const name of ['blobs', 'trash']) await createFolder(join(config.root, name))
}

/** Throws Refusal where the values were on the disk, and are no more. */
export async function expectFolder(root: string, database: Deps['database']): Promise<void> {
  if (existsSync(join(root, 'blobs')) || !(await hasLarge(database))) return
  throw new Refusal(
    'BLOB_URL is not set, and the folder blobs is missing: set it as it was, or restore a backup.',
  )
}

/** Throws Refusal where values lie that are not in the bucket. */
async function leaveFolder(deps: PlaceDeps, blobs: S3Blobs, start: number): Promise<void> {
  const { config, database, log } = deps
  const folder = join(config.root, 'blobs')
  if (!existsSync(folder) || readdirSync(folder).length === 0) return
  // Beside a database server it is of the data that was moved there, and stays as it is.
  const isThere =
    config.database === null
      ? await isInBucket(deps, { blobs, folder })
      : !(await isUnused(database))
  if (!isThere) {
    throw new Refusal(
      `BLOB_URL is set, but values lie in ${folder}: bring them to the bucket by sync-node migrate-data, or start without it.`,
    )
  }
  if (config.database !== null) return
  const moved = `${folder}.moved-${start}`
  await rename(folder, moved)
  await syncFolder(config.root)
  log.info(`the bucket has all values: what was ${folder} is ${moved} now, and can go`)
}

async function isInBucket(
  { config, database, random }: PlaceDeps,
  { blobs, folder }: { blobs: S3Blobs; folder: string },
): Promise<boolean> {
  const onFatal = (): void => undefined
  const files = await openDisk({ root: config.root, start: 0, random, unique, onFatal })
  try {
    return (await blobs.claim()) === 'ours' && (await hasAll(database, blobs, files))
  } catch (error) {
    if (!(error instanceof Away)) throw error
    throw new Refusal(
      `BLOB_URL is set, but values lie in ${folder}, and the bucket does not say whether it has them (${error.reason}).`,
    )
  } finally {
    await files.close()
  }
}

/** Whether nobody has had an account, or an invitation. */
export async function isUnused(database: Deps['database']): Promise<boolean> {
  const { rows } = await database.execute(
    'SELECT account_number = 0 AND NOT EXISTS (SELECT 1 FROM invitation) AS unused FROM node',
  )
  return rows[0]?.['unused'] === 1
}

/** The bucket, of which nothing is asked yet. */
export async function openBucket(
  { clock, database, log, random }: Omit<PlaceDeps, 'config'>,
  place: Place,
  { start, isServer }: Pick<Opening, 'start' | 'isServer'>,
): Promise<S3Blobs> {
  const { rows } = await database.execute('SELECT id FROM node')
  return openS3({
    place,
    start,
    random,
    unique,
    wall: clock.wall,
    owner: { id: String(rows[0]?.['id']), mayTake: isServer && !(await hasLarge(database)) },
    onState(state, reason) {
      if (state === 'ok') log.info('the bucket of BLOB_URL answers again')
      else log.warn({ reason }, `the bucket of BLOB_URL is ${state}: large values have to wait`)
    },
  })
}

/** A bucket that cannot be reached may be there in a minute: the rest goes on without it. */
async function expectOurs({ config, database, log }: PlaceDeps, blobs: S3Blobs): Promise<void> {
  try {
    const owner = await blobs.claim()
    if (owner === 'unfinished') {
      throw new Refusal(
        'The values for the bucket of BLOB_URL are not all there yet: run migrate-data, or restore, again.',
      )
    }
    // It is ours also where a start was made before there were values, which then went elsewhere.
    if (owner === 'nobody' || (owner === 'ours' && (await hasNone(database, blobs)))) {
      throw new Refusal(
        'BLOB_URL names a bucket without the values of this data: set it as it was.',
      )
    }
    if (owner === 'another') {
      throw new Refusal(
        'BLOB_URL names a place with the values of other data: take another prefix.',
      )
    }
    log.info(`large values: the bucket ${config.blobUrl?.bucket} at ${config.blobUrl?.endpoint}`)
  } catch (error) {
    if (!(error instanceof Away)) throw error
    if (error.state === 'refused') throw new Refusal(refusedBy(error))
  }
}

/** Whether values were stored, and of some of them none is there. Throws Away. */
async function hasNone(database: Deps['database'], blobs: Blobs): Promise<boolean> {
  const { rows } = await database.execute(
    `SELECT store_file FROM sync_store WHERE store_file IS NOT NULL LIMIT ${LOOKED_AT}`,
  )
  for (const { store_file: name } of rows) {
    if ((await blobs.size(String(name))) !== undefined) return false
  }
  return rows.length > 0
}

const refusedBy = ({ reason }: Away): string =>
  `The bucket of BLOB_URL refuses this server (${reason}): see that it is there, in that region, and open to AWS_ACCESS_KEY_ID.`

/** Whether there is any value that is not in the database. */
export async function hasLarge(database: Deps['database']): Promise<boolean> {
  const { rows } = await database.execute(
    'SELECT EXISTS (SELECT 1 FROM sync_store WHERE store_file IS NOT NULL) AS found',
  )
  return rows[0]?.['found'] === 1
}
