// Owns the measurement of a slow disk: how long a GET takes while others write, large uploads come and
// the log of the database goes into it.
import { randomBytes } from 'node:crypto'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { EXECUTABLE, install } from '../helpers/executable.ts'
import { at } from '../helpers/figures.ts'
import { remoteClient, signUp } from '../helpers/remote.ts'
import { mountSlow } from './mount.ts'
import type { Scope } from './place.ts'

const MIB = 1024 * 1024
const SMALL = randomBytes(12_000)
const LARGE = randomBytes(32 * MIB)
const MANY = Array.from({ length: 100 }, (_, one) => `many ${one}`)
const ANY = { 'X-Sync-Token': '*' }

export interface Slow {
  gets: number
  p50: number
  p99: number
  worst: number
  puts: number
  uploads: number
  /** How often the log of the database was emptied. */
  checkpoints: number
}

/** On the slow disk, or the same on one without delays. */
export async function measureSlow(
  scope: Scope,
  seconds: number,
  disk = { writeMs: 4, syncMs: 80 },
): Promise<Slow> {
  const point = await mountSlow(scope, { mib: 4096, ...disk })
  const root = join(point, 'data')
  const server = await install(scope, EXECUTABLE).serve({ STATIC_ROOT: root, QUOTA: 'none' })
  const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
  await ana.save('read', randomBytes(4000))
  const until = performance.now() + seconds * 1000
  const isOver = (): boolean => performance.now() > until
  const times: number[] = []
  const sums = { puts: 0, uploads: 0, checkpoints: 0 }

  async function write(writer: number): Promise<void> {
    for (let turn = 0; !isOver(); turn++) {
      const { ok } = await ana.put(`write ${writer}`, SMALL, turn === 0 ? {} : ANY)
      if (ok) sums.puts++
    }
  }
  async function writeMany(): Promise<void> {
    for (let turn = 0; !isOver(); turn++) {
      const token = turn === 0 ? null : '*'
      const operations = MANY.map((put) => ({ put, token, data: SMALL.toString('base64') }))
      const body = JSON.stringify({ operations })
      const { ok } = await ana.request('/batch', { method: 'POST', body })
      if (ok) sums.puts += MANY.length
    }
  }
  async function upload(one: number): Promise<void> {
    for (let turn = 0; !isOver(); turn++) {
      const { ok } = await ana.put(`upload ${one}`, LARGE, turn === 0 ? {} : ANY)
      if (ok) sums.uploads++
    }
  }
  async function read(): Promise<void> {
    while (!isOver()) {
      const before = performance.now()
      await (await ana.get('read')).arrayBuffer()
      times.push(performance.now() - before)
      await pause(5)
    }
  }
  async function watchLog(): Promise<void> {
    for (let last = 0; !isOver();) {
      const { size } = statSync(join(root, 'sync-node.db-wal'))
      if (size < last) sums.checkpoints++
      last = size
      await pause(20)
    }
  }

  const writers = [0, 1, 2, 3].map(write)
  const uploads = [0, 1, 2].map(upload)
  await Promise.all([...writers, writeMany(), ...uploads, read(), read(), watchLog()])
  await server.stop()
  const [p50, p99, worst] = [at(times, 0.5), at(times, 0.99), at(times, 1 - Number.EPSILON)]
  return { gets: times.length, p50, p99, worst, ...sums }
}
