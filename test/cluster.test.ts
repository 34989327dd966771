// Owns the proof that three nodes behind nginx, with one database server and one bucket, are to all clients
// one server, whatever fails in between. `make cluster` plays more of it.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { startAsOne } from './cluster/as-one.ts'
import { skip } from './cluster/cluster.ts'
import { problemsOf, run, toTable, type Options } from './cluster/run.ts'
import { openAccount } from './helpers/accounts.ts'
import { HOUR } from './helpers/ask.ts'
import { startBucket } from './helpers/bucket.ts'
import { startDatabaseProxy } from './helpers/database-proxy.ts'
import { eventually } from './helpers/eventually.ts'
import { FROM_SOURCE } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startLink } from './helpers/link.ts'
import { startNode } from './helpers/node.ts'
import { skipOf, startBalancer } from './helpers/proxy.ts'
import { remoteClient } from './helpers/remote.ts'
import { hasSqld, startSqld } from './helpers/sqld.ts'
import { startUpload } from './helpers/upload.ts'
import { expectModel } from './model/history.ts'

const { SEED = '1' } = process.env
const MUCH = 3
const PART = 8 * 1024 * 1024
const LATE_MS = 1000

describe('Three nodes behind nginx', { skip }, () => {
  it('are one server to all clients, by the executable', async (t) => {
    await expectOne(t, { operations: 1600, faults: 9 })
  })

  it('are one server to all clients, from source', async (t) => {
    await expectOne(t, { operations: 900, faults: 9, command: FROM_SOURCE })
  })
})

describe('nginx before several nodes', { skip: skipOf('nginx') }, () => {
  it('sends to no other what a node took and did not answer', async (t) => {
    const taken: string[] = []
    const nodes = await Promise.all(
      [0, 1, 2].map(async () => {
        const server = createServer((incoming) => {
          taken.push(incoming.method ?? '')
          incoming.socket.destroy()
        })
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
        t.after(() => server.close())
        return (server.address() as AddressInfo).port
      }),
    )
    const { url } = await startBalancer(t, nodes)
    for (const method of ['PUT', 'DELETE', 'POST']) {
      assert.equal((await fetch(`${url}/store/a`, { method })).status, 502)
    }
    assert.deepEqual(taken, ['PUT', 'DELETE', 'POST'])
  })
})

describe('Several people with several devices, each time through another node', { skip }, () => {
  it('get the answers of the model, and end with what it has', async (t) => {
    await expectModel(t, await startAsOne(t), 2)
  })
})

async function expectOne(t: TestContext, options: Omit<Options, 'seed'>): Promise<void> {
  const figures = await run(t, { ...options, seed: Number(SEED) })
  for (const line of toTable(figures).split('\n')) t.diagnostic(line)
  assert.deepEqual(problemsOf(figures).slice(0, MUCH), [], `SEED=${SEED}`)
  assert.ok(figures.operations > options.operations / 2, 'most of it is answered')
  assert.ok(figures.resumed > 0, 'streams were broken off')
}

describe('Two nodes with one bucket', { skip: !hasSqld }, () => {
  async function open(t: TestContext) {
    const sqld = await startSqld()
    t.after(() => sqld.remove())
    const [bucket, link] = [await startBucket(t), await startLink(t, sqld.port)]
    const proxy = await startDatabaseProxy(t, `http://127.0.0.1:${link.port}`)
    const here = await startNode(t, bucket.environment, { databaseUrl: proxy.url })
    const there = await startNode(t, bucket.environment, { databaseUrl: sqld.url })
    const ana = await openAccount(here, 'ana')
    return { bucket, link, proxy, here, there, ana, through: remoteClient(there.url, ana) }
  }

  it('keep a large value whose row may be there: the answer alone was lost', async (t) => {
    const { proxy, ana, through } = await open(t)
    const value = randomBytes(50_000)
    proxy.loseAnswer = (body) => body.includes('COMMIT')
    await expectProblem(await ana.put('a', value), 'ERR04', 503)
    const answer = await expectStatus(await through.get('a'), 200)
    assert.ok(value.equals(Buffer.from(await answer.arrayBuffer())))
    await expectProblem(await through.put('a', value), 'KEY01', 428)
  })

  it('leave alone what the other is just taking in, and what it has not yet named', async (t) => {
    const { bucket, link, here, there, ana, through } = await open(t)
    for (const node of [here, there]) node.advance(25 * HOUR) // a round of both is due
    const large = randomBytes(PART + 1)
    const slow = startUpload(here, ana, 'slow')
    slow.write(large.subarray(0, PART))
    await eventually(() => [...bucket.uploads.values()][0]?.parts.size, 1)
    // Its value is in the bucket while its row is on the way.
    link.delayMs = LATE_MS
    const small = randomBytes(50_000)
    const named = ana.put('named late', small)
    await eventually(() => bucket.values().length, 1)
    bucket.advance(20 * HOUR)
    await there.running.housekeep()
    assert.ok(bucket.calls.includes('GET uploads'), 'it has looked for what is left over')
    link.delayMs = 0
    await expectStatus(await named, 201)
    slow.write(large.subarray(PART))
    slow.end()
    assert.equal((await slow.answer).status, 201)
    for (const [key, value] of Object.entries({ slow: large, 'named late': small })) {
      const answer = await expectStatus(await through.get(key), 200)
      assert.ok(value.equals(Buffer.from(await answer.arrayBuffer())), key)
    }
  })

  it('tidy it one at a time, and what is superseded is removed once', async (t) => {
    const { bucket, here, there, ana } = await open(t)
    await ana.save('a', randomBytes(50_000))
    await ana.save('a', 'small', { 'X-Sync-Token': '*' })
    await here.running.housekeep()
    for (const node of [here, there]) node.advance(26 * HOUR)
    // The first writes down what time it is.
    await here.running.housekeep()
    const before = bucket.calls.length
    const round = () => Promise.all([here, there].map((node) => node.running.housekeep()))
    for (const node of [here, there]) node.advance(26 * HOUR)
    await round()
    await round()
    const calls = bucket.calls.slice(before)
    assert.equal(calls.filter((call) => call === 'GET uploads').length, 1)
    assert.equal(calls.filter((call) => call.startsWith('DELETE')).length, 1)
    assert.deepEqual(bucket.values(), [])
  })
})
