// Owns what clients of a cluster see when its database server goes back to an older copy under running
// nodes: nobody's cursor from beyond is taken for one of this history.
import assert from 'node:assert/strict'
import { hash, randomBytes } from 'node:crypto'
import { eventually } from '../helpers/eventually.ts'
import type { Client } from '../helpers/client.ts'
import { expectProblem } from '../helpers/expect.ts'
import { openStream, readAll } from '../helpers/feed.ts'
import { remoteClient, type Opened } from '../helpers/remote.ts'
import type { Cluster } from './cluster.ts'

const LARGE = 50_000
const ANEW = 9

/** Answers what was wrong. It ends with less in the cluster than there was. */
export async function expectGoneBack(cluster: Cluster, person: Opened): Promise<void> {
  const through = cluster.nodes.map(({ url }) => remoteClient(url, person))
  const [first] = through as [Client]
  const value = randomBytes(LARGE)
  await save(first, 'large', value)
  const { cursor: early } = await readAll(first, undefined, 1000)
  await cluster.sqld.keep()
  for (const [i, self] of through.entries()) {
    await save(self, `lost ${i}`, randomBytes(LARGE))
    await save(self, 'large', String(i), { 'X-Sync-Token': '*' })
  }
  const { cursor: late } = await readAll(first, undefined, 1000)
  const streams = await Promise.all(
    through.map((self) => openStream(self, { query: `?since=${late}` })),
  )
  await cluster.sqld.goBack()
  await cluster.sqld.start()
  // Past where the cursor was, through a node that has asked for nothing since.
  for (let i = 0; i < ANEW; i++) await save(through[i % 2] as Client, `anew ${i}`, 'x')
  for (const stream of streams) assert.equal(await stream.next(), undefined)
  for (const self of through) {
    const ask = (query: string) => self.request(`/changes?${query}`)
    await eventually(async () => (await ask('limit=1')).status, 200)
    await expectProblem(await ask(`since=${late}`), 'FEED01', 410)
    const again = await openStream(self, { headers: { 'Last-Event-ID': late } })
    assert.equal((await again.next())?.type, 'reset')
    assert.equal((await readAll(self, early, 1000)).changes.length, ANEW)
    // What was superseded, and is not any more.
    const found = Buffer.from(await (await self.get('large')).arrayBuffer())
    assert.equal(hash('sha256', found), hash('sha256', value))
  }
}

/** Writes it, though the database is just being restarted: until it is there. */
async function save(
  self: Client,
  key: string,
  value: string | Uint8Array,
  headers: Record<string, string> = {},
): Promise<void> {
  await eventually(async () => {
    const { status, headers: answered } = await self.put(key, value, headers)
    const digest = answered.get('repr-digest')
    return status < 300 || digest === `sha-256=:${hash('sha256', value, 'base64')}:`
  }, true)
}
