// Owns the look at how values get through: their sizes, parts of them, and their versions.
import { randomBytes } from 'node:crypto'
import { toSize } from '../../units.ts'
import { ok, problem, type Finding } from '../finding.ts'
import { create, doubtful, faulty, outcome, pathOf, type Traveller } from './traveller.ts'
import { tell } from './way.ts'

const MIB = 1024 * 1024
const SIZES = [1024, MIB, 32 * MIB]
const PATIENCE_MS = 20_000

/** Each size goes there and comes back; one is sent in chunks, as streams are. */
export async function checkBodies(traveller: Traveller): Promise<Finding> {
  const { mostBytes } = traveller
  const sizes = [...new Set(SIZES.map((size) => Math.min(size, mostBytes)))]
  for (const size of sizes) {
    const finding = await sendAndFetch(traveller, size)
    if (finding !== null) return finding
  }
  return ok('bodies', `values up to ${toSize(sizes.at(-1) ?? 0)} go there and come back`)
}

async function sendAndFetch(traveller: Traveller, size: number): Promise<Finding | null> {
  const { way } = traveller
  const value = randomBytes(size)
  const path = pathOf(`size-${size}`)
  const isChunked = size === MIB
  const what = `a value of ${toSize(size)}${isChunked ? ', sent in chunks,' : ''}`
  const sent = await outcome(
    way.ask('PUT', path, { body: value, isChunked, patienceMs: PATIENCE_MS }),
  )
  if (typeof sent === 'string' || sent.status !== 201) {
    const why = typeof sent === 'string' ? sent : tell(sent)
    const text = `${what} does not get through: ${why}`
    const isOurs = typeof sent !== 'string' && sent.code !== undefined
    return isOurs ? problem('bodies', text) : faulty(traveller, 'bodies', { fault: 'body', text })
  }
  const read = await outcome(way.ask('GET', path, { patienceMs: PATIENCE_MS }))
  if (typeof read === 'string' || read.status !== 200) {
    const text = `${what} does not come back: ${typeof read === 'string' ? read : tell(read)}`
    return faulty(traveller, 'bodies', { fault: 'body', text })
  }
  // Room for the next, whatever the quota.
  await outcome(
    way.ask('DELETE', path, { headers: { 'X-Sync-Token': sent.header('x-sync-token') } }),
  )
  if (read.body.equals(value)) return null
  return faulty(traveller, 'bodies', { fault: 'compression', text: `${what} comes back changed` })
}

/** One part of a value, also under the condition that it is still the same version. */
export async function checkRanges(traveller: Traveller): Promise<Finding> {
  const { token } = await create(traveller, 'range', { body: '0123456789'.repeat(10) })
  const conditions: Record<string, string>[] = [{}, { 'If-Range': `"${token}"` }]
  for (const more of conditions) {
    const headers = { Range: 'bytes=15-24', ...more }
    const answer = await traveller.way.ask('GET', pathOf('range'), { headers })
    if (answer.status === 206 && answer.body.toString() === '5678901234') continue
    const name = Object.keys(headers).join(' with ')
    const text = `${name} does not work (${answer.status} in place of 206): downloads that broke off begin anew`
    return faulty(traveller, 'ranges', { fault: 'ranges', text })
  }
  return ok('ranges', 'parts of a value can be read')
}

/** The version that a proxy which compresses shows must be understood when it comes back. */
export async function checkVersions(traveller: Traveller): Promise<Finding> {
  const { way } = traveller
  const value = 'what can be compressed '.repeat(3000)
  const { token } = await create(traveller, 'etag', { body: value })
  const path = pathOf('etag')
  const read = await way.ask('GET', path, { headers: { 'Accept-Encoding': 'gzip, br, zstd' } })
  const etag = read.header('etag')
  const isPacked = read.header('content-encoding') !== ''
  const refuse = (text: string): Finding =>
    faulty(traveller, 'versions', { fault: isPacked ? 'compression' : 'headers', text })
  if (read.body.toString() !== value) return refuse('a compressed value comes back changed')
  if (etag === '') return refuse('the header ETag is taken out of answers')
  const same = await way.ask('GET', path, { headers: { 'If-None-Match': etag } })
  if (same.status !== 304) {
    return refuse(`If-None-Match does not work (${same.status} in place of 304)`)
  }
  const written = await way.ask('PUT', path, { body: 'next', headers: { 'If-Match': etag } })
  if (written.status !== 204) {
    return refuse(`the ETag of an answer is not taken back in If-Match: ${tell(written)}`)
  }
  const again = await way.ask('GET', path)
  if (again.body.toString() !== 'next') {
    const text = 'a value that was replaced is still answered: something keeps copies'
    return faulty(traveller, 'versions', { fault: 'cache', text })
  }
  if (etag === `"${token}"` && !isPacked) return ok('versions', 'ETags come and go as they are')
  const text =
    'values are compressed on the way, and their ETags changed: it works, but without If-Range and digests'
  return doubtful(traveller, 'versions', { fault: 'compression', text })
}
