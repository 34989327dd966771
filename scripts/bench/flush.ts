// Owns what the disk has to do with it: a lone durable write beside one flush of the same disk, and many at
// once on a disk that is slow to flush.
import { randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, fsyncSync, mkdtempSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { cannotMount, mountSlow } from '../../test/disks/mount.ts'
import { within } from '../../test/disks/place.ts'
import type { Bench } from './bench.ts'
import { CONNECTIONS, drive, toBytes, withTokens, wrk } from './load.ts'
import { openSyncNode, startFloor, type Request, type Running, type SyncNode } from './peers.ts'
import { settleDisk } from './process.ts'
import { median } from '../../test/helpers/figures.ts'
import { figure, toDigits, type Result } from './report.ts'
import { VALUE, send } from './small.ts'

const FLUSH_MS = 10
const LEAST = 1200
const LARGE = randomBytes(64 * 1024)
const NAMES = Array.from({ length: 500 }, (_, one) => `key-${one}`)

export async function measureFlush(bench: Bench): Promise<Result[]> {
  const results = [await measureLone(bench, { point: bench.folder, disk: 'this disk' })]
  const why = cannotMount('nbdkit', 'qemu-storage-daemon', 'mkfs.ext4', 'cc')
  if (why !== false) {
    bench.missing('a disk that is slow to flush', why)
    return results
  }
  await within(async (scope) => {
    const point = await mountSlow(scope, { mib: 2048, writeMs: 0, syncMs: FLUSH_MS })
    const disk = `a disk of ${FLUSH_MS} ms a flush`
    results.push(await measureLone(bench, { point, disk }), await measureMany(bench, point, disk))
  })
  return results
}

const KINDS = ['flush', 'append', 'floor', 'small', 'floorLarge', 'large'] as const
type Times = Record<(typeof KINDS)[number], number[]>

/** Median milliseconds of one after the other. */
async function measureLone(
  bench: Bench,
  { point, disk }: { point: string; disk: string },
): Promise<Result> {
  const folder = mkdtempSync(join(point, 'lone-'))
  const server = await openSyncNode(folder)
  const small = await overwriting(server, 'small', VALUE)
  const large = await overwriting(server, 'large', LARGE)
  const floor = await startFloor(server, [small])
  const rounds: Times = { flush: [], append: [], floor: [], small: [], floorLarge: [], large: [] }
  const ms = (bench.seconds * 1000) / 2
  for (let round = 0; round < bench.rounds; round++) {
    settleDisk(folder)
    rounds.flush.push(timeSyncs(join(folder, `flush-${round}`), ms, false))
    rounds.append.push(timeSyncs(join(folder, `append-${round}`), ms, true))
    rounds.floor.push(await timeOne(floor, small, ms))
    rounds.small.push(await timeOne(server, small, ms))
    rounds.floorLarge.push(await timeOne(floor, large, ms))
    rounds.large.push(await timeOne(server, large, ms))
  }
  await floor.stop()
  await server.stop()
  return {
    work: `one client's durable PUTs, one after the other, ${disk}`,
    unit: 'ms each',
    figures: [
      figure('Sync Node, 4 KiB', rounds.small),
      figure('Sync Node, 64 KiB', rounds.large),
      figure('bare node:http, 4 KiB', rounds.floor),
      figure('bare node:http, 64 KiB', rounds.floorLarge),
      figure('one flush (fdatasync of 4 KiB in place)', rounds.flush),
      figure('fdatasync of 4 KiB at the end of a file', rounds.append),
    ],
    targets: [
      inFlushes(rounds, ['small', 'floor'], { size: '4 KiB', most: 1 }),
      inFlushes(rounds, ['large', 'floorLarge'], { size: '64 KiB', most: 2 }),
    ],
  }
}

/** By how many flushes one takes longer than the other. */
function inFlushes(
  rounds: Times,
  [one, floor]: [keyof Times, keyof Times],
  { size, most }: { size: string; most: number },
): Result['targets'][number] {
  const above = (kind: 'flush' | 'append'): number =>
    median(
      rounds[one].map((ms, i) => (ms - (rounds[floor][i] as number)) / (rounds[kind][i] as number)),
    )
  const found = Number(above('flush').toFixed(1))
  return {
    wanted: `${size}: at most ${most} flush${most === 1 ? '' : 'es'} above the floor`,
    found: `${toDigits(found)}; ${toDigits(above('append'))} of those at an end`,
    isMet: found <= most,
  }
}

/** A write that is good again and again. */
async function overwriting(server: SyncNode, name: string, value: Buffer): Promise<Request> {
  const request = server.write(name, value)
  await send(server, request)
  return { ...request, headers: { ...request.headers, 'X-Sync-Token': '*' } }
}

/** The median of writing 4 KiB and fdatasync: over and over in one place, or each behind the last. */
function timeSyncs(file: string, ms: number, isAppend: boolean): number {
  const descriptor = openSync(file, 'w')
  writeSync(descriptor, Buffer.alloc(64 * 1024, 1))
  fsyncSync(descriptor)
  const times: number[] = []
  const until = performance.now() + ms
  let at = isAppend ? 64 * 1024 : 0
  while (performance.now() < until) {
    const started = performance.now()
    writeSync(descriptor, VALUE, 0, VALUE.length, at)
    fdatasyncSync(descriptor)
    times.push(performance.now() - started)
    if (isAppend) at += VALUE.length
  }
  closeSync(descriptor)
  return median(times)
}

async function timeOne({ port }: Running, request: Request, ms: number): Promise<number> {
  const bytes = toBytes(request)
  const times: number[] = []
  const until = performance.now() + ms
  const done = (_: unknown, took: number): void => void times.push(took)
  await drive(
    port,
    () => performance.now() > until,
    () => ({ bytes, done }),
  )
  return median(times)
}

/** Group commit: many writes share a flush. */
async function measureMany(bench: Bench, point: string, disk: string): Promise<Result> {
  const server = await openSyncNode(mkdtempSync(join(point, 'many-')))
  await Promise.all(NAMES.map((name) => send(server, server.write(name, VALUE))))
  const rates: number[] = []
  for (let round = 0; round < bench.rounds; round++) {
    const file = join(bench.folder, 'many')
    const args = await withTokens(file, server, { names: NAMES, body: VALUE })
    rates.push((await wrk({ port: server.port, seconds: bench.seconds, args })).rate)
  }
  await server.stop()
  const found = median(rates)
  return {
    work: `PUT 4 KiB, token checked, synced, ${CONNECTIONS} connections, ${disk}`,
    unit: 'requests a second',
    figures: [figure('Sync Node', rates)],
    targets: [
      {
        wanted: `at least ${LEAST}/s`,
        found: `${toDigits(found)}/s, ${toDigits((found * FLUSH_MS) / 1000)} a flush`,
        isMet: found >= LEAST,
      },
    ],
  }
}
