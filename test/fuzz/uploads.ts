// Owns uploads that break off: anywhere, by an end or a reset, small values and large, and what is left
// of them.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { connect as openDatabase } from '../../src/database/sqlite.ts'
import { eventually } from '../helpers/eventually.ts'
import { dial } from './connection.ts'
import { dice, type Dice } from './dice.ts'
import { MARK } from './people.ts'

export interface Cuts {
  cuts: number
  /** Of these, with more than 16 KiB on their way, which are files. */
  files: number
  resets: number
  problems: string[]
}

export interface Cutting {
  url: string
  port: number
  root: string
  bearer: string
  seed: number
  uploads: number
}

const AT_ONCE = 6
const KEYS = 30
const LARGE = 17 * 1024
const WHOLE = `${MARK} as it was`

/** Cuts uploads to stores that are there and to some that are not; then looks for what they left. */
export async function cutUploads(cutting: Cutting): Promise<Cuts> {
  const done: Cuts = { cuts: 0, files: 0, resets: 0, problems: [] }
  const headers = { Authorization: `Bearer ${cutting.bearer}` }
  const urlOf = (key: number): string => `${cutting.url}/store/${MARK}-cut-${key}`
  for (let key = 0; key < KEYS; key += 2) {
    const any = { ...headers, 'X-Sync-Token': '*' }
    const init = { method: 'PUT', body: WHOLE, headers }
    const made = await fetch(urlOf(key), init)
    if (!made.ok) await fetch(urlOf(key), { ...init, headers: any })
  }
  async function worker(): Promise<void> {
    while (done.cuts < cutting.uploads) await cut(cutting, dice(cutting.seed + done.cuts++), done)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  for (let key = 0; key < KEYS; key++) {
    const answer = await fetch(urlOf(key), { headers })
    const found = await answer.text()
    const isAsItWas = key % 2 === 0 ? found === WHOLE : answer.status === 404
    if (!isAsItWas)
      done.problems.push(`half an upload is read: ${answer.status}, ${found.length} bytes`)
  }
  await look(`files are left over`, () => leftOver(cutting.root), done)
  const full = Array.from({ length: AT_ONCE }, async (_, i) => {
    const init = { method: 'PUT', body: 'x'.repeat(LARGE), headers }
    const answer = await fetch(`${urlOf(KEYS + i)}-${cutting.seed}-${done.cuts}`, init)
    await answer.text()
    return answer.status
  })
  const refused = (await Promise.all(full)).filter((status) => status !== 201)
  if (refused.length > 0) done.problems.push(`uploads are refused afterwards: ${refused.join()}`)
  return done
}

export async function look(
  what: string,
  find: () => unknown[] | Promise<unknown[]>,
  { problems }: Pick<Cuts, 'problems'>,
): Promise<void> {
  await eventually(async () => (await find()).slice(0, 5), []).catch((error: Error) => {
    problems.push(`LEAKED: ${what}: ${error.message}`)
  })
}

async function cut({ port, bearer }: Cutting, luck: Dice, done: Cuts): Promise<void> {
  const length = luck.once(3) ? 1 + luck.below(16_384) : 16_385 + luck.below(300_000)
  const key = luck.below(KEYS)
  const isChunked = luck.once(2)
  const body = luck.bytes(length)
  const size = isChunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`
  const version = key % 2 === 0 ? 'X-Sync-Token: *\r\n' : ''
  const head = `PUT /store/${MARK}-cut-${key} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${bearer}\r\n${version}${size}\r\n\r\n`
  const parts = isChunked
    ? [`${length.toString(16)}\r\n`, body, '\r\n0\r\n\r\n'].map((part) => Buffer.from(part))
    : [body]
  const bytes = Buffer.concat([Buffer.from(head), ...parts])
  // Most of it comes, often all but the last bytes.
  const at = luck.once(3) ? bytes.length - 1 - luck.below(8) : luck.below(bytes.length)
  const isReset = luck.once(2)
  if (at - head.length > 16_384) done.files++
  if (isReset) done.resets++
  const line = await dial(port)
  const first = bytes.subarray(0, luck.below(at + 1))
  line.send(first)
  await new Promise((resolve) => setTimeout(resolve, luck.below(4)))
  await line.finish(bytes.subarray(first.length, at), {
    isReset,
    waitMs: luck.once(2) ? luck.below(5) : 0,
  })
}

const NAMED = `SELECT store_file AS name FROM sync_store WHERE store_file IS NOT NULL
  UNION SELECT store_file FROM blob_garbage`

/** Files of values that no row names, and those that rows name and that are not there. */
function leftOver(root: string): string[] {
  const { database, prepare } = openDatabase(join(root, 'sync-node.db'), {
    writes: false,
    busyTimeoutMs: 5000,
  })
  try {
    const named = new Set(
      prepare(NAMED)
        .all()
        .map(({ name }) => String(name)),
    )
    const folder = join(root, 'blobs')
    const there = new Set(existsSync(folder) ? readdirSync(folder) : [])
    const isInOne = (name: string): boolean => named.has(name) !== there.has(name)
    return [...named, ...there].filter(isInOne)
  } finally {
    database.close()
  }
}
