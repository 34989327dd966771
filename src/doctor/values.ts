// Owns the look at every value, in pages and chunks: no value and no list is held whole.
import { createHash } from 'node:crypto'
import { chunksOf, type Blobs } from '../blobs/blobs.ts'
import { Away } from '../blobs/calls.ts'
import type { DiskBlobs } from '../blobs/disk.ts'
import type { S3Blobs } from '../blobs/s3.ts'
import type { Clock } from '../clock.ts'
import { sql, type Database } from '../database/database.ts'
import { unnamed } from '../housekeeping.ts'
import { hasLarge } from '../place.ts'
import { count, toSize } from '../units.ts'
import { listLarge, listSmall, type LargeValue, type SmallValue } from '../values.ts'
import { ok, problem, warning, type Finding } from './finding.ts'

interface Place {
  database: Database
  blobs: Blobs
}

const CHUNK_BYTES = 256 * 1024
const MOST_NAMED = 1000

type Listed = Pick<LargeValue, 'store' | 'token' | 'size'>

/** Each value is there in its size; `isDeep`: and has its digest. `seen` hears of bytes as they are read. */
export async function checkValues(
  place: Place,
  { isDeep, seen }: { isDeep: boolean; seen: (bytes: number) => void },
): Promise<Finding> {
  const totals = { values: 0, bytes: 0, damaged: 0 }
  const items: string[] = []

  async function look(value: Listed, damage: string | null): Promise<void> {
    totals.values++
    totals.bytes += value.size
    seen(value.size)
    if (damage === null || !(await isStill(place, value))) return
    totals.damaged++
    if (items.length < MOST_NAMED) {
      items.push(`${value.store}: ${damage}; ${await ownersOf(place, value)}`)
    }
  }

  for await (const values of listSmall(place.database, { isDeep })) {
    for (const value of values) await look(value, damageOfSmall(value))
  }
  for await (const values of listLarge(place.database)) {
    const sizes = await place.blobs.sizes(values.map(({ file }) => file))
    for (const value of values) {
      await look(value, await damageOfLarge(place, value, { sizes, isDeep }))
    }
  }
  const of = `${count(totals.values, 'value')} (${toSize(totals.bytes)})`
  if (totals.damaged > 0) {
    const text = `${totals.damaged} of ${of} are damaged, and refused to whoever reads them: let a device that has them write them again, or restore a backup`
    return problem('values', text, items)
  }
  return ok('values', isDeep ? `${of}, each byte as it was stored` : `${of}, all there`)
}

/** What is wrong with a value, or null. */
function damageOfSmall({ length, size, isIntact }: SmallValue): string | null {
  if (length === null) return 'its bytes are missing'
  if (length !== size) return `has ${length} bytes of ${size}`
  return isIntact ? null : CHANGED
}

/** The same of one that is not in its row. */
async function damageOfLarge(
  { blobs }: Place,
  { file, size, digest }: LargeValue,
  { sizes, isDeep }: { sizes: Map<string, number>; isDeep: boolean },
): Promise<string | null> {
  // Not every store lists in the order of names.
  const found = sizes.get(file) ?? (await blobs.size(file))
  if (found === undefined) return `its file blobs/${file} is missing`
  if (found !== size) return `its file blobs/${file} has ${found} bytes of ${size}`
  if (!isDeep) return null
  const read = await digestOf(blobs, { name: file, size })
  if (read instanceof Error) return `its file blobs/${file} cannot be read (${read.message})`
  return read.equals(digest) ? null : `${CHANGED} (blobs/${file})`
}

const CHANGED = 'its bytes are not those that were stored'

/** SHA-256 of a file; the error where the disk refuses to read it. */
async function digestOf(
  blobs: Blobs,
  { name, size }: { name: string; size: number },
): Promise<Buffer | Error> {
  const hash = createHash('sha256')
  try {
    const reading = await blobs.read(name, { start: 0, end: size - 1 })
    if (reading === undefined) return new Error('it is gone')
    try {
      for await (const chunk of chunksOf(reading, CHUNK_BYTES)) hash.update(chunk)
      return hash.digest()
    } finally {
      await reading.close()
    }
  } catch (error) {
    return error as Error
  }
}

/** A store that was written or deleted meanwhile has another value by now, or none. */
async function isStill({ database }: Place, { store, token }: Listed): Promise<boolean> {
  const { rows } = await database.execute(
    sql('SELECT 1 FROM sync_store WHERE store_key = ? AND store_token = ?', [store, token]),
  )
  return rows.length > 0
}

async function ownersOf({ database }: Place, { store }: Listed): Promise<string> {
  const { rows } = await database.execute(
    sql(
      `SELECT a.id FROM account_permission p JOIN sync_account a ON a.number = p.sync_account_id
       WHERE p.store_key = ? AND p.permission = 'OWN' AND a.dead = 0 ORDER BY a.number`,
      [store],
    ),
  )
  if (rows.length === 0) return 'of a deleted account'
  return `of ${rows.map((owner) => String(owner['id'])).join(', ')}`
}

/** Whether the bucket answers, and is the one of this data. */
export async function checkPlace({
  database,
  blobs,
}: {
  database: Database
  blobs: S3Blobs
}): Promise<Finding> {
  try {
    const owner = await blobs.claim()
    if (owner === 'ours') return ok('bucket', 'answers, and is of this data')
    if (owner === 'unfinished') {
      const text = 'not all values are there yet: run migrate-data, or restore, again'
      return problem('bucket', text)
    }
    if (owner === 'nobody' && !(await hasLarge(database)))
      return ok('bucket', 'answers, and is empty')
    const text = 'BLOB_URL names a bucket without the values of this data: set it as it was'
    return problem('bucket', text)
  } catch (error) {
    if (!(error instanceof Away)) throw error
    const text =
      error.state === 'refused'
        ? `refuses this server (${error.reason}): see that it is there, in that region, and open to AWS_ACCESS_KEY_ID`
        : `cannot be reached (${error.reason}): large values have to wait for it, all else goes on`
    return problem('bucket', text)
  }
}

/** `mayMove`: no server runs, and the database is whole, so that what has no row is left over. */
export async function checkOrphans(
  { database, blobs, clock }: { database: Database; blobs: DiskBlobs; clock: Clock },
  { lastStart, mayMove }: { lastStart: number; mayMove: boolean },
): Promise<Finding[]> {
  const found = { files: 0, bytes: 0, moved: 0 }
  for await (const file of unnamed({ database, blobs })) {
    const bytes = await blobs.size(file)
    if (bytes === undefined) continue // collected meanwhile
    found.files++
    found.bytes += bytes
    if (mayMove && (await blobs.setAside(file, clock.now()))) found.moved++
  }
  const findings: Finding[] = []
  if (found.files > 0) {
    const what = `${count(found.files, 'file')} (${toSize(found.bytes)}) in blobs/ that no store names`
    const where =
      found.moved > 0
        ? `${found.moved} went to trash/, and are removed after 7 days`
        : 'they stay; a start of the server sets them aside'
    findings.push(problem('orphans', `${what}: ${where}`))
  }
  const foreign = await blobs.listForeign(lastStart)
  if (foreign.length > 0) {
    const text = `${count(foreign.length, 'file')} in blobs/ that this data has not written: the database may be older than they are`
    findings.push(warning('orphans', text))
  }
  return findings.length > 0 ? findings : [ok('orphans', 'every file in blobs/ belongs to a store')]
}
