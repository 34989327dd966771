// Owns the proof with several nodes: clients on the same few stores through nginx, while nodes, the database
// server, the bucket and the ways to them fail; and what all of them saw.
import { AssertionError } from 'node:assert'
import { numbers } from '../helpers/random.ts'
import { signUp } from '../helpers/remote.ts'
import { explain } from '../linear/checker.ts'
import { watch } from '../linear/feeds.ts'
import { play } from '../linear/play.ts'
import { openCluster, type Make } from './cluster.ts'
import { FAULTS, SEQUENCE, expectAllHear, type FaultName } from './faults.ts'
import { expectGoneBack } from './past.ts'

export interface Options extends Make {
  operations: number
  faults: number
  seed: number
  tell?: (line: string) => void
}

export interface Figures {
  operations: number
  stores: number
  /** Without an answer, or with one that says that it may have happened. */
  unknown: number
  faults: Record<FaultName, number>
  resumed: number
  seconds: number
  /** Histories that no order explains: something acknowledged was lost, or seen that was never written. */
  disorders: string[]
  lost: string[]
  doubled: string[]
  reordered: string[]
  /** Any other. */
  wrong: string[]
}

const PEOPLE = ['ana', 'ben', 'cleo']
const CLIENTS = 12
// Each fault leaves writes of which nobody knows whether they happened: the fewer a history has, the sooner
// its order is found.
const EPOCH = 600

export async function run(
  t: Parameters<typeof openCluster>[0],
  { operations, faults, seed, tell = () => undefined, ...make }: Options,
): Promise<Figures> {
  const began = performance.now()
  const cluster = await openCluster(t, make)
  const { url } = cluster
  const people = await Promise.all(PEOPLE.map((id) => signUp(url, { id })))
  const other = await signUp(url, { id: 'other' })
  const feeds = people.map((person, i) => watch(url, person, i === 0))
  const below = numbers(seed)
  const counts = Object.fromEntries(SEQUENCE.map((name) => [name, 0])) as Figures['faults']
  let failing = Promise.resolve()
  let nth = 0

  async function fail(): Promise<void> {
    const name = SEQUENCE[nth++ % SEQUENCE.length] as FaultName
    await FAULTS[name](cluster, below)
    counts[name]++
    tell(`${nth} of ${faults} faults: ${name}`)
  }

  const wrong = await said(() => expectAllHear(cluster, other))
  const played = await play({
    url,
    people,
    operations,
    clients: CLIENTS,
    seed,
    kills: faults,
    epoch: EPOCH,
    isFlaky: true,
    // One after the other, however fast they come.
    kill: () => (failing = failing.then(fail)),
  })
  await failing
  const told = (await Promise.all(feeds.map((feed) => feed.end(played)))).flat()
  wrong.push(...played.faults)
  for (const expect of [expectAllHear, expectGoneBack]) {
    wrong.push(...(await said(() => expect(cluster, other))))
  }
  const histories = [...played.histories.values()]
  return {
    operations: histories.reduce((sum, history) => sum + history.length, 0),
    stores: histories.length,
    unknown: played.unknown,
    faults: counts,
    resumed: feeds.reduce((sum, feed) => sum + feed.resumed(), 0),
    seconds: (performance.now() - began) / 1000,
    disorders: histories.flatMap((history) => explain(history, PEOPLE.length)),
    lost: told.filter((one) => one.startsWith('a feed told')),
    doubled: told.filter((one) => one.endsWith('twice')),
    reordered: told.filter((one) => one.endsWith('after a later one')),
    wrong,
  }
}

/** What an assertion in it says, if one fails. */
async function said(work: () => Promise<void>): Promise<string[]> {
  try {
    await work()
    return []
  } catch (error) {
    if (error instanceof AssertionError) return [error.message]
    throw error
  }
}

export const problemsOf = ({ disorders, lost, doubled, reordered, wrong }: Figures): string[] => [
  ...disorders,
  ...lost,
  ...doubled,
  ...reordered,
  ...wrong,
]

/** All that was done and found, in lines. */
export function toTable(figures: Figures): string {
  const rows: [string, number][] = [
    ['operations', figures.operations],
    ['  of which nobody knows whether they happened', figures.unknown],
    ['stores, each with a history of its own', figures.stores],
    ...Object.entries(figures.faults),
    ['streams that went on through another node', figures.resumed],
    ['histories without an order', figures.disorders.length],
    ['lost in feeds', figures.lost.length],
    ['doubled in feeds', figures.doubled.length],
    ['not in order in feeds', figures.reordered.length],
    ['otherwise wrong', figures.wrong.length],
    ['seconds', Math.round(figures.seconds)],
  ]
  return rows.map(([name, value]) => `${name.padEnd(54)} ${value}`).join('\n')
}
