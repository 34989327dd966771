// Owns the mixed load, 90 % GET, 8 % PUT and 2 % changes, of many accounts with a million stores beside few
// with a thousand: rates, how long each method takes, memory, and a start on that many stores.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { toStoreKey } from '../../src/key.ts'
import type { Bench } from './bench.ts'
import { lastCursor } from './feed.ts'
import { CONNECTIONS, drive, toBytes, type Answer, type Next } from './load.ts'
import { settleDisk, startSyncNode, type Server } from './process.ts'
import { at, median } from '../../test/helpers/figures.ts'
import { atLeast, atMost, figure, mib, type Result } from './report.ts'
import { fillDatabase, firstToken, nameOf, type Account } from './rows.ts'
import { measureStarts } from './start.ts'

const STORES_EACH = 100
const FEW = 10
const MANY = 10_000
const POLLED = 1000
const VALUE = randomBytes(1024)
const METHODS = ['GET', 'PUT', 'changes'] as const
const MOST_MIB = 96
const FEW_STORES = '1,000 stores of 10 accounts'
const MANY_STORES = '1,000,000 stores of 10,000 accounts'

type Times = Record<(typeof METHODS)[number], number[]>

interface Side {
  root: string
  server: Server
  accounts: Account[]
  cursors: Map<Account, string>
  /** The tokens that are not the first, by account and store. */
  tokens: Map<string, string>
  rates: number[]
}

export async function measureMixed(bench: Bench): Promise<Result[]> {
  const few = await openSide(join(bench.folder, 'few'), FEW)
  const many = await openSide(join(bench.folder, 'many'), MANY)
  for (const side of [few, many]) await play(side, 2 * bench.seconds)
  const times: Times = { GET: [], PUT: [], changes: [] }
  let peak = 0
  const watch = setInterval(() => (peak = Math.max(peak, many.server.rssAnonKib())), 50)
  for (let round = 0; round < bench.rounds; round++) {
    for (const side of [few, many]) {
      settleDisk(bench.folder)
      const found = await play(side, 2 * bench.seconds)
      side.rates.push(METHODS.reduce((sum, one) => sum + found[one].length, 0) / 2 / bench.seconds)
      if (side === many) for (const one of METHODS) times[one].push(...found[one])
    }
  }
  clearInterval(watch)
  await few.server.stop()
  await many.server.stop()
  const rates = { figures: [figure(MANY_STORES, many.rates), figure(FEW_STORES, few.rates)] }
  return [
    {
      work: `90 % GET, 8 % PUT, 2 % changes of 1 KiB, ${CONNECTIONS} connections`,
      unit: 'requests a second',
      ...rates,
      targets: [atLeast(rates, 0.8, [MANY_STORES, FEW_STORES])],
    },
    latencies(times),
    {
      work: 'private memory under that load, 1,000,000 stores',
      unit: 'MiB',
      figures: [figure('Sync Node, at the most', [mib(peak)])],
      targets: [atMost(mib(peak), MOST_MIB, 'MiB')],
    },
    await measureStarts(bench, {
      root: many.root,
      name: 'start to the first answer, 1,000,000 stores',
    }),
  ]
}

function latencies(times: Times): Result {
  return {
    work: 'how long each takes in that load, 1,000,000 stores',
    unit: 'ms',
    figures: METHODS.flatMap((one) => [
      figure(`${one}, median`, [median(times[one])]),
      figure(`${one}, p99`, [at(times[one], 0.99)]),
    ]),
    targets: METHODS.map((one) => {
      const target = atMost(at(times[one], 0.99) / median(times[one]), 5, '× its median')
      return { ...target, wanted: `${one}: p99 ${target.wanted}` }
    }),
  }
}

async function openSide(root: string, count: number): Promise<Side> {
  await (await startSyncNode(root)).stop()
  const accounts = fillDatabase(root, ({ account, stores }) =>
    Array.from({ length: count }, () => {
      const one = account()
      stores(one, STORES_EACH, VALUE.length)
      return one
    }),
  )
  const server = await startSyncNode(root)
  const cursors = new Map<Account, string>()
  for (const account of accounts.slice(0, POLLED)) {
    cursors.set(account, await lastCursor(server.url, authorizationOf(account)))
  }
  return { root, server, accounts, cursors, tokens: new Map(), rates: [] }
}

const authorizationOf = ({ bearer }: Account) => ({ Authorization: `Bearer ${bearer}` })

const below = (count: number): number => Math.floor(Math.random() * count)

/** The load for so many seconds; answers how many milliseconds each took. */
async function play(side: Side, seconds: number): Promise<Times> {
  const times: Times = { GET: [], PUT: [], changes: [] }
  const until = performance.now() + seconds * 1000
  const isOver = (): boolean => performance.now() > until
  // Two that wrote to one store would refuse each other.
  const written = new Set<string>()
  const next = (): Next => {
    const chance = Math.random()
    if (chance < 0.9) return get(side, times)
    return chance < 0.98 ? put(side, times, written) : changes(side, times)
  }
  await Promise.all(
    Array.from({ length: CONNECTIONS }, () => drive(side.server.port, isOver, next)),
  )
  return times
}

function get({ accounts }: Side, times: Times): Next {
  const account = accounts[below(accounts.length)] as Account
  const path = `/store/${nameOf(below(STORES_EACH))}`
  return {
    bytes: toBytes({ method: 'GET', path, headers: authorizationOf(account) }),
    done: (_, ms) => void times.GET.push(ms),
  }
}

function put({ accounts, tokens }: Side, times: Times, written: Set<string>): Next {
  const account = accounts[below(accounts.length)] as Account
  const name = nameOf(below(STORES_EACH))
  const id = `${account.number} ${name}`
  if (written.has(id)) return put({ accounts, tokens } as Side, times, written)
  written.add(id)
  const token = tokens.get(id) ?? firstToken(toStoreKey(name, account.keySalt))
  const headers = { ...authorizationOf(account), 'X-Sync-Token': token }
  return {
    bytes: toBytes({ method: 'PUT', path: `/store/${name}`, headers, body: VALUE }),
    done({ head }: Answer, ms) {
      times.PUT.push(ms)
      tokens.set(id, /\r\nx-sync-token: (\w+)/i.exec(head)?.[1] as string)
      written.delete(id)
    },
  }
}

function changes({ accounts, cursors }: Side, times: Times): Next {
  const account = accounts[below(Math.min(POLLED, accounts.length))] as Account
  const path = `/changes?since=${cursors.get(account)}`
  return {
    bytes: toBytes({ method: 'GET', path, headers: authorizationOf(account) }),
    done({ body }, ms) {
      times.changes.push(ms)
      cursors.set(account, (JSON.parse(body.toString()) as { cursor: string }).cursor)
    },
  }
}
