// Owns the proof that behind nginx, Caddy and Apache, set up by the README's own lines, compressing what
// they can and buffering as they do by default, people get what the protocol promises.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, it, type TestContext } from 'node:test'
import { buildClient } from '../scripts/client.ts'
import { buildPage } from '../scripts/web.ts'
import { connect, type FeedEvent } from '../src/client/client.ts'
import type { Environment } from '../src/config.ts'
import { openAccount } from './helpers/accounts.ts'
import { openBrowser, openPage, skip as withoutBrowser } from './helpers/browser.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { openStream, readPage } from './helpers/feed.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { PROXY_NAMES, skipOf, startProxy, type Proxy, type ProxyName } from './helpers/proxy.ts'
import { remoteClient } from './helpers/remote.ts'

const MIB = 1024 * 1024

interface Site {
  node: TestNode
  proxy: Proxy
  /** A new account, past the proxy. */
  direct: Client
  /** The same, through it. */
  ana: Client
}

async function open(t: TestContext, name: ProxyName, environment?: Environment): Promise<Site> {
  const node = await startNode(t, environment)
  const proxy = await startProxy(t, name, node)
  const direct = await openAccount(node, 'ana')
  return { node, proxy, direct, ana: remoteClient(proxy.url, direct) }
}

const reprDigest = (bytes: Uint8Array): string =>
  `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

const bytesOf = async (response: Response): Promise<Buffer> =>
  Buffer.from(await response.arrayBuffer())

const encodingOf = ({ headers }: Response) => headers.get('content-encoding')
const etagOf = ({ headers }: Response): string => headers.get('etag') as string
const tokenOf = ({ headers }: Response): string => headers.get('x-sync-token') as string

/** What comes, up to the word or to where it breaks off. */
async function readUntil({ body }: Response, word: string): Promise<string> {
  const decoder = new TextDecoder()
  let told = ''
  try {
    for await (const chunk of body as ReadableStream<Uint8Array>) {
      told += decoder.decode(chunk, { stream: true })
      if (told.includes(word)) break
    }
  } catch {
    // The word is missing.
  }
  return told
}

interface Sent {
  status: number
  /** Of a problem. */
  code: string | undefined
  key: string | undefined
}

/** A request as fetch would not send it: its target goes out as it stands, from any address. */
function send(
  { isSecure = false, ...options }: RequestOptions & { isSecure?: boolean },
  body: string,
): Promise<Sent> {
  const ask = isSecure ? httpsRequest : httpRequest
  return new Promise((resolve, reject) => {
    const request = ask({ host: '127.0.0.1', agent: false, ...options })
    request.once('error', reject)
    request.once('response', (incoming) => {
      const { statusCode: status = 0, headers } = incoming
      const isProblem = headers['content-type'] === 'application/problem+json'
      text(incoming).then((answer) => {
        const { code } = isProblem ? (JSON.parse(answer) as { code: string }) : {}
        resolve({ status, code, key: headers['x-sync-key'] as string | undefined })
      }, reject)
    })
    request.end(body)
  })
}

// As they stand in the target of a request.
const KEYS = [
  ...`a a/b a%2Fb a%2fc %61 a%20b a+b a%2Bb %C3%A9 %c3%a8 a%5Cb a%25 a%2525 a%252Fb a%3Fb a%23b a;b
  a%3Bb a%26b a=b a:b a@b a'b a(b) a*b a,b a!b a$b a%22b a%3Cb%3E a%7Cb a[b] a%5Bb%5D a~b %7Eb a. ...
  a..b .htaccess a.gz a.html index.html http:a a%7F a%E2%80%AE %F0%9F%98%80`.split(/\s+/),
  'x'.repeat(7000),
]
const REFUSED_KEYS = `a//b a%2F%2Fb /a a/ a%2F ./a a/./b a/.. a/../b a%2F..%2Fb %2e%2e/b a/%2E %00
  a%0Ab a% a%2 a%zz %FF %C0%AF %ED%A0%80`.split(/\s+/)

// To the server a proxy on the loopback is its own; this machine's other address is another machine.
const ownAddress = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address
const withoutAddress = ownAddress === undefined && 'this machine has no address but the loopback'
if (withoutAddress !== false)
  process.stderr.write(`NOT TESTED, addresses behind proxies: ${withoutAddress}\n`)

/** The status of an attempt to register that is counted, and costs no hash. */
async function attempt(options: RequestOptions & { isSecure?: boolean }): Promise<number> {
  const body = JSON.stringify({ id: 'bob', password: 'short' })
  return (await send({ ...options, method: 'POST', path: '/account' }, body)).status
}

const TRIED = 422
const LIMITED = 429
const from = (...addresses: string[]) => ({ 'X-Forwarded-For': addresses.join(', ') })

describe('Behind a reverse proxy', { concurrency: 2 }, () => {
  it('held polls and silent streams last', async (t) => {
    const node = await startNode(t)
    const direct = await openAccount(node, 'ana')
    const { key, token } = await direct.save('a', 'x')
    const since = `?since=${(await readPage(direct)).cursor}`
    const names = PROXY_NAMES.filter((name) => skipOf(name) === false)
    const streams = await Promise.all(
      names.map(async (name) => {
        const ana = remoteClient((await startProxy(t, name, node)).url, direct)
        const headers = { Accept: 'text/event-stream' }
        const told = readUntil(await ana.request(`/changes${since}`, { headers }), key)
        // Longer than a minute, which is the patience of nginx.
        for (const wait of [50, 20]) {
          assert.deepEqual((await readPage(ana, `${since}&wait=${wait}`)).changes, [], name)
        }
        return { name, told }
      }),
    )
    await direct.save('a', 'y', { 'X-Sync-Token': token })
    for (const { name, told } of streams) {
      const comments = (await told).split(':\n\n').length - 1
      assert.ok((await told).includes(key) && comments >= 3, `${name} after ${comments} comments`)
    }
  })

  it('the server is not the first to close a connection that is kept', async (t) => {
    const node = await startNode(t)
    const { headers } = await node.request('/info')
    const seconds = Number(/timeout=(\d+)/.exec(headers.get('keep-alive') ?? '')?.[1])
    assert.ok(seconds > 120, `${seconds}, where Caddy keeps it for 120`)
  })

  for (const name of PROXY_NAMES) {
    // Debian's Caddy compresses text and JSON, the others what they are told to.
    const compressesValues = name !== 'caddy'

    describe(name, { skip: skipOf(name), concurrency: 1 }, () => {
      it('values go through whole, both ways', async (t) => {
        const { ana } = await open(t, name)
        const values = {
          empty: Buffer.alloc(0),
          small: Buffer.from('small'),
          compressible: Buffer.alloc(5000, 'compressible '),
          large: randomBytes(20 * MIB),
        }
        for (const [key, value] of Object.entries(values)) {
          const digest = reprDigest(value)
          const put = ana.put(key, value, { 'Repr-Digest': digest })
          await assert.doesNotReject(put)
          await expectStatus(await put, 201)
          const got = await expectStatus(await ana.get(key), 200)
          assert.equal(got.headers.get('repr-digest'), digest)
          if (key === 'compressible')
            assert.equal(encodingOf(got), compressesValues ? 'gzip' : null)
          assert.ok(value.equals(await bytesOf(got)), key)
        }
        const listed = await ana.request('/store')
        assert.equal(encodingOf(listed), 'gzip')
        assert.equal(((await listed.json()) as unknown[]).length, 4)
      })

      it('a conflict is told from none, by whatever ETag came through', async (t) => {
        const { ana } = await open(t, name)
        const value = 'compressible '.repeat(1000)
        const { token } = await ana.save('a', value)
        const got = await ana.get('a')
        const etag = etagOf(got)
        assert.equal(tokenOf(got), token)
        assert.equal(etag === `"${token}"`, !compressesValues)
        await expectStatus(await ana.get('a', { 'If-None-Match': etag }), 304)
        const put = await expectStatus(await ana.put('a', value, { 'If-Match': etag }), 204)
        const current = tokenOf(put)
        await expectStatus(await ana.get('a', { 'If-None-Match': etag }), 200)
        for (const stale of [{ 'If-Match': etag }, { 'X-Sync-Token': token }]) {
          const refused = await ana.put('a', 'other', stale)
          assert.equal(tokenOf(refused), current)
          assert.equal(refused.headers.get('repr-digest'), reprDigest(Buffer.from(value)))
          await expectProblem(refused, 'KEY01', 412)
        }
        await expectProblem(await ana.put('a', 'other'), 'KEY01', 428)
        await expectProblem(await ana.put('a', 'other', { 'If-None-Match': '*' }), 'KEY01', 412)
        await expectProblem(await ana.delete('a', token), 'KEY01', 412)
        await expectStatus(await ana.delete('a', etagOf(await ana.get('a'))), 204)
      })

      it('a conflict is told, and is no failure of the proxy, of a large value too', async (t) => {
        const { ana } = await open(t, name)
        const { token } = await ana.save('a', 'x')
        for (const size of [5, 5, 5, 5, 5, 5, 5, 5, 70]) {
          const put = ana.put('a', Buffer.alloc(size * MIB), { 'X-Sync-Token': 'old' })
          await assert.doesNotReject(put)
          const refused = await put
          assert.equal(refused.status, 412)
          assert.equal(tokenOf(refused), token)
          await expectProblem(refused, 'KEY01')
        }
      })

      it('a download goes on where it broke off', async (t) => {
        const { ana } = await open(t, name)
        const value = Buffer.from(randomBytes(50_000).toString('hex'))
        const { token } = await ana.save('a', value)
        const etag = etagOf(await ana.get('a'))
        const rest = { Range: 'bytes=40000-' }
        for (const headers of [rest, { ...rest, 'If-Range': `"${token}"` }]) {
          const part = await expectStatus(await ana.get('a', headers), 206)
          assert.equal(part.headers.get('content-range'), 'bytes 40000-99999/100000')
          assert.ok(value.subarray(40_000).equals(await bytesOf(part)))
        }
        // The tag of what was compressed names none of these bytes: then all come.
        const got = await ana.get('a', { ...rest, 'If-Range': etag })
        assert.equal(got.status, compressesValues ? 200 : 206)
        assert.ok(value.subarray(compressesValues ? 0 : 40_000).equals(await bytesOf(got)))
        await expectProblem(await ana.get('a', { Range: 'bytes=100000-' }), 'REQ01', 416)
      })

      it('a damaged value does not come whole', async (t) => {
        const { node, ana } = await open(t, name)
        const value = Buffer.from(randomBytes(500_000).toString('hex'))
        await ana.save('a', value)
        const [file = ''] = readdirSync(join(node.root, 'blobs'))
        writeFileSync(join(node.root, 'blobs', file), value.fill('x', 0, 1))
        await assert.rejects(bytesOf(await expectStatus(await ana.get('a'), 200)))
        await expectProblem(await ana.get('a'), 'ERR02', 500)
      })

      it('events come while the stream is open, and go on where they were', async (t) => {
        const { ana, direct } = await open(t, name)
        const stream = await openStream(ana)
        let id = ''
        for (const key of ['one', 'two', 'three']) {
          const saved = await direct.save(key, 'x')
          const event = await stream.next()
          assert.equal(event?.change.key, saved.key)
          ;({ id } = event)
        }
        await stream.close()
        const later = await ana.save('later', 'x')
        const again = await openStream(ana, { headers: { 'Last-Event-ID': id } })
        assert.equal((await again.next())?.change.key, later.key)
        await expectStatus(await ana.request('/auth', { method: 'DELETE' }), 204)
        assert.equal(await again.next(), undefined, 'it ends with its session')
        await again.close()
      })

      it('the client follows changes live, and beyond a restart of the server', async (t) => {
        const { node, proxy, ana } = await open(t, name)
        const client = connect({ url: proxy.url, token: ana.token, retry: { baseMs: 1 } })
        let hasBeenOffline = false
        const abort = new AbortController()
        t.after(() => abort.abort())
        const onOffline = (): void => void (hasBeenOffline = true)
        const live = client.changes({ live: true, onOffline, signal: abort.signal })
        const feed = live[Symbol.asyncIterator]()
        const told = async (): Promise<string | undefined> => {
          const { value } = (await feed.next()) as { value?: FeedEvent }
          if (value?.type !== 'change') return value?.type
          return 'deleted' in value.change ? 'deleted' : value.change.name
        }
        assert.equal(await told(), 'live')
        await client.store('before').put('x')
        assert.equal(await told(), 'before')
        await node.restart({ PORT: String(node.port) })
        await client.store('after').put('x')
        assert.deepEqual(
          [await told(), await told()].filter((word) => word !== 'live'),
          ['after'],
        )
        assert.equal(hasBeenOffline, true)
      })

      it('keys arrive as they were sent', async (t) => {
        const { node, proxy, direct, ana } = await open(t, name)
        const headers = { ...ana.headers, 'X-Sync-Token': '*' }
        const put = (target: string, where: { port: number; isSecure: boolean }) =>
          send({ ...where, method: 'PUT', path: `/store/${target}`, headers }, 'x')
        const past = { port: node.port, isSecure: false }
        const through = { port: proxy.port, isSecure: true }
        for (const target of KEYS) {
          await direct.request(`/store/${target}`, { method: 'PUT', body: 'x' })
          const expected = await put(target, past)
          assert.equal(expected.status, 204, target)
          assert.deepEqual(await put(target, through), expected, target)
        }
        const before = await ana.list()
        for (const target of REFUSED_KEYS) {
          assert.equal((await put(target, past)).code, 'REQ01', target)
          // Some are refused by the proxy, in words of its own.
          const { status } = await put(target, through)
          assert.ok(status === 400 || status === 404, `${target} is ${status}`)
        }
        assert.equal((await ana.list()).length, before.length)
      })

      it('meta of 8000 characters goes both ways', async (t) => {
        const { ana } = await open(t, name)
        const meta = 'm'.repeat(8000)
        await expectStatus(await ana.put('a', 'x', { 'X-Sync-Meta': meta }), 201)
        for (const answer of [
          await expectStatus(await ana.get('a'), 200),
          await expectStatus(await ana.head('a'), 200),
          await expectStatus(await ana.put('a', 'y', { 'X-Sync-Token': 'old' }), 412),
        ]) {
          assert.equal(answer.headers.get('x-sync-meta'), meta)
        }
        assert.equal((await readPage(ana)).changes[0]?.meta, meta)
      })

      it('a server that was away is there again at once', async (t) => {
        const { node, ana } = await open(t, name)
        await ana.save('a', 'x')
        await node.stop()
        for (let i = 0; i < 3; i++) assert.ok([502, 503].includes((await ana.get('a')).status))
        await node.restart({ PORT: String(node.port) })
        await expectStatus(await ana.get('a'), 200)
        await expectStatus(await ana.put('b', 'x'), 201)
      })

      it('hundreds of requests in a row are all answered', async (t) => {
        const { ana } = await open(t, name)
        const work = async (key: string): Promise<void> => {
          let { token } = await ana.save(key, '')
          for (let i = 0; i < 50; i++) {
            const put = await ana.put(key, `value ${i}`, { 'X-Sync-Token': token })
            token = tokenOf(await expectStatus(put, 204))
            const got = await expectStatus(await ana.get(key), 200)
            assert.equal(await got.text(), `value ${i}`)
          }
        }
        await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map(work))
      })

      it('refusals are those of the server', async (t) => {
        const { proxy, ana } = await open(t, name, { MAX_VALUE_SIZE: '2M' })
        await expectStatus(await ana.put('a', Buffer.alloc(2 * MIB)), 201)
        const large = await ana.put('b', Buffer.alloc(3 * MIB))
        assert.equal(large.headers.get('access-control-allow-origin'), '*')
        await expectProblem(large, 'SIZE01', 413)
        await expectProblem(await ana.get('none'), 'ERR01', 404)
        const store = `${proxy.url}/store/a`
        await expectProblem(await fetch(store), 'AUTH01', 401)
        await expectProblem(await fetch(store, { method: 'PATCH' }), 'ERR03', 405)
        const asked = { Origin: 'https://app.example', 'Access-Control-Request-Method': 'PUT' }
        const preflight = await fetch(store, { method: 'OPTIONS', headers: asked })
        assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /X-Sync-Token/)
      })

      it(
        'clients are told apart by address, whatever they say',
        { skip: withoutAddress },
        async (t) => {
          const { node, proxy } = await open(t, name)
          const through = { port: proxy.port, isSecure: true, localAddress: ownAddress as string }
          for (let i = 0; i < 20; i++) {
            assert.equal(await attempt({ ...through, headers: from(`198.51.100.${i}`) }), TRIED)
          }
          for (const headers of [{}, from('198.51.100.20'), from('198.51.100.20', '127.0.0.1')]) {
            assert.equal(await attempt({ ...through, headers }), LIMITED)
          }
          const { port } = node
          assert.equal(await attempt({ port, headers: from(ownAddress as string) }), LIMITED)
          assert.equal(await attempt({ port, headers: from('198.51.100.20') }), TRIED)
        },
      )

      it(
        'one on another machine is taken at its word when trusted',
        { skip: withoutAddress },
        async (t) => {
          const host = ownAddress as string
          for (const isTrusted of [true, false]) {
            const environment = { HOST: host, ...(isTrusted && { TRUSTED_PROXIES: host }) }
            const node = await startNode(t, environment)
            const { port } = await startProxy(t, name, { host, port: node.port })
            for (let i = 0; i < 20; i++)
              assert.equal(await attempt({ port, isSecure: true }), TRIED)
            const attemptAs = (address: string) =>
              attempt({ host, port: node.port, headers: from(address) })
            assert.equal(await attemptAs('127.0.0.1'), LIMITED)
            assert.equal(await attemptAs('198.51.100.1'), isTrusted ? TRIED : LIMITED)
          }
        },
      )
    })
  }

  it(
    'a page in a browser follows changes live',
    { skip: skipOf('nginx') || withoutBrowser },
    async (t) => {
      await Promise.all([buildPage(), buildClient({ isQuiet: true })])
      const { proxy, ana, direct } = await open(t, 'nginx')
      const context = await openBrowser(t, { ignoreHTTPSErrors: true })
      const page = await openPage(t, context, proxy.url)
      const begin = `(async () => {
      const { connect } = await import('/client.js')
      const client = connect({ url: location.origin, token: '${ana.token}' })
      const feed = client.changes({ live: true })
      globalThis.told = async () => {
        const { value } = await feed.next()
        return value.change?.key ?? value.type
      }
      return told()
    })()`
      assert.equal(await page.evaluate(begin), 'live')
      for (const key of ['one', 'two']) {
        const saved = await direct.save(key, 'x')
        assert.equal(await page.evaluate('told()'), saved.key)
      }
    },
  )
})
