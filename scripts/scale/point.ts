// Owns the one point at which the simulation is compared with what happens: three nodes on one sqld.
import { setTimeout as pause } from 'node:timers/promises'
import type { Costs } from './costs.ts'
import { simulate, type Crowd } from './fan-out.ts'
import { load, type Load } from './paper.ts'
import { listen, minus, share, signUp, write, type Person, type Scene } from './scene.ts'

const SECONDS = 20
const CROWD: Crowd = {
  accounts: 48,
  devices: 6,
  connected: 1,
  members: 8,
  shared: 1,
  stores: 1,
  nodes: 3,
  writes: 4,
}

export interface Point {
  crowd: Crowd
  predicted: Load
  found: Pick<Load, 'events' | 'statements' | 'database' | 'node'>
}

/** The streams of six groups of eight hear what one of each group writes. */
export async function measurePoint(scene: Scene, costs: Costs, seed: number): Promise<Point> {
  const first = scene.nodes[0] as Scene['nodes'][number]
  const people: Person[] = []
  while (people.length < CROWD.accounts) people.push(await signUp(first, `one-${people.length}`))
  const groups = Array.from({ length: CROWD.accounts / CROWD.members }, (_, nth) =>
    people.slice(nth * CROWD.members, (nth + 1) * CROWD.members),
  )
  const tokens = new Map<Person, string>()
  const value = Buffer.alloc(1024, 'v')
  const ownerOf = (nth: number): Person => groups[nth % groups.length]?.[0] as Person
  async function put(nth: number): Promise<void> {
    const [owner, token] = [ownerOf(nth), tokens.get(ownerOf(nth))]
    const node = scene.nodes[nth % CROWD.nodes] as Scene['nodes'][number]
    const asked = { name: 'shared', value, ...(token !== undefined && { token }) }
    tokens.set(owner, (await write(node, owner, asked)).token)
  }
  for (const [nth, [owner, ...members]] of groups.entries()) {
    await put(nth)
    await share(first, owner as Person, { name: 'shared', members })
  }
  const streams = listen()
  for (let one = 0; one < CROWD.accounts * CROWD.devices; one++) {
    const node = scene.nodes[one % CROWD.nodes] as Scene['nodes'][number]
    await streams.open(node, people[Math.floor(one / CROWD.devices)] as Person)
  }
  await pause(3000) // what each is sent at first
  const [told, before, started] = [streams.count(), await scene.spent(), performance.now()]
  for (let nth = 0; nth < SECONDS * CROWD.writes; nth++) {
    await pause(Math.max(0, started + (nth * 1000) / CROWD.writes - performance.now()))
    await put(nth)
  }
  await pause(Math.max(0, started + SECONDS * 1000 - performance.now()))
  const spent = minus(await scene.spent(), before)
  const seconds = (performance.now() - started) / 1000
  const events = (streams.count() - told) / seconds
  streams.close()
  const fanOut = simulate(CROWD, { seed, seconds: SECONDS })
  return {
    crowd: CROWD,
    predicted: load(CROWD, fanOut, { costs, rows: 0, reads: 0 }),
    found: {
      events,
      statements: spent.statements / seconds,
      database: spent.database / 1000 / seconds,
      node: spent.node / 1000 / seconds,
    },
  }
}
