// Owns what each kind of work costs of the processor, at the node and at the database server.
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from '../../test/helpers/eventually.ts'
import { lastCursor } from '../bench/feed.ts'
import {
  listen,
  minus,
  share,
  signUp,
  write,
  type Person,
  type Scene,
  type Spent,
} from './scene.ts'

const MS = 3000
const WARM_UP_MS = 1500
const LANES = 4
const MEMBERS = 4
const STREAMS = 100
const TOLD = 30
const VALUE = Buffer.alloc(1024, 'v')

/** Milliseconds of the processor, and statements at the database, each. */
export type Costs = Record<'write' | 'read' | 'poll' | 'told', Spent>

export async function measureCosts(scene: Scene): Promise<Costs> {
  const node = scene.nodes[0] as Scene['nodes'][number]
  const owner = await signUp(node, 'owner')
  const lanes = Array.from({ length: LANES }, (_, one) => `lane-${one}`)
  const tokens = new Map<string, string>()
  async function put(name: string): Promise<void> {
    const token = tokens.get(name)
    const asked = { name, value: VALUE, ...(token !== undefined && { token }) }
    tokens.set(name, (await write(node, owner, asked)).token)
  }
  for (const name of lanes) await put(name)
  const cursor = await lastCursor(node.url, owner.headers)
  async function ask(path: string): Promise<void> {
    const answer = await fetch(node.url + path, { headers: owner.headers })
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
    await answer.arrayBuffer()
  }
  const poll = await each(scene, lanes, () => ask(`/changes?since=${cursor}`))
  const read = await each(scene, lanes, (name) => ask(`/store/${name}`))
  const written = await each(scene, lanes, put)
  return { write: written, read, poll, told: await measureTold(scene, owner, written) }
}

/** By a few at once, for some seconds. */
async function each(
  scene: Scene,
  lanes: string[],
  work: (lane: string) => Promise<void>,
): Promise<Spent> {
  async function run(ms: number): Promise<number> {
    const until = performance.now() + ms
    let count = 0
    await Promise.all(
      lanes.map(async (lane) => {
        for (; performance.now() < until; count++) await work(lane)
      }),
    )
    return count
  }
  await run(WARM_UP_MS)
  const before = await scene.spent()
  const count = await run(MS)
  return over(minus(await scene.spent(), before), count)
}

const over = ({ node, database, statements }: Spent, count: number): Spent => ({
  node: node / count,
  database: database / count,
  statements: statements / count,
})

/** An event told to a stream: what a write costs with many of them, without the write. */
async function measureTold(scene: Scene, owner: Person, written: Spent): Promise<Spent> {
  const node = scene.nodes[0] as Scene['nodes'][number]
  const members = [owner]
  while (members.length < MEMBERS) members.push(await signUp(node, `member-${members.length}`))
  const name = 'told'
  let { token } = await write(node, owner, { name, value: VALUE })
  await share(node, owner, { name, members: members.slice(1) })
  const streams = listen()
  for (let one = 0; one < STREAMS; one++) await streams.open(node, members[one % MEMBERS] as Person)
  await pause(1500) // what each is sent at first
  const before = await scene.spent()
  for (let one = 0; one < TOLD; one++) {
    const told = streams.count()
    ;({ token } = await write(node, owner, { name, token, value: VALUE }))
    await eventually(() => streams.count() - told, STREAMS)
  }
  const all = minus(await scene.spent(), before)
  streams.close()
  return over(minus(all, over(written, 1 / TOLD)), TOLD * STREAMS)
}

const ROWS = 5000
const LOOKS = 40

/** What an account costs the database in the answer to a node that looks what is new. */
export async function measureRow({ spent, database }: Scene): Promise<number> {
  const text = `WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
    SELECT 1000000 AS seq, 1000000 AS last, i AS account FROM n`
  const requests = [{ type: 'execute', stmt: { sql: text } }, { type: 'close' }]
  const before = await spent()
  for (let look = 0; look < LOOKS; look++) {
    const answer = await fetch(`${database}/v2/pipeline`, {
      method: 'POST',
      body: JSON.stringify({ requests }),
    })
    if (!answer.ok) throw new Error(`the database answered ${answer.status}`)
    await answer.arrayBuffer()
  }
  return minus(await spent(), before).database / (ROWS * LOOKS)
}
