import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from './helpers/eventually.ts'
import { install, type Ran } from './helpers/executable.ts'
import { expectStatus } from './helpers/expect.ts'
import { holdBack } from './helpers/held.ts'
import { remoteClient, signUp } from './helpers/remote.ts'
import { openWire, type Wire } from './helpers/wire.ts'
import { smoke } from './smoke.ts'

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

/** Refused in one line of words on stderr, with nothing on stdout. */
function expectRefusal({ code, stdout, stderr }: Ran, expected: { code: number; says: RegExp }) {
  assert.equal(code, expected.code, stderr)
  assert.equal(stdout, '')
  assert.match(stderr, /^sync-node[^\n]*\n$/)
  assert.match(stderr, expected.says)
  assert.doesNotMatch(stderr, /\bat .*:\d+:\d+|node:internal/)
}

describe('The executable', { concurrency: 2 }, () => {
  it('does all that a sync server has to, and logs nothing private', async (t) => {
    const { log, privates } = await smoke(t)
    for (const text of privates) assert.ok(!log.includes(text), `the log has ${text}`)
    for (const line of log.split('\n').filter((one) => one.startsWith('{'))) JSON.parse(line)
  })

  it('holds no more headers than fit, of those who begin requests by the hundred', async (t) => {
    const { url } = await install(t).serve()
    const port = Number(new URL(url).port)
    const wires = await Promise.all(Array.from({ length: 400 }, () => openWire(t, port)))
    const headers = `X-Long: ${'x'.repeat(8000)}\r\n`.repeat(15)
    for (const wire of wires) wire.send(`GET /info HTTP/1.1\r\nHost: x\r\n${headers}X-More: `)
    const isOpen = ({ socket }: Wire): boolean => !socket.destroyed && !socket.readableEnded
    await eventually(() => wires.filter(isOpen).length <= 300, true)
    await expectStatus(await fetch(`${url}/health`), 200)
    // Who is left has sent nothing in vain.
    const left = wires.find(isOpen)
    left?.send('x\r\n\r\n')
    assert.equal((await left?.answer())?.status, 200)
  })

  it('starts in an empty folder: makes STATIC_ROOT for its owner alone, says where it listens', async (t) => {
    const here = install(t)
    const server = await here.serve()
    await expectStatus(await fetch(`${server.url}/health`), 200)
    const { stdout, stderr } = server.output()
    assert.match(stdout, /listens on http:\/\/localhost:\d+"/)
    assert.ok(stdout.includes(`data: ${here.root}`))
    assert.equal(stderr, '')
    assert.deepEqual(readdirSync(here.folder), ['data'])
    assert.equal(modeOf(here.root), '700')
    for (const name of ['secret', 'lock', 'sync-node.db', 'sync-node.db-wal']) {
      assert.equal(modeOf(join(here.root, name)), '600', name)
    }
    for (const name of ['blobs', 'trash']) assert.equal(modeOf(join(here.root, name)), '700')
  })

  it('has its pages within itself, and metrics where it is told to', async (t) => {
    const server = await install(t).serve({ METRICS_PORT: '0' })
    for (const [path, has] of [
      ['/', '<script type="module" src="/page.js">'],
      ['/page.js', 'sessionStorage'],
      ['/page.css', '--ground'],
      ['/docs', '<b>GET</b> <code>/store/{key}</code>'],
    ] as const) {
      const answer = await expectStatus(await fetch(`${server.url}${path}`), 200)
      assert.ok((await answer.text()).includes(has), path)
    }
    const [, metrics = ''] = /metrics: (http:\S+\/metrics)/.exec(server.output().stdout) ?? []
    const text = await (await expectStatus(await fetch(metrics), 200)).text()
    assert.match(
      text,
      /^sync_node_http_requests_total\{method="GET",route="\/page.css",status="200"\} 1$/m,
    )
    assert.match(text, /^process_resident_memory_bytes \d+/m)
  })

  it('says what it is and what it takes', async (t) => {
    const here = install(t)
    for (const args of [['version'], ['--version']]) {
      const { code, stdout, stderr } = await here.run(args)
      assert.deepEqual([code, stderr], [0, ''])
      assert.match(stdout, /^\d+\.\d+\.\d+\S*\n$/)
    }
    for (const args of [['--help'], ['help'], ['-h']]) {
      const { code, stdout, stderr } = await here.run(args)
      assert.deepEqual([code, stderr], [0, ''])
      for (const name of ['serve', 'account add', 'invite', 'reset', 'version']) {
        assert.ok(stdout.includes(`\n  ${name} `), name)
      }
    }
    assert.deepEqual(readdirSync(here.folder), [])
  })

  it('refuses what is no command with exit code 2 and one line', async (t) => {
    const here = install(t)
    const wrong = [
      ['frobnicate'],
      ['account'],
      ['account', 'frobnicate'],
      ['account', 'add'],
      ['account', 'add', 'a', 'b'],
      ['invite', 'a'],
      ['reset'],
      ['reset', '--now'],
      ['serve', 'here'],
      ['--port=80'],
    ]
    for (const args of wrong) expectRefusal(await here.run(args), { code: 2, says: /--help/ })
    assert.deepEqual(readdirSync(here.folder), [])
  })

  const SETTINGS: [string, string][] = [
    ['PORT', 'eighty'],
    ['PORT', '65536'],
    ['METRICS_PORT', '65537'],
    ['HOST', 'not a host'],
    ['REGISTRATION', 'maybe'],
    ['QUOTA', 'much'],
    ['MAX_VALUE_SIZE', '-1'],
    ['PUBLIC_URL', 'no-address'],
    ['TRUSTED_PROXIES', '10.0.0.0/33'],
    ['SECRET_KEY', 'short'],
    ['LOG_LEVEL', 'loud'],
    ['SMTP_URL', 'mail.example.org'],
    ['MAIL_FROM', 'nobody'],
    ['DATABASE_URL', 'mysql://localhost'],
    ['SECRET_KEY_FILE', '/nowhere/at/all'],
  ]
  it('refuses a wrong setting with exit code 1 and one line that names it', async (t) => {
    const here = install(t)
    for (const [name, value] of SETTINGS) {
      const ran = await here.run(['serve'], { [name]: value })
      expectRefusal(ran, { code: 1, says: new RegExp(`\\b${name}\\b`) })
      assert.ok(!ran.stderr.includes(value), `${name} is repeated: it may be a secret`)
    }
    assert.deepEqual(readdirSync(here.folder), [])
  })

  it('refuses a STATIC_ROOT that is a file in one line that names it', async (t) => {
    const here = install(t)
    writeFileSync(join(here.folder, 'file'), '')
    for (const root of ['file', 'file/within']) {
      const ran = await here.run(['serve'], { STATIC_ROOT: join(here.folder, root) })
      expectRefusal(ran, { code: 1, says: /STATIC_ROOT|\/file/ })
    }
  })

  it('ends with one line when its port is in use', async (t) => {
    const here = install(t)
    const { url } = await here.serve()
    const ran = await here.run(['serve'], { PORT: new URL(url).port, STATIC_ROOT: './other' })
    expectRefusal(ran, { code: 1, says: /PORT|EADDRINUSE/ })
  })

  it('refuses to be the second server on its data, even after the first was killed', async (t) => {
    const here = install(t)
    const first = await here.serve()
    expectRefusal(await here.run(['serve']), { code: 1, says: /in use/ })
    await expectStatus(await fetch(`${first.url}/health`), 200)
    await first.stop('SIGKILL')
    const second = await here.serve()
    expectRefusal(await here.run(['serve']), { code: 1, says: /in use/ })
    await expectStatus(await fetch(`${second.url}/health`), 200)
  })

  it('does not let NODE_OPTIONS, or what else Node reads, change it', async (t) => {
    const here = install(t)
    const evil = join(here.folder, 'evil.cjs')
    writeFileSync(evil, `require('node:fs').writeFileSync(${JSON.stringify(`${evil}.ran`)}, '')`)
    const environment = { NODE_OPTIONS: `--require=${evil} --max-http-header-size=1024` }
    const { url } = await here.serve(environment)
    const headers = { 'X-Padding': 'x'.repeat(10_000) }
    await expectStatus(await fetch(`${url}/info`, { headers }), 200)
    await signUp(url, { id: 'ana' }) // the writer's thread too
    assert.equal((await here.run(['invite'], environment)).code, 0)
    assert.equal((await here.run(['version'], { NODE_OPTIONS: '--no-such-flag' })).code, 0)
    assert.ok(!existsSync(`${evil}.ran`))
  })

  it('takes a header of 100 KB, and the longest key in the longest letters', async (t) => {
    const { url } = await install(t).serve()
    const headers = { 'X-Padding': 'x'.repeat(100 * 1024) }
    await expectStatus(await fetch(`${url}/info`, { headers }), 200)
    const ana = remoteClient(url, await signUp(url, { id: 'ana' }))
    const key = '鍵'.repeat(8000)
    await ana.save(key, 'value', { 'X-Sync-Meta': 'm'.repeat(8000) })
    assert.equal(await (await ana.get(key)).text(), 'value')
  })

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`ends with 0 by ${signal}, after the request that is running`, async (t) => {
      const here = install(t)
      const server = await here.serve()
      const opened = await signUp(server.url, { id: 'ana' })
      const ana = remoteClient(server.url, opened)
      const upload = await holdBack(server.url, ana, { key: 'slow', value: 'v'.repeat(100_000) })
      server.signal(signal)
      await refusesConnections(server.url)
      assert.equal((await upload.finish()).status, 201)
      assert.deepEqual(await server.ended, { code: 0, signal: null })
      const again = await here.serve()
      const read = await remoteClient(again.url, opened).get('slow')
      assert.equal((await read.text()).length, 100_000)
    })
  }

  it('ends without a request that never ends', async (t) => {
    const server = await install(t).serve()
    const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
    await holdBack(server.url, ana, { key: 'endless', value: 'v'.repeat(100_000) })
    assert.deepEqual(await server.stop('SIGTERM'), { code: 0, signal: null })
  })
})

/** Resolves when the server takes no new connection any more. */
async function refusesConnections(url: string): Promise<void> {
  for (let tries = 0; tries < 3000; tries++) {
    const isRefused = await fetch(`${url}/info`, { headers: { Connection: 'close' } }).then(
      async (response) => {
        await response.arrayBuffer()
        return false
      },
      () => true,
    )
    if (isRefused) return
    await pause(20)
  }
  assert.fail('the server still takes connections')
}
