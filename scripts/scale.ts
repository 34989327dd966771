// Owns `make scale`: what a row, an index and each kind of work cost, measured; how an event goes out to many,
// simulated and compared with one measured point; and what that makes of up to a million accounts. SEED=2 for
// other crowds. Prints the tables of the README.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { killAll } from './bench/process.ts'
import { machine } from './bench/report.ts'
import { measureBytes } from './scale/bytes.ts'
import { measureCosts, measureRow, type Costs } from './scale/costs.ts'
import { ASSUMED, PRICES, bytesOfAccount, loadOf, needs } from './scale/paper.ts'
import { measurePoint } from './scale/point.ts'
import { openFile, openNodes } from './scale/scene.ts'

const { SEED = '1' } = process.env
const BEHIND_ONE = 60_000
const SIZES = [10_000, 100_000, 1_000_000]
const folder = mkdtempSync(join(tmpdir(), 'sync-node-scale-'))

const shown = (value: number): string =>
  value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 1 : 0 })

function print(rows: (string | number)[][]): void {
  const [head, ...others] = rows.map(
    (row) =>
      `| ${row.map((cell) => (typeof cell === 'number' ? shown(cell) : cell)).join(' | ')} |`,
  )
  console.log([head, `|${' --- |'.repeat(rows[0]?.length ?? 0)}`, ...others, ''].join('\n'))
}

const costRows = (where: string, costs: Costs): (string | number)[][] =>
  Object.entries(costs).map(([work, { node, database, statements }]) => [
    `${where}: ${work}`,
    node.toFixed(2),
    database.toFixed(2),
    statements.toFixed(1),
  ])

try {
  console.log(`${machine()}\n`)
  const places = await measureBytes(folder)
  print([
    ['table or index', 'rows', 'bytes a row'],
    ...places.map(({ name, rows, bytes }) => [name, rows, bytes]),
    ['an account with all that it has', 1, bytesOfAccount(places)],
  ])
  const file = await openFile(join(folder, 'file'))
  const ofFile = await measureCosts(file)
  await file.stop()
  const cluster = await openNodes(join(folder, 'cluster'), 3)
  const costs = await measureCosts(cluster)
  const rows = await measureRow(cluster)
  print([
    ['ms of a processor', 'at the node', 'at the database', 'statements'],
    ...costRows('file', ofFile),
    ...costRows('sqld', costs),
    ['sqld: an account in a look', '', rows.toFixed(4), ''],
  ])
  const { crowd, predicted, found } = await measurePoint(cluster, costs, Number(SEED))
  await cluster.stop()
  print([
    [
      `${predicted.streams} streams, ${crowd.nodes} nodes, ${crowd.writes} writes a second`,
      'simulated',
      'measured',
    ],
    ...(['events', 'statements', 'database', 'node'] as const).map((one) => [
      one,
      predicted[one].toFixed(2),
      found[one].toFixed(2),
    ]),
  ])
  console.log(`${JSON.stringify({ ...ASSUMED, PRICES })}\n`)
  const all = SIZES.map((accounts) => needs(accounts, { costs, places, rows }, Number(SEED)))
  const line = (name: string, of: (one: (typeof all)[number]) => number) => [name, ...all.map(of)]
  print([
    line('accounts', (one) => one.accounts),
    line('stores', (one) => one.stores),
    line('permissions', (one) => one.permissions),
    line('database, GB', (one) => one.databaseGb),
    line('bucket, GB', (one) => one.bucketGb),
    line('event streams', ({ load }) => load.streams),
    line('writes a second', (one) => one.writes),
    line('reads a second', (one) => one.reads),
    line('events a second', ({ load }) => load.events),
    line('looks of the streams a second', ({ load }) => load.beats),
    line('calls to the database a second', ({ load }) => load.calls),
    line('statements a second', ({ load }) => load.statements),
    line('processors: database', ({ load }) => load.database),
    line('of it the writes, one at a time', ({ load }) => load.writer),
    line('processors: nodes', ({ load }) => load.node),
    line('nodes of one processor, at half load', (one) => one.nodes),
    line('shards', (one) => one.shards),
    line('processors at half load', (one) => one.cores),
    line('alarms a second', ({ load }) => load.alarms),
    line('money a month', (one) => one.money),
  ])
  print([
    [
      `${shown(BEHIND_ONE)} accounts on one database`,
      'looks',
      'statements',
      'database',
      'busiest node',
    ],
    ...[2, 8, 32, 128].map((nodes) => {
      const one = loadOf({ accounts: BEHIND_ONE, nodes }, { costs, rows }, Number(SEED))
      return [`${nodes} nodes`, one.looks, one.statements, one.database, one.busiest * one.node]
    }),
  ])
} finally {
  killAll()
  rmSync(folder, { recursive: true, force: true })
}
