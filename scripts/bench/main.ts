// Owns `make bench`: measures in a temporary folder, and prints a line a figure.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { measureFeed } from './feed.ts'
import { killAll } from './server.ts'
import { measureThroughput } from './throughput.ts'

const folder = mkdtempSync(join(tmpdir(), 'sync-node-bench-'))
try {
  for (const measure of [measureThroughput, measureFeed]) console.log(await measure(folder))
} finally {
  killAll()
  rmSync(folder, { recursive: true, force: true })
}
