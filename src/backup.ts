// Owns making a backup beside a server that writes: one moment of the database, and the values that it
// named then, each compared with its digest as it goes.
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { TimeSpan } from 'oslo'
import { pack, type Bytes, type Entry } from './archive.ts'
import * as copies from './copies.ts'
import type { Inspection } from './database/copy.ts'
import { connect, type Connection } from './database/sqlite.ts'
import type { Deps } from './deps.ts'
import { Refusal } from './errors.ts'
import {
  DATABASE,
  MANIFEST,
  SECRET,
  SUMS,
  VALUES,
  sumLine,
  sumsOf,
  valuesIn,
  write as writeManifest,
  type Manifest,
  type Value,
} from './manifest.ts'
import { version } from './packed.ts'
import * as secrets from './secret.ts'
import { unique } from './token.ts'
import { Damaged, readValue } from './values.ts'

export interface Target {
  write(chunks: Bytes): Promise<void>
  /** Takes back what was written; null where that is on its way to somebody. */
  restart: (() => Promise<void>) | null
}

export interface Progress {
  signal: AbortSignal
  begin(what: string, bytes: number): void
  add(bytes: number): void
}

type Told = Omit<Manifest, 'format'>

const HOLD_MS = new TimeSpan(5, 'm').milliseconds()
const RENEW_MS = new TimeSpan(1, 'm').milliseconds()
const CHUNK_BYTES = 256 * 1024

/** Throws Refusal, and what the target throws. */
export async function backup(deps: Deps, target: Target, progress: Progress): Promise<Told> {
  const id = `backup-${unique(deps.random)}`
  const at = copies.pathOf(deps.config.root, id)
  await copies.checkRoom(deps)
  await copies.hold(deps, id, HOLD_MS)
  // One that fails is made up for by the next, or else missed at the end.
  const renewing = setInterval(
    () => void copies.renew(deps, id, HOLD_MS).catch(() => undefined),
    RENEW_MS,
  )
  try {
    await copies.clean(deps)
    const source = await open(deps, at, progress.signal)
    try {
      const manifest = await write(source, target, progress)
      if (await copies.release(deps, id)) return manifest
    } finally {
      source.copy.database.close()
    }
    throw new Refusal('The backup stood still for so long that values may be missing: do it again.')
  } finally {
    clearInterval(renewing)
    await rm(at, { force: true })
    await copies.release(deps, id).catch(() => undefined) // it lapses by itself
  }
}

interface Source {
  deps: Deps
  created: number
  copy: Connection
  inspection: Inspection
  /** What comes before the values. */
  heads: { name: string; size: number; digest: Uint8Array; read(): Bytes }[]
}

/** Makes the copy of the database, and looks through it: what could not be restored is no backup. */
async function open(deps: Deps, at: string, signal: AbortSignal): Promise<Source> {
  const { root, secretKey } = deps.config
  const from = join(root, DATABASE)
  const created = deps.clock.wall()
  await copies.work({ name: 'copy', from, to: at }, signal)
  await copies.work({ name: 'strip', at }, signal)
  const inspection = (await copies.work({ name: 'inspect', at }, signal)) as Inspection
  const [problem] = inspection.problems
  if (problem !== undefined) throw new Refusal(`The database is damaged: ${problem}.`)
  const readCopy = (): Bytes => createReadStream(at, { highWaterMark: CHUNK_BYTES })
  const secret = Buffer.from(`${secrets.read(root)}\n`)
  const heads = [
    { name: SECRET, size: secret.length, read: () => once(secret) },
    { name: DATABASE, size: statSync(at).size, read: readCopy },
  ].slice(secretKey === null ? 0 : 1)
  return {
    deps,
    created,
    copy: connect(at, { writes: false, busyTimeoutMs: 0 }),
    inspection,
    heads: await Promise.all(
      heads.map(async (head) => ({ ...head, digest: await digestOf(head.read(), signal) })),
    ),
  }
}

async function* once(bytes: Uint8Array): Bytes {
  yield bytes
}

async function digestOf(chunks: Bytes, signal: AbortSignal): Promise<Uint8Array> {
  const sha256 = createHash('sha256')
  for await (const chunk of chunks) {
    signal.throwIfAborted()
    sha256.update(chunk)
  }
  return sha256.digest()
}

/** Writes it all. Where a value turns out to be damaged, all are looked at, and it begins anew. */
async function write(source: Source, target: Target, progress: Progress): Promise<Told> {
  let lost = target.restart === null ? await findLost(source, progress) : null
  for (;;) {
    const manifest = describe(source, lost ?? [])
    try {
      await pack(
        {
          entries: entriesOf(source, manifest, progress),
          created: manifest.created,
          signal: progress.signal,
        },
        (chunks) => target.write(chunks),
      )
      return manifest
    } catch (error) {
      if (!(error instanceof Damaged)) throw error
      // It was whole a moment ago.
      if (lost !== null) throw new Refusal('The disk does not read a file as it did just before.')
    }
    lost = await findLost(source, progress)
    await target.restart?.()
  }
}

/** The values that are not there, or not as their rows say. */
async function findLost(
  { copy, deps, inspection }: Source,
  progress: Progress,
): Promise<Pick<Value, 'store' | 'file' | 'size'>[]> {
  const lost: Value[] = []
  progress.begin('checking', inspection.files.bytes)
  for (const value of valuesIn(copy)) {
    try {
      for await (const { length } of readValue(deps.blobs, value)) {
        progress.signal.throwIfAborted()
        progress.add(length)
      }
    } catch (error) {
      if (!(error instanceof Damaged)) throw error
      lost.push(value)
    }
  }
  return lost
}

function describe(
  { created, inspection, heads }: Source,
  lost: Pick<Value, 'store' | 'file' | 'size'>[],
): Told {
  const { migrations, accounts, stores, bytes, files, damaged } = inspection
  return {
    version,
    schema: migrations.at(-1)?.[0] ?? 0,
    created,
    accounts,
    stores,
    bytes,
    database: { bytes: heads.at(-1)?.size ?? 0 },
    files: {
      count: files.count - lost.length,
      bytes: lost.reduce((sum, { size }) => sum - size, files.bytes),
    },
    secret: heads[0]?.name === SECRET,
    damaged: [
      ...damaged.map((store) => ({ store, file: null })),
      ...lost.map(({ store, file }) => ({ store, file })),
    ],
  }
}

async function* entriesOf(
  source: Source,
  manifest: Told,
  { begin, add }: Progress,
): AsyncIterable<Entry> {
  const { deps, copy, heads } = source
  async function* counted(chunks: Bytes): Bytes {
    for await (const chunk of chunks) {
      add(chunk.length)
      yield chunk
    }
  }

  const all = [...heads.map(({ size }) => size), manifest.files.bytes]
  begin(
    'writing',
    all.reduce((sum, size) => sum + size),
  )
  const text = Buffer.from(writeManifest(manifest))
  yield { name: MANIFEST, size: text.length, body: once(text) }
  const sums = sumsOf(heads, valuesIn(copy, manifest.damaged))
  yield { name: SUMS, size: sumsBytes(source, manifest), body: gathered(sums) }
  for (const { name, size, read } of heads) yield { name, size, body: counted(read()) }
  for (const value of valuesIn(copy, manifest.damaged)) {
    yield {
      name: VALUES + value.file,
      size: value.size,
      body: counted(readValue(deps.blobs, value)),
    }
  }
}

/** The bytes that SHA256SUMS will have: its entry begins with them. */
function sumsBytes({ heads, inspection }: Source, { files, damaged }: Told): number {
  const ofHeads = heads.reduce((sum, head) => sum + sumLine(head.name, head.digest).length, 0)
  const lostNames = damaged.reduce((sum, { file }) => sum + (file?.length ?? 0), 0)
  const ofEach = sumLine(VALUES, Buffer.alloc(32)).length
  return ofHeads + files.count * ofEach + inspection.files.nameLength - lostNames
}

/** Lines, so many at a time. */
async function* gathered(lines: Iterable<string>): Bytes {
  let some = ''
  for (const line of lines) {
    some += line
    if (some.length < CHUNK_BYTES) continue
    yield Buffer.from(some)
    some = ''
  }
  yield Buffer.from(some)
}
