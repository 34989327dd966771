// Owns what people see before the first request: how long a start takes, and how large the program is.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, statSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Bench } from './bench.ts'
import { EXECUTABLE, startSyncNode } from './process.ts'
import { atMost, figure, type Result } from './report.ts'

const MB = 1e6
const MOST_MS = 150

export async function measureStart(bench: Bench): Promise<Result[]> {
  const first: number[] = []
  for (let round = 0; round < bench.rounds; round++) {
    const server = await startSyncNode(join(bench.folder, `start-${round}`))
    first.push(server.startMs)
    await server.stop()
  }
  return [await measureStarts(bench, { root: join(bench.folder, 'start-0'), first })]
}

/** Starts on the data of a server that was stopped. */
export async function measureStarts(
  { rounds }: Bench,
  {
    root,
    first,
    name = 'start to the first answer',
  }: {
    root: string
    /** How long the first start took, which makes the folder. */
    first?: number[]
    name?: string
  },
): Promise<Result> {
  const later: number[] = []
  for (let round = 0; round < rounds; round++) {
    const server = await startSyncNode(root)
    later.push(server.startMs)
    await server.stop()
  }
  const figures = [figure('Sync Node', later)]
  if (first !== undefined) figures.push(figure('the first, which makes its folder', first))
  const targets = figures.map(({ value }) => atMost(value, MOST_MS, 'ms'))
  return { work: name, unit: 'ms', figures, targets }
}

export async function measureSize(): Promise<Result[]> {
  const compressed = (await xzBytes(EXECUTABLE)) / MB
  const figures = [
    figure('as it is', [statSync(EXECUTABLE).size / MB]),
    figure('as it is downloaded (xz)', [compressed]),
  ]
  return [{ work: 'the executable', unit: 'MB', figures, targets: [atMost(compressed, 32, 'MB')] }]
}

/** As a release compresses it. */
async function xzBytes(path: string): Promise<number> {
  const xz = spawn('xz', ['-T1', '-6', '-c'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(xz, 'close')
  let bytes = 0
  xz.stdout.on('data', (chunk: Buffer) => (bytes += chunk.length))
  await pipeline(createReadStream(path), xz.stdin)
  await ended
  return bytes
}
