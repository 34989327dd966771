import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { networkInterfaces } from 'node:os'
import { connect, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { readConfig } from '../src/config.ts'
import { routes } from '../src/http/app.ts'
import { openLog } from '../src/log.ts'
import { StartError } from '../src/errors.ts'
import { start } from '../src/node.ts'
import { expectStatus } from './helpers/expect.ts'
import { openStream } from './helpers/feed.ts'
import { PASSWORD, startNode, temporaryFolder, type TestNode } from './helpers/node.ts'

const SCRAPED = { METRICS_PORT: '0' }

async function scrape(node: TestNode): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${node.running.metricsPort}/metrics`)
  await expectStatus(response, 200)
  assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  assert.equal(response.headers.get('access-control-allow-origin'), null)
  return response.text()
}

/** The value of a series, written as Prometheus would ask for it; undefined without one. */
function valueOf(text: string, series: string): number | undefined {
  const line = text.split('\n').find((one) => one.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1))
}

/** Scrapes until `series` has `value`: an answer is counted a moment after it was read. */
async function scrapeUntil(node: TestNode, series: string, value: number): Promise<string> {
  for (let tries = 0; tries < 1000; tries++) {
    const text = await scrape(node)
    if (valueOf(text, series) === value) return text
  }
  return assert.fail(`${series} is ${valueOf(await scrape(node), series)}, not ${value}`)
}

describe('The metrics', () => {
  it('count requests by the pattern of their route and by status', async (t) => {
    const node = await startNode(t, SCRAPED)
    const ana = await node.signUp('ana')
    await ana.save('a', 'value')
    await ana.get('a')
    await ana.get('secret/name')
    await node.request('/nothing/here')
    await node.request('/account', { method: 'PATCH' })
    const requests = (labels: string) => `sync_node_http_requests_total{${labels}}`
    const text = await scrapeUntil(node, requests('method="other",route="none",status="405"'), 1)
    const count = (labels: string) => valueOf(text, requests(labels))
    assert.equal(count('method="PUT",route="/store/{key}",status="201"'), 1)
    assert.equal(count('method="GET",route="/store/{key}",status="200"'), 1)
    assert.equal(count('method="GET",route="/store/{key}",status="404"'), 1)
    assert.equal(count('method="GET",route="none",status="404"'), 1)
    const answered = 'sync_node_http_request_duration_seconds_count'
    assert.equal(valueOf(text, `${answered}{method="GET",route="/store/{key}"}`), 2)
  })

  it('tell of commits, and of what is stored', async (t) => {
    const node = await startNode(t, SCRAPED)
    const ana = await node.signUp('ana')
    const before = await scrape(node)
    const small = await ana.save('small', 'x'.repeat(100))
    const large = await ana.save('large', 'x'.repeat(50_000))
    await ana.save('small', 'x'.repeat(150), { 'X-Sync-Token': small.token })
    let text = await scrape(node)
    const more = (name: string) => Number(valueOf(text, name)) - Number(valueOf(before, name))
    assert.equal(more('sync_node_commit_duration_seconds_count'), 3)
    assert.equal(more('sync_node_commit_writes_sum'), 3)
    assert.ok(more('sync_node_commit_duration_seconds_sum') > 0)
    assert.equal(valueOf(text, 'sync_node_stores'), 2)
    assert.equal(valueOf(text, 'sync_node_stored_bytes'), 50_150)
    assert.equal(valueOf(text, 'sync_node_garbage_files'), 0)
    assert.ok(Number(valueOf(text, 'sync_node_free_disk_bytes')) > 0)
    await expectStatus(await ana.delete('large', large.token), 204)
    text = await scrape(node)
    assert.equal(valueOf(text, 'sync_node_stores'), 1)
    assert.equal(valueOf(text, 'sync_node_stored_bytes'), 150)
    assert.equal(valueOf(text, 'sync_node_garbage_files'), 1)
    await node.running.housekeep()
    node.advance(6 * 60_000)
    for (let round = 0; round < 2; round++) await node.running.housekeep()
    text = await scrape(node)
    assert.equal(valueOf(text, 'sync_node_garbage_files'), 0)
    assert.ok(Number(valueOf(text, 'sync_node_wal_bytes')) > 0)
  })

  it('keep their sums over a restart, and over the deletion of an account', async (t) => {
    const node = await startNode(t, SCRAPED)
    const ana = await node.signUp('ana')
    const ben = await node.signUp('ben')
    for (const name of ['a', 'b', 'c']) await ana.save(name, 'x'.repeat(20_000))
    await ben.save('a', 'ben')
    await node.restart()
    assert.equal(valueOf(await scrape(node), 'sync_node_stored_bytes'), 60_003)
    await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
    await node.running.housekeep()
    const text = await scrape(node)
    assert.equal(valueOf(text, 'sync_node_stores'), 1)
    assert.equal(valueOf(text, 'sync_node_stored_bytes'), 3)
    assert.equal(valueOf(text, 'sync_node_garbage_files'), 3)
  })

  it('tell of event streams and held polls while they are open', async (t) => {
    const node = await startNode(t, SCRAPED)
    const ana = await node.signUp('ana')
    const stream = await openStream(ana)
    const page = await (await ana.request('/changes')).json()
    const { cursor } = page as { cursor: string }
    const poll = ana.request(`/changes?since=${cursor}&wait=50`)
    const text = await scrapeUntil(node, 'sync_node_held_polls', 1)
    assert.equal(valueOf(text, 'sync_node_event_streams'), 1)
    await stream.close()
    await ana.save('a', 'value')
    await poll
    await scrapeUntil(node, 'sync_node_event_streams', 0)
    await scrapeUntil(node, 'sync_node_held_polls', 0)
    const label = 'sync_node_http_requests_total{method="GET",route="/changes",status="200"}'
    await scrapeUntil(node, label, 3)
  })

  it('have what dashboards look for: the process, its event loop', async (t) => {
    const text = await scrape(await startNode(t, SCRAPED))
    for (const name of [
      'process_cpu_seconds_total',
      'process_resident_memory_bytes',
      'process_open_fds',
      'process_start_time_seconds',
      'nodejs_eventloop_lag_p99_seconds',
    ]) {
      assert.ok(Number.isFinite(valueOf(text, name)), name)
    }
    assert.match(text, /^sync_node_info\{version="\d+\.\d+\.\d+[^"]*"\} 1$/m)
  })

  it('name what they count as OpenMetrics has it, and nothing of an account', async (t) => {
    const node = await startNode(t, SCRAPED)
    const ana = await node.signUp('ana@example.org')
    const { key } = await ana.save('diary/today', 'value')
    await ana.request('/account', { headers: { 'X-Forwarded-For': '203.0.113.7' } })
    const text = await scrape(node)
    for (const hidden of ['ana', ana.user, ana.token, 'diary', key, '203.0.113.7', PASSWORD]) {
      assert.ok(!text.includes(hidden), hidden)
    }
    const patterns = new Set([...routes.map(({ path }) => path), 'none'])
    for (const [, route = ''] of text.matchAll(/route="([^"]*)"/g)) assert.ok(patterns.has(route))
    const types = [...text.matchAll(/^# TYPE (sync_node_\w+) (\w+)$/gm)]
    assert.ok(types.length >= 10)
    for (const [, name = '', type] of types) {
      assert.equal(name.endsWith('_total'), type === 'counter', name)
    }
  })
})

describe('METRICS_PORT', () => {
  it('is off when it is not set', async (t) => {
    const node = await startNode(t)
    assert.equal(node.running.metricsPort, null)
    assert.equal((await node.request('/metrics')).status, 404)
  })

  it('takes a port, and nothing else', () => {
    assert.equal(readConfig({}).metricsPort, null)
    assert.equal(readConfig({ METRICS_PORT: '9464' }).metricsPort, 9464)
    for (const wrong of ['on', '65536', '-1', '127.0.0.1:9464']) {
      assert.throws(() => readConfig({ METRICS_PORT: wrong }), /^Error: METRICS_PORT is wrong: /)
    }
  })

  it('answers on this machine alone, /metrics alone, and by GET alone', async (t) => {
    const node = await startNode(t, { ...SCRAPED, HOST: '0.0.0.0' })
    const port = node.running.metricsPort as number
    const url = `http://127.0.0.1:${port}`
    assert.equal((await fetch(`${url}/`)).status, 404)
    assert.equal((await fetch(`${url}/metrics`, { method: 'POST' })).status, 405)
    assert.equal((await fetch(`${url}/metrics`, { method: 'OPTIONS' })).status, 405)
    const others = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .filter(({ family, internal }) => family === 'IPv4' && !internal)
    for (const { address } of [...others, { address: '127.0.0.2' }]) {
      const code = await new Promise((resolve) => {
        const socket = connect(port, address, () => resolve('connected'))
        socket.once('error', ({ code: reason }: NodeJS.ErrnoException) => resolve(reason))
        t.after(() => socket.destroy())
      })
      assert.equal(code, 'ECONNREFUSED', address)
    }
  })

  it('that is in use stops the start, and says so', async (t) => {
    const taken = createServer()
    await new Promise<void>((resolve) => {
      taken.listen(0, '127.0.0.1', resolve)
    })
    t.after(() => taken.close())
    const { port } = taken.address() as AddressInfo
    const root = join(temporaryFolder(t), 'data')
    const environment = { STATIC_ROOT: root, HOST: '127.0.0.1', PORT: '0' }
    const log = openLog({ logLevel: 'silent' })
    await assert.rejects(
      start(readConfig({ ...environment, METRICS_PORT: String(port) }), { log }),
      (error: Error) => error instanceof StartError && /^METRICS_PORT .*in use/.test(error.message),
    )
    const again = await start(readConfig(environment), { log })
    await again.stop()
  })
})
