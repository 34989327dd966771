// Owns the figures of the feed: idle event streams, a write that many hear of, polls, a first sync.
import { Agent, get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { connect } from '../../src/client/client.ts'
import type { Bench } from './bench.ts'
import { startSyncNode, type Server } from './process.ts'
import { atMost, figure, mib, type Result } from './report.ts'
import { fillDatabase, type Account } from './rows.ts'

const ACCOUNTS = 1000
const STREAMS_EACH = 10
const POLLS = 300
const CHANGES = 10
const FEW = 1000
const MANY = 100_000
const FIRST_SYNC = 10_000

export async function measureFeed(bench: Bench): Promise<Result[]> {
  const root = join(bench.folder, 'feed')
  await (await startSyncNode(root)).stop()
  const filled = fillDatabase(root, ({ account, stores, share }) => {
    const accounts = Array.from({ length: ACCOUNTS }, account)
    const [toSome = '', toAll = ''] = stores(accounts[0] as Account, 2)
    share(toSome, accounts.slice(1, ACCOUNTS / STREAMS_EACH))
    share(toAll, accounts.slice(1))
    const [few, many, first] = [account(), account(), account()]
    stores(few, FEW)
    stores(many, MANY)
    stores(first, FIRST_SYNC, 1024)
    return { accounts, toSome, toAll, few, many, first }
  })
  // Each on a server that has done nothing else: no memory that was freed hides what is taken.
  const results: Result[] = []
  for (const measure of [measureStreams, measurePolls, measureFirstSync]) {
    const server = await startSyncNode(root)
    results.push(...(await measure(server, filled, bench)))
    await server.stop()
  }
  return results
}

const authorized = ({ bearer }: Account) => ({ Authorization: `Bearer ${bearer}` })

interface Filled {
  accounts: Account[]
  toSome: string
  toAll: string
  few: Account
  many: Account
  first: Account
}

/** Many idle streams, and then writes that a part and all of them hear of. */
async function measureStreams(
  server: Server,
  { accounts, toSome, toAll }: Filled,
  { rounds }: Bench,
): Promise<Result[]> {
  await pause(1000)
  const before = server.rssAnonKib()
  const agent = new Agent({ maxSockets: Infinity })
  const heard = counter()
  for (let each = 0; each < STREAMS_EACH; each++) {
    for (const account of accounts) {
      const stream = await openStream(server, account, agent)
      stream.on('data', (chunk: Buffer) => {
        if (chunk.includes('event: change')) heard.add(1)
      })
    }
  }
  await pause(2000) // what each is sent at first
  const idle = server.rssAnonKib()
  const count = ACCOUNTS * STREAMS_EACH
  async function fanOut(key: string, streams: number): Promise<number[]> {
    const times: number[] = []
    for (let round = 0; round < rounds; round++) {
      const all = heard.reach(streams)
      const started = performance.now()
      await overwrite(server, accounts[0] as Account, key)
      await all
      times.push(performance.now() - started)
      await pause(300)
    }
    return times
  }
  const few = await fanOut(toSome, count / STREAMS_EACH)
  const all = await fanOut(toAll, count)
  agent.destroy()
  const more = mib(idle - before)
  return [
    {
      work: `${count.toLocaleString('en')} idle event streams, ${ACCOUNTS.toLocaleString('en')} accounts`,
      unit: 'MiB more',
      figures: [figure('Sync Node', [more])],
      targets: [atMost(more, 200, 'MiB more')],
    },
    {
      work: 'a write, until the last stream has heard of it',
      unit: 'ms',
      figures: [
        figure(`${count / STREAMS_EACH} streams hear of it`, few),
        figure(`${count} streams hear of it`, all),
      ],
      targets: [],
    },
  ]
}

function openStream({ port }: Server, account: Account, agent: Agent): Promise<IncomingMessage> {
  const headers = { ...authorized(account), Accept: 'text/event-stream' }
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/changes', headers, agent }, resolve).on('error', reject)
  })
}

function counter() {
  let count = 0
  let wanted = Infinity
  let done = (): void => undefined
  return {
    add(more: number) {
      count += more
      if (count >= wanted) done()
    },
    /** Resolves when so many were counted from now on. */
    reach(more: number): Promise<void> {
      count = 0
      wanted = more
      return new Promise((resolve) => (done = resolve))
    },
  }
}

const overwrite = (server: Server, account: Account, key: string): Promise<void> =>
  put(server, account, { key, headers: { 'X-Sync-Token': '*' }, status: 204 })

const create = (server: Server, account: Account, key: string): Promise<void> =>
  put(server, account, { key, headers: {}, status: 201 })

async function put(
  { url }: Server,
  account: Account,
  o: { key: string; headers: Record<string, string>; status: number },
): Promise<void> {
  const headers = { ...authorized(account), ...o.headers }
  const { status } = await fetch(`${url}/store/${o.key}`, { method: 'PUT', headers, body: 'x' })
  if (status !== o.status) throw new Error(`the server answered ${status}`)
}

/** The same poll in a small account and in a large one, in turns. */
async function measurePolls(server: Server, { few, many }: Filled): Promise<Result[]> {
  const times = new Map<Account, number[]>()
  const cursors = new Map<Account, string>()
  for (const account of [few, many]) {
    cursors.set(account, await lastCursor(server.url, authorized(account)))
    times.set(account, [])
    for (let i = 0; i < CHANGES; i++) await create(server, account, `new-${i}`)
  }
  for (let i = 0; i < POLLS; i++) {
    for (const account of [few, many]) {
      const started = performance.now()
      const { changes } = await poll(server.url, authorized(account), cursors.get(account))
      times.get(account)?.push(performance.now() - started)
      if (changes.length !== CHANGES) throw new Error('the poll did not bring what was written')
    }
  }
  return [
    {
      work: `a poll that brings ${CHANGES} changes, one client`,
      unit: 'ms',
      figures: [
        figure('account of 1,000 stores', times.get(few) as number[]),
        figure('account of 100,000 stores', times.get(many) as number[]),
      ],
      targets: [],
    },
  ]
}

interface Page {
  cursor: string
  more: boolean
  changes: unknown[]
}

type Headers = Record<string, string>

async function poll(url: string, headers: Headers, since?: string): Promise<Page> {
  const query = since === undefined ? '' : `&since=${since}`
  const answer = await fetch(`${url}/changes?limit=1000${query}`, { headers })
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
  return (await answer.json()) as Page
}

/** Where a feed goes on once all that there is has been read. */
export async function lastCursor(url: string, headers: Headers): Promise<string> {
  let page = await poll(url, headers)
  while (page.more) page = await poll(url, headers, page.cursor)
  return page.cursor
}

/** A first sync with the values, by the client that app authors have, into nothing. */
async function measureFirstSync(
  server: Server,
  { first }: Filled,
  { rounds }: Bench,
): Promise<Result[]> {
  let requests = 0
  const counting: typeof fetch = (...args) => {
    requests++
    return fetch(...args)
  }
  const times: number[] = []
  for (let round = 0; round < rounds; round++) {
    requests = 0
    const client = connect({ url: server.url, token: first.bearer, fetch: counting })
    const started = performance.now()
    let values = 0
    for await (const event of client.changes({ includeData: true })) {
      if (event.type === 'change' && 'value' in event.change) values++
    }
    times.push((performance.now() - started) / 1000)
    if (values !== FIRST_SYNC) throw new Error(`${values} of ${FIRST_SYNC} values came`)
  }
  const took = figure('Sync Node and its client', times)
  return [
    {
      work: 'first sync of 10,000 stores of 1 KiB, one client',
      unit: 's',
      figures: [took],
      targets: [atMost(took.value, 2, 's'), atMost(requests, 100, 'requests')],
    },
  ]
}
