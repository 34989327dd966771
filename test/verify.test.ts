// Proves that a backup that is not whole, or not what it says, is refused by verify and restore alike,
// and that nothing of it is written.
import assert from 'node:assert/strict'
import { createHash, hash, randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Readable } from 'node:stream'
import { before, describe, it, type TestContext } from 'node:test'
import { pack, unpack, type Entry } from '../src/archive.ts'
import { Refusal } from '../src/errors.ts'
import { restore } from '../src/restore.ts'
import { verify } from '../src/verify.ts'
import { backupOf, refused, unwatched } from './helpers/backups.ts'
import { install } from './helpers/executable.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'

const PLACES = 200

/** A backup, made once. */
let good: Buffer

before(async (t) => {
  const node = await startNode(t as TestContext)
  const ana = await node.signUp('ana')
  for (const size of [5, 1000, 20_000, 50_000]) await ana.save(`${size}`, randomBytes(size))
  const chunks: Uint8Array[] = []
  await backupOf(node, async (written) => {
    for await (const chunk of written) chunks.push(chunk)
  })
  good = Buffer.concat(chunks)
})

const read = (bytes: Uint8Array) => Readable.from([bytes])

/** A number below `below` that is the same in each run. */
const chosen = (name: string, below: number): number =>
  parseInt(hash('sha256', name).slice(0, 8), 16) % below

/** Neither verify nor restore takes it; answers why. */
async function expectRefused(root: string, bytes: Uint8Array, why: RegExp): Promise<void> {
  const isWhy = (error: Error): boolean => {
    assert.ok(error instanceof Refusal, String(error.stack))
    assert.match(error.message, why)
    return true
  }
  await assert.rejects(verify(read(bytes)), isWhy)
  await expectNotRestored(root, bytes, isWhy)
}

async function expectNotRestored(
  root: string,
  bytes: Uint8Array,
  isWhy: (error: Error) => boolean,
): Promise<void> {
  const restoring = { ...unwatched(), read: () => read(bytes), bytes: bytes.length }
  await assert.rejects(restore(root, restoring), isWhy)
  assert.ok(!existsSync(root), 'something was written')
}

describe('A bad backup', () => {
  it('would be taken if it were good', async (t) => {
    const { manifest } = await verify(read(good))
    assert.deepEqual([manifest.stores, manifest.files.count], [4, 2])
    const root = join(temporaryFolder(t), 'data')
    await restore(root, { ...unwatched(), read: () => read(good), bytes: good.length })
    assert.deepEqual(readdirSync(root).sort(), ['blobs', 'lock', 'secret', 'sync-node.db'])
  })

  it(`is refused, cut at ${PLACES} places`, async (t) => {
    const root = join(temporaryFolder(t), 'data')
    for (let i = 0; i < PLACES; i++) {
      await expectRefused(root, good.subarray(0, chosen(`cut ${i}`, good.length)), BROKEN)
    }
    for (let missing = 1; missing < 60; missing++) {
      await expectRefused(root, good.subarray(0, good.length - missing), BROKEN)
    }
  })

  it(`is refused with a bit flipped in ${PLACES} places`, async (t) => {
    const root = join(temporaryFolder(t), 'data')
    const ends = [...Array(20).keys(), ...[...Array(60).keys()].map((i) => good.length - 1 - i)]
    const places = Array.from({ length: PLACES }, (_, i) => chosen(`flip ${i}`, good.length))
    for (const place of [...places, ...ends]) {
      const bytes = Buffer.from(good)
      bytes[place] = (bytes[place] as number) ^ (1 << chosen(`bit ${place}`, 8))
      await expectRefused(root, bytes, /damaged or cut short|not a backup/)
    }
  })

  it('is refused with anything added, moved or left out', async (t) => {
    const root = join(temporaryFolder(t), 'data')
    const half = good.length >> 1
    const ways: Record<string, Buffer> = {
      'a byte added': Buffer.concat([good, Buffer.alloc(1)]),
      'itself added': Buffer.concat([good, good]),
      'its halves exchanged': Buffer.concat([good.subarray(half), good.subarray(0, half)]),
      'a block of zeros': Buffer.concat([
        good.subarray(0, half),
        Buffer.alloc(4096),
        good.subarray(half + 4096),
      ]),
      'a block left out': Buffer.concat([good.subarray(0, half), good.subarray(half + 512)]),
    }
    for (const bytes of Object.values(ways)) {
      await expectRefused(root, bytes, /damaged or cut short|not a backup/)
    }
  })

  it('is refused when it is none at all', async (t) => {
    const root = join(temporaryFolder(t), 'data')
    for (const bytes of [Buffer.from('a'.repeat(5000)), randomBytes(5000), Buffer.alloc(5000)]) {
      await expectRefused(root, bytes, /^This is not a backup of sync-node\.$/)
    }
    await expectRefused(root, Buffer.alloc(0), BROKEN)
  })

  it('is refused by the executable in one line, with nothing written', async (t) => {
    const here = install(t)
    const flipped = Buffer.from(good)
    flipped[half(good)] = (flipped[half(good)] as number) ^ 1
    writeFileSync(join(here.folder, 'flipped'), flipped)
    writeFileSync(join(here.folder, 'cut'), good.subarray(0, half(good)))
    writeFileSync(join(here.folder, 'text'), 'a'.repeat(5000))
    const left = readdirSync(here.folder)
    for (const [name, why] of [
      ['flipped', BROKEN],
      ['cut', BROKEN],
      ['text', /not a backup/],
      ['nothing', /ENOENT/],
      ['.', /EISDIR|not a file/],
    ] as const) {
      for (const command of ['verify', 'restore']) {
        assert.match(refused(await here.run([command, name])), why)
        assert.deepEqual(readdirSync(here.folder), left)
      }
    }
  })
})

const BROKEN = /^(?:sync-node: )?The backup is damaged or cut short\.$/
const half = ({ length }: Buffer): number => length >> 1

interface Part {
  name: string
  bytes: Buffer
}

/** The parts of the good one, changed, in a file that is sealed as a backup is. */
async function forged(change: (parts: Part[]) => Part[]): Promise<Buffer> {
  const parts: Part[] = []
  for await (const { name, body } of unpack(read(good))) {
    parts.push({ name, bytes: Buffer.concat(await Readable.from(body).toArray()) })
  }
  const made = change(parts)
  async function* entries(): AsyncIterable<Entry> {
    for (const { name, bytes } of made) {
      yield { name, size: bytes.length, body: read(bytes) }
    }
  }
  const chunks: Uint8Array[] = []
  const { signal } = new AbortController()
  await pack({ entries: entries(), created: 0, signal }, async (written) => {
    for await (const chunk of written) chunks.push(chunk)
  })
  return Buffer.concat(chunks)
}

type Told = Record<string, unknown> & { files: { count: number; bytes: number } }

const retold =
  (change: (manifest: Told) => object) =>
  (parts: Part[]): Part[] =>
    parts.map(({ name, bytes }) =>
      name === 'manifest.json'
        ? { name, bytes: Buffer.from(JSON.stringify(change(JSON.parse(bytes.toString()) as Told))) }
        : { name, bytes },
    )

/** The same, with SHA256SUMS and the counts of the manifest made to fit. */
function fitting(parts: Part[]): Part[] {
  const rest = parts.slice(2)
  const files = rest.filter(({ name }) => name.startsWith('blobs/'))
  const sums = rest.map(
    ({ name, bytes }) => `${createHash('sha256').update(bytes).digest('hex')}  ${name}\n`,
  )
  const counted = retold((told) => ({
    ...told,
    database: { bytes: rest.find(({ name }) => name === 'sync-node.db')?.bytes.length },
    files: {
      count: files.length,
      bytes: files.reduce((sum, { bytes }) => sum + bytes.length, 0),
    },
  }))
  return counted(parts).map(({ name, bytes }) =>
    name === 'SHA256SUMS' ? { name, bytes: Buffer.from(sums.join('')) } : { name, bytes },
  )
}

const without = (index: number) => (parts: Part[]) => parts.toSpliced(index, 1)
const renamed = (index: number, name: string) => (parts: Part[]) =>
  parts.with(index, { name, bytes: parts[index]?.bytes as Buffer })
const changed = (index: number) => (parts: Part[]) =>
  parts.with(index, { name: parts[index]?.name as string, bytes: randomBytes(50_000) })

const GARBAGE = "INSERT INTO blob_garbage (store_file, since) VALUES ('../secret', 0)"
const name = (parts: Part[]): string => parts[4]?.name.slice('blobs/'.length) as string

/** The same, after somebody changed the database. */
const queried =
  (query: string) =>
  (parts: Part[]): Part[] => {
    const folder = mkdtempSync(join(tmpdir(), 'sync-node-'))
    const path = join(folder, 'database')
    try {
      writeFileSync(path, parts[3]?.bytes as Buffer)
      const database = new DatabaseSync(path)
      database.exec(query)
      database.close()
      return fitting(parts.with(3, { name: 'sync-node.db', bytes: readFileSync(path) }))
    } finally {
      rmSync(folder, { recursive: true })
    }
  }

describe('A backup that is whole, but not what it says', () => {
  it('would be taken if it were', async () => {
    const { manifest } = await verify(read(await forged((parts) => fitting(parts))))
    assert.equal(manifest.files.count, 2)
  })

  const ways: [string, (parts: Part[]) => Part[], RegExp?][] = [
    ['no manifest', without(0)],
    ['no list', without(1)],
    ['no secret', without(2)],
    ['no database', without(3)],
    ['a value less', without(4)],
    ['a value less, the last', without(5)],
    ['nothing', () => []],
    ['another order', (parts) => fitting([...parts.slice(0, 4), ...parts.slice(4).reverse()])],
    ['a value twice', (parts) => fitting([...parts, parts[5] as Part])],
    ['another value', changed(4)],
    ['another database', changed(3)],
    ['another secret', changed(2)],
    ['another list', changed(1)],
    ['a manifest that is none', changed(0)],
    ['a path that leads out', (parts) => fitting(renamed(5, 'blobs/z/../../../out')(parts))],
    ['a path from the root', (parts) => fitting(renamed(4, '/tmp/sync-node-out')(parts))],
    ['a name that is none of ours', (parts) => fitting([...parts, { name: 'x', bytes: good }])],
    ['a count that is wrong', retold((told) => ({ ...told, files: { count: 1, bytes: 0 } }))],
    ['a size that is wrong', retold((told) => ({ ...told, database: { bytes: 1 } }))],
    ['a time that is none', retold((told) => ({ ...told, created: 9e15 }))],
    ['a version that is none', retold((told) => ({ ...told, version: '\u001b[2J' }))],
    ['a secret without an end', (parts) => fitting(endless(parts))],
    ['no counts', retold(({ format }) => ({ format }))],
    ['a newer format', retold((told) => ({ ...told, format: 2 })), /made by a newer sync-node/],
    ['a newer schema', retold((told) => ({ ...told, schema: 99 })), /made by a newer sync-node/],
  ]
  for (const [name, change, why = BROKEN] of ways) {
    it(`is refused: ${name}`, async (t) => {
      await expectRefused(join(temporaryFolder(t), 'data'), await forged(change), why)
    })
  }

  const restoredOnly: [string, (parts: Part[]) => Part[]][] = [
    ['a file outside that is to be removed', queried(GARBAGE)],
    [
      'a value outside',
      (parts) => {
        const { file, store } = { file: '../../victim', store: 'x' }
        const set = `UPDATE sync_store SET store_file = '${file}' WHERE store_file = '${name(parts)}'`
        const damaged = retold((told) => ({ ...told, damaged: [{ file, store }] }))
        return damaged(queried(set)(without(4)(parts)))
      },
    ],
    [
      'a trigger of its own',
      queried('CREATE TRIGGER t AFTER INSERT ON migration BEGIN SELECT 1; END'),
    ],
    ['a table less', queried('DROP TABLE invitation')],
    ['a start that is no number', queried('UPDATE node SET start = 9223372036854775807')],
    ['no node', queried('DELETE FROM node')],
    ['a database that is none', (parts) => fitting(changed(3)(parts))],
    ['a secret of other data', (parts) => fitting(otherSecret(parts))],
    ['a value that the database does not name', (parts) => fitting(extra(parts))],
    ['no file for a value that it names', (parts) => fitting(without(5)(parts))],
    ['another value than it names', (parts) => fitting(changed(5)(parts))],
    ['other counts', retold((told) => ({ ...told, stores: 99 }))],
    ['values named damaged that are not', retold((told) => ({ ...told, damaged: [DAMAGED] }))],
  ]
  for (const [name, change] of restoredOnly) {
    it(`is refused by restore, which leaves nothing: ${name}`, async (t) => {
      const bytes = await forged(change)
      await verify(read(bytes))
      await expectNotRestored(join(temporaryFolder(t), 'data'), bytes, (error) => {
        assert.match(error.message, BROKEN)
        return error instanceof Refusal
      })
    })
  }
})

const endless = (parts: Part[]): Part[] =>
  parts.with(2, { name: 'secret', bytes: Buffer.alloc(100_000, 'a') })

const DAMAGED = { store: `~${'a'.repeat(43)}`, file: null }
const otherSecret = (parts: Part[]): Part[] =>
  parts.with(2, { name: 'secret', bytes: Buffer.from(`${'a'.repeat(43)}\n`) })
const extra = (parts: Part[]): Part[] => [
  ...parts,
  { name: `blobs/9-${'0'.repeat(26)}`, bytes: Buffer.from('more') },
]
