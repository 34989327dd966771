// Owns that doctor, sent through the public address, names each fault of the proxy with the lines that
// mend it, and leaves no account behind.
import assert from 'node:assert/strict'
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import type { Finding } from '../src/doctor/finding.ts'
import { EXECUTABLE, install, type Installation } from './helpers/executable.ts'
import { startProxy, type Faults } from './helpers/faulty-proxy.ts'
import { signUp } from './helpers/remote.ts'

/** Small enough that most runs are quick: only one is about large values. */
const SMALL = { MAX_VALUE_SIZE: '1M' }

async function startServer(t: TestContext, environment: Record<string, string> = SMALL) {
  const here = install(t)
  const { url } = await here.serve(environment)
  await signUp(url, { id: 'ana' })
  return { here, url, environment: { PORT: new URL(url).port } }
}

type Started = Awaited<ReturnType<typeof startServer>>

/** Only ana has an account, before and afterwards. */
async function expectNobodyElse(here: Installation): Promise<void> {
  const { stdout } = await here.run(['account', 'list', '--json'])
  assert.equal((JSON.parse(stdout) as unknown[]).length, 1)
}

/** What doctor finds at an address; the exit code must say the same, and no account is left. */
async function travel(
  { here, environment }: Started,
  address: string,
  more: Record<string, string> = {},
): Promise<Finding[]> {
  const ran = await here.run(['doctor', address, '--json'], { ...environment, ...more })
  const found = JSON.parse(ran.stdout) as Finding[]
  const isBad = found.some(({ level }) => level === 'problem')
  assert.equal(ran.code, isBad ? 1 : 0, ran.stderr)
  await expectNobodyElse(here)
  return found
}

/** All that is not as it should be; that the test's proxies speak plain http is known. */
const wrongIn = (found: Finding[]): Finding[] =>
  found.filter(
    ({ check, level, text }) =>
      level !== 'ok' && !(check === 'certificate' && text.startsWith('plain http')),
  )

interface Named {
  check: string
  level?: 'warning'
  text: RegExp
  /** What nginx, Caddy and Apache are told to write. */
  lines: [RegExp, RegExp, RegExp]
}

/** Faults that are found apart, though one proxy has them all. */
const CASES: { name: string; faults: Faults; named: Named[] }[] = [
  {
    name: 'that limits bodies, compresses, buffers, drops a header, adds CORS and hides its clients',
    faults: {
      mostBody: 1_000_000,
      gzip: 'marked',
      buffers: true,
      drops: ['repr-digest'],
      addsCors: true,
      forwards: 'nothing',
    },
    named: [
      {
        check: 'headers',
        text: /: Repr-Digest of requests$/,
        lines: [/proxy_set_header/, /header_up/, /RequestHeader/],
      },
      {
        check: 'versions',
        level: 'warning',
        text: /compressed on the way/,
        lines: [/gzip off;/, /encode/, /SetEnv no-gzip 1/],
      },
      {
        check: 'CORS',
        text: /Access-Control-Allow-Origin of .* is twice/,
        lines: [/take out add_header/, /take out header/, /take out Header/],
      },
      {
        check: 'events',
        text: /do not open: people see changes late/,
        lines: [/proxy_buffering off;/, /flush_interval -1/, /flushpackets=on/],
      },
      {
        check: 'bodies',
        text: /1\.0 MiB.*does not get through: the proxy answers 413/,
        lines: [/client_max_body_size 0;/, /request_body/, /LimitRequestBody 0/],
      },
      {
        check: 'clients',
        text: /cannot tell clients apart.*TRUSTED_PROXIES/,
        lines: [/\$proxy_add_x_forwarded_for;/, /header_up X-Forwarded-For/, /ProxyAddHeaders On/],
      },
    ],
  },
  {
    name: 'that makes its own ETags, rewrites paths, refuses much, cuts polls and believes clients',
    faults: {
      gzip: 'own',
      dropsOfAnswers: ['content-security-policy'],
      decodes: true,
      mostHeader: 4000,
      refuses: ['DELETE'],
      drops: ['range'],
      cutsPolls: true,
      forwards: 'what it was sent',
    },
    named: [
      {
        check: 'methods',
        text: /DELETE \(the proxy answers 403\)/,
        lines: [/limit_except/, /method/, /LimitExcept/],
      },
      {
        check: 'names',
        text: /a%252Fb 100%25$/,
        lines: [/proxy_pass http:\/\/127\.0\.0\.1:\d+;/, /rewrite/, /nocanon/],
      },
      {
        check: 'headers',
        text: /: Content-Security-Policy of answers$/,
        lines: [/proxy_hide_header/, /header_down/, /RequestHeader and Header/],
      },
      {
        check: 'meta',
        text: /8000 characters does not get through \(the proxy answers 431\)/,
        lines: [/large_client_header_buffers/, /max_header_size/, /LimitRequestFieldSize/],
      },
      {
        check: 'versions',
        text: /If-None-Match does not work/,
        lines: [/gzip off;/, /encode/, /SetEnv no-gzip 1/],
      },
      {
        check: 'ranges',
        text: /Range does not work \(200 in place of 206\)/,
        lines: [/proxy_cache off;/, /header_up -Range/, /CacheDisable/],
      },
      {
        check: 'polls',
        text: /is cut off \(the proxy answers 504\)/,
        lines: [/proxy_read_timeout/, /reverse_proxy/, /timeout=90/],
      },
      {
        check: 'clients',
        text: /can choose the address/,
        lines: [/\$proxy_add_x_forwarded_for;/, /header_up X-Forwarded-For/, /ProxyAddHeaders On/],
      },
    ],
  },
  {
    name: 'that takes out ETags',
    faults: { dropsOfAnswers: ['etag'] },
    named: [
      {
        check: 'versions',
        text: /ETag is taken out/,
        lines: [/proxy_hide_header/, /header_down/, /take out .*Header/],
      },
    ],
  },
  {
    name: 'that takes out logins',
    faults: { drops: ['authorization'] },
    named: [
      {
        check: 'session',
        text: /Authorization is lost/,
        lines: [/proxy_set_header Authorization/, /basic_auth/, /AuthType/],
      },
    ],
  },
]

function expectNamed(finding: Finding, { check, level, text, lines }: Named): void {
  assert.deepEqual([finding.check, finding.level], [check, level ?? 'problem'])
  assert.match(finding.text, text)
  for (const [i, proxy] of ['nginx', 'Caddy', 'Apache'].entries()) {
    const own = (finding.items ?? []).filter((line) => line.startsWith(`${proxy}: `)).join('\n')
    assert.match(own, lines[i] as RegExp)
    assert.doesNotMatch(own, /:8080|NAME/)
  }
}

describe('sync-node doctor URL, through a proxy', () => {
  it('finds nothing wrong with one that passes all on, also 32 MiB', async (t) => {
    const started = await startServer(t, {})
    const found = await travel(started, await startProxy(t, started.url))
    assert.deepEqual(wrongIn(found), [])
    const [bodies] = found.filter(({ check }) => check === 'bodies')
    assert.match(bodies?.text ?? '', /up to 32\.0 MiB/)
    const [clients] = found.filter(({ check }) => check === 'clients')
    assert.equal(clients?.text, 'the server tells them apart by their address')
  })

  for (const { name, faults, named } of CASES) {
    it(`names the faults, and no others, of one ${name}`, async (t) => {
      const started = await startServer(t)
      const wrong = wrongIn(await travel(started, await startProxy(t, started.url, faults)))
      assert.deepEqual(
        wrong.map(({ check }) => check),
        named.map(({ check }) => check),
        JSON.stringify(wrong),
      )
      for (const [i, one] of named.entries()) expectNamed(wrong[i] as Finding, one)
    })
  }

  it('names only the lines for the proxy that says what it is', async (t) => {
    const started = await startServer(t)
    for (const [adds, proxy] of [
      [{ server: 'nginx/1.26.3' }, 'nginx'],
      [{ via: '1.1 Caddy' }, 'Caddy'],
      [{ server: 'Apache/2.4.62 (Debian)' }, 'Apache'],
    ] as const) {
      const faults = { adds: adds as Record<string, string>, refuses: ['PUT'] }
      const found = await travel(started, await startProxy(t, started.url, faults))
      const { items = [] } = found.find(({ check }) => check === 'writing') as Finding
      assert.ok(items.length > 0)
      for (const line of items) assert.ok(line.startsWith(`${proxy}: `), line)
    }
  })

  it('keeps within a small quota', async (t) => {
    const started = await startServer(t, { QUOTA: '2M' })
    assert.deepEqual(wrongIn(await travel(started, await startProxy(t, started.url))), [])
  })
})

describe('sync-node doctor URL says that', () => {
  it('the address leads to another server', async (t) => {
    const [mine, others] = await Promise.all([startServer(t), startServer(t)])
    const [wrong, ...more] = wrongIn(await travel(mine, await startProxy(t, others.url)))
    assert.deepEqual([wrong?.check, more], ['session', []])
    assert.match(wrong?.text ?? '', /^this address leads to another server/)
    await expectNobodyElse(others.here)
  })

  it('no Sync Node answers, the address leads on, or nothing listens', async (t) => {
    const started = await startServer(t)
    const only = async (address: string, check: string): Promise<string> => {
      const [wrong, ...more] = wrongIn(await travel(started, address))
      assert.deepEqual([wrong?.check, more], [check, []])
      return wrong?.text ?? ''
    }
    const refuses = await startProxy(t, started.url, { refuses: ['GET'] })
    assert.match(await only(refuses, 'server'), /no Sync Node answers .*the proxy answers 403/)
    const reads = await startProxy(t, started.url, { refuses: ['PUT'] })
    assert.match(await only(reads, 'writing'), /PUT: the proxy answers 403/)
    const redirects = await startProxy(t, started.url, { redirects: 'https://sync.example/x' })
    assert.match(await only(redirects, 'server'), /leads on to https:\/\/sync\.example, /)
    assert.match(await only('http://127.0.0.1:1', 'address'), /does not answer \(ECONNREFUSED\)/)
    assert.match(await only('http://nobody.invalid', 'address'), /has no address/)
  })

  it('the clock differs, before all else', async (t) => {
    const started = await startServer(t)
    const adds = { date: new Date(Date.now() + 600_000).toUTCString() }
    const proxy = await startProxy(t, started.url, { adds, refuses: ['PUT'] })
    const [clock] = wrongIn(await travel(started, proxy))
    assert.deepEqual([clock?.check, clock?.level], ['clock', 'warning'])
    assert.match(clock?.text ?? '', /10 minutes off/)
  })

  it('no server runs on the data', async (t) => {
    const here = install(t)
    await (await here.serve()).stop()
    const { code, stdout, stderr } = await here.run(['doctor', 'https://localhost'])
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, /No server runs on this data/)
  })

  it('it was called with what is no address', async (t) => {
    const { code, stderr } = await install(t).run(['doctor', 'sync.example.org'])
    assert.equal(code, 2)
    assert.match(stderr, /takes an address such as/)
  })
})

describe('sync-node doctor URL that is stopped', () => {
  const stalling = { swallows: ['PUT'] }

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`removes its account: by ${signal}`, async (t) => {
      const { here, url, environment } = await startServer(t)
      const child = here.launch(['doctor', await startProxy(t, url, stalling)], environment)
      await child.says(/(session): /)
      const { code } = await child.stop(signal)
      assert.equal(code, 1)
      assert.match(child.output().stderr, /Interrupted/)
      await expectNobodyElse(here)
    })
  }

  it('removes its account: nobody reads any more', async (t) => {
    const { here, url, environment } = await startServer(t)
    const command = `'${EXECUTABLE[0]}' doctor ${url} | head -1`
    const env = { PATH: process.env['PATH'], ...environment }
    const { stdout, stderr } = await promisify(execFile)('sh', ['-c', command], {
      cwd: here.folder,
      env,
    })
    assert.match(stdout, /^ok +.*\n$/)
    assert.doesNotMatch(stderr, /Error/)
    await expectNobodyElse(here)
  })

  it('says when it could not', async (t) => {
    const { here, url, environment } = await startServer(t)
    const child = here.launch(['doctor', await startProxy(t, url, stalling)], environment)
    await child.says(/(session): /)
    const database = new DatabaseSync(join(here.root, 'sync-node.db'))
    database.exec('BEGIN IMMEDIATE')
    await child.stop('SIGINT')
    database.close()
    const { stderr } = child.output()
    const [, handle = ''] = /still there: sync-node account delete (~\S+) --yes/.exec(stderr) ?? []
    assert.equal((await here.run(['account', 'delete', handle, '--yes'])).code, 0, stderr)
    await expectNobodyElse(here)
  })
})

const hasOpenssl = spawnSync('openssl', ['version']).status === 0 || process.env['CI'] !== undefined
const withOpenssl = { skip: hasOpenssl ? false : 'openssl is not installed' }

describe('sync-node doctor URL, of the certificate', withOpenssl, () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'sync-node-'))
    openssl(
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 900 -subj /CN=CA',
    )
  })
  after(() => rmSync(folder, { recursive: true }))

  const openssl = (args: string): void =>
    void execFileSync('openssl', args.split(' '), { cwd: folder, stdio: 'pipe' })

  /** A certificate for an address, signed by the test's authority. */
  function issue(name: string, address: string, days: number): NonNullable<Faults['tls']> {
    const extension = `subjectAltName=IP:${address}`
    openssl(
      `req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ${name}.key -out ${name}.csr -subj /CN=${name} -addext ${extension}`,
    )
    openssl(
      `x509 -req -in ${name}.csr -CA ca.pem -CAkey ca.key -copy_extensions copy -days ${days} -out ${name}.pem`,
    )
    return { key: read(`${name}.key`), cert: read(`${name}.pem`) }
  }

  const read = (name: string): string => readFileSync(join(folder, name), 'utf8')

  it('says that it is good, ends soon, is for another name, or private', async (t) => {
    const started = await startServer(t)
    const trusted = { NODE_EXTRA_CA_CERTS: join(folder, 'ca.pem') }
    const look = async (tls: NonNullable<Faults['tls']>, more: Record<string, string>) => {
      const found = await travel(started, await startProxy(t, started.url, { tls }), more)
      const { level, text } = found.find(({ check }) => check === 'certificate') as Finding
      assert.ok(
        found.some(({ check }) => check === 'clients'),
        'it goes on',
      )
      return `${level} ${text}`
    }
    const good = issue('good', '127.0.0.1', 90)
    assert.match(await look(good, trusted), /^ok good for 89 days/)
    assert.match(
      await look(good, {}),
      /^problem .*: (?:it is signed by a private|the certificates)/,
    )
    assert.match(await look(issue('soon', '127.0.0.1', 5), trusted), /^warning it ends in 4 days/)
    assert.match(await look(issue('other', '127.0.0.9', 90), trusted), /^problem .*another name/)
  })

  it('says that it is self-signed, or that there is none, with the lines to write', async (t) => {
    const started = await startServer(t)
    openssl(
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout own.key -out own.pem -subj /CN=127.0.0.1',
    )
    const tls = { key: read('own.key'), cert: read('own.pem') }
    const [wrong, ...more] = wrongIn(
      await travel(started, await startProxy(t, started.url, { tls })),
    )
    assert.deepEqual([wrong?.check, wrong?.level, more], ['certificate', 'problem', []])
    assert.match(wrong?.text ?? '', /no browser or app takes it: it is self-signed/)
    assert.match((wrong?.items ?? []).join('\n'), /nginx: ssl_certificate .*Caddy: .*SSLCert/s)
    const plain = (await startProxy(t, started.url)).replace('http:', 'https:')
    const found = await travel(started, plain)
    assert.match(found.find(({ check }) => check === 'certificate')?.text ?? '', /there is no TLS/)
  })
})
