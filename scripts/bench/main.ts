// Owns `make bench`: measures in a temporary folder, beside everybody who can be had, and prints a table a
// work as soon as it is done; all of it goes into dist/bench too: as text, JSON, a picture, and the README's tables.
//
//   node scripts/bench/main.ts [word]    only what has the word in its name
//   ROUNDS=5                             how often everybody is measured in turn
//   BENCH_FOLDER=/tmp                    where the data of all lies: the disk that is measured
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Bench } from './bench.ts'
import { FLOOR, PEERS } from './peers.ts'
import { toPicture } from './picture.ts'
import { killAll } from './process.ts'
import { machine, toMarkdown, toSummary, toText, type Report, type Result } from './report.ts'
import { measureFeed } from './feed.ts'
import { measureFlush } from './flush.ts'
import { measureLarge } from './large.ts'
import { measureMixed } from './mixed.ts'
import { measureNodes } from './nodes.ts'
import { measureSmall } from './small.ts'
import { measureSize, measureStart } from './start.ts'

const WORKS: [string, (bench: Bench) => Promise<Result[]>][] = [
  ['start', measureStart],
  ['small', measureSmall],
  ['flush', measureFlush],
  ['large', measureLarge],
  ['mixed', measureMixed],
  ['feed', measureFeed],
  ['size', measureSize],
]
// What is no part of the comparison, and is measured by its name alone.
const APART: typeof WORKS = [['nodes', measureNodes]]

const [, , word = ''] = process.argv
const { ROUNDS = '5', BENCH_FOLDER = tmpdir() } = process.env
for (const program of ['wrk', 'curl']) {
  if (spawnSync(program, ['--version']).error === undefined) continue
  throw new Error(`${program} is not installed: apt-get install ${program}`)
}
const output = join(import.meta.dirname, '../../dist/bench')
const folder = mkdtempSync(join(BENCH_FOLDER, 'sync-node-bench-'))
chmodSync(folder, 0o755) // for servers that give up root
const report: Report = {
  date: new Date().toISOString(),
  machine: machine(),
  rounds: Number(ROUNDS),
  minutes: 0,
  results: [],
  lacks: {
    [FLOOR]: 'looks at nothing, keeps nothing: the same answers from memory',
    ...Object.fromEntries(PEERS.map(({ name, lacks }) => [name, lacks])),
  },
  missing: {},
}
const bench: Bench = {
  folder,
  rounds: report.rounds,
  seconds: 2,
  missing: (name, why) => (report.missing[name] = why.split('\n', 1)[0] as string),
}
const texts: string[] = []
function print(text: string): void {
  console.log(text)
  texts.push(text)
}

function cleanUp(): void {
  killAll()
  rmSync(folder, { recursive: true, force: true })
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    cleanUp()
    process.exit(1)
  })
}

function save(): void {
  mkdirSync(output, { recursive: true })
  writeFileSync(join(output, 'speed.txt'), `${texts.join('\n')}\n`)
  writeFileSync(join(output, 'speed.md'), toMarkdown(report))
  const picture = toPicture(report)
  if (picture !== null) writeFileSync(join(output, 'speed.svg'), picture)
  writeFileSync(join(output, 'speed.json'), `${JSON.stringify(report, null, 2)}\n`)
}

try {
  const apart = APART.filter(([name]) => name === word)
  for (const [, measure] of [...WORKS.filter(([name]) => name.includes(word)), ...apart]) {
    const results = await measure(bench)
    report.results.push(...results)
    for (const result of results) print(toText(result))
    report.minutes = performance.now() / 60_000
    save()
  }
  print(toSummary(report))
  save()
} finally {
  cleanUp()
}
