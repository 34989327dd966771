import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { ConfigError, readConfig, sourceOf, type Config, type Environment } from '../src/config.ts'
import { temporaryFolder } from './helpers/node.ts'

const GIB = 1024 ** 3
const SECRET = 'hunter2'
const KEY = 'k'.repeat(32)
const KEYS = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: SECRET }
const credentials = { accessKeyId: 'id', secretAccessKey: SECRET }

const VALUES = {
  bucket: 'values',
  prefix: '',
  endpoint: 'https://s3.us-east-1.amazonaws.com',
  region: 'us-east-1',
  ...credentials,
}

/** What has to be there beside a database server. */
const BESIDE = { SECRET_KEY: KEY, BLOB_URL: 's3://values', ...KEYS }

function server(environment: Environment): Environment {
  return { ...environment, ...BESIDE }
}

function onServer(url: string, authToken: string | null = null): Partial<Config> {
  return { database: { url, authToken }, secretKey: KEY, blobUrl: VALUES }
}

/** Environments beside what one variable alone makes of the configuration. */
const GOOD: [environment: Environment, expected: Partial<Config>][] = [
  [{ HOST: '127.0.0.1' }, { host: '127.0.0.1' }],
  [{ HOST: '::1' }, { host: '::1' }],
  [{ HOST: 'my-host.example' }, { host: 'my-host.example' }],
  [{ PORT: '0' }, { port: 0 }],
  [{ PORT: '65535' }, { port: 65_535 }],
  [{ PORT: ' 8081\n' }, { port: 8081 }],
  [{ METRICS_PORT: '0' }, { metricsPort: 0 }],
  [{ METRICS_PORT: '9464' }, { metricsPort: 9464 }],
  [{ STATIC_ROOT: '/srv/sync' }, { root: '/srv/sync' }],
  [{ STATIC_ROOT: 'sync' }, { root: resolve('sync') }],
  [{ REGISTRATION: 'open' }, { registration: 'open', quota: GIB }],
  [{ REGISTRATION: 'Invite' }, { registration: 'invite', quota: null }],
  [{ REGISTRATION: 'closed' }, { registration: 'closed', quota: null }],
  [{ QUOTA: '1000' }, { quota: 1000 }],
  [{ QUOTA: '500M' }, { quota: 500 * 1024 ** 2 }],
  [{ QUOTA: '1.5 GiB' }, { quota: 1.5 * GIB }],
  [{ QUOTA: 'none' }, { quota: null }],
  [
    { QUOTA: '2G', REGISTRATION: 'invite' },
    { quota: 2 * GIB, registration: 'invite' },
  ],
  [{ MAX_VALUE_SIZE: '1048576' }, { maxValueSize: 1024 ** 2 }],
  [{ MAX_VALUE_SIZE: '2t' }, { maxValueSize: 2 * 1024 ** 4 }],
  [{ PUBLIC_URL: 'https://sync.example.org' }, { publicUrl: 'https://sync.example.org' }],
  [{ PUBLIC_URL: 'http://192.168.1.2:8080/' }, { publicUrl: 'http://192.168.1.2:8080' }],
  [{ PUBLIC_URL: 'https://example.org/a/b/' }, { publicUrl: 'https://example.org/a/b' }],
  [{ SECRET_KEY: KEY }, { secretKey: KEY }],
  ...(['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const).map(
    (logLevel): [Environment, Partial<Config>] => [{ LOG_LEVEL: logLevel }, { logLevel }],
  ),
  [{ MAIL_FROM: 'sync@example.org' }, { mailFrom: 'sync@example.org', smtpUrl: null }],
  [
    { MAIL_FROM: 'Our Sync <sync@example.org>', SMTP_URL: 'smtp://mail.example.org' },
    { mailFrom: 'Our Sync <sync@example.org>', smtpUrl: 'smtp://mail.example.org' },
  ],
  [
    { MAIL_FROM: 'sync@example.org', SMTP_URL: 'smtps://user:p%40ss@[::1]:465' },
    { mailFrom: 'sync@example.org', smtpUrl: 'smtps://user:p%40ss@[::1]:465' },
  ],
  [{ DATABASE_URL: 'file:' }, {}],
  [server({ DATABASE_URL: 'http://10.0.0.1:8080' }), onServer('http://10.0.0.1:8080/')],
  [server({ DATABASE_URL: 'https://db.example/x' }), onServer('https://db.example/x')],
  [
    server({ DATABASE_URL: 'libsql://db.example', DATABASE_AUTH_TOKEN: 'ey.J-_' }),
    onServer('https://db.example/', 'ey.J-_'),
  ],
  [KEYS, { blobUrl: null }],
  [{ ...KEYS, BLOB_URL: 's3://values' }, { blobUrl: VALUES }],
  [
    { ...KEYS, BLOB_URL: 's3://values', AWS_SESSION_TOKEN: 'token' },
    { blobUrl: { ...VALUES, sessionToken: 'token' } },
  ],
  [
    { ...KEYS, BLOB_URL: 's3://my.values/of/ana/?region=eu-1' },
    {
      blobUrl: {
        bucket: 'my.values',
        prefix: 'of/ana/',
        endpoint: 'https://s3.eu-1.amazonaws.com',
        region: 'eu-1',
        ...credentials,
      },
    },
  ],
  [
    {
      ...KEYS,
      BLOB_URL: 's3://values/ana?endpoint=http://10.0.0.1:3900&region=garage',
      MAX_VALUE_SIZE: '78G',
    },
    {
      blobUrl: {
        bucket: 'values',
        prefix: 'ana/',
        endpoint: 'http://10.0.0.1:3900',
        region: 'garage',
        ...credentials,
      },
      maxValueSize: 78 * GIB,
    },
  ],
]

/** Wrong values of each variable, beside what its message has to say that it takes. */
const WRONG: Record<string, [takes: RegExp, ...values: string[]]> = {
  HOST: [/IP address or host name/, 'http://x', 'a b', '[::1]', '127.0.0.1:80', '/run/x.sock'],
  PORT: [/0 to 65535/, '65536', '-1', '80.5', '1e3', '0x50', 'http', '8080 8081', '99999999999'],
  METRICS_PORT: [/0 to 65535/, '65536', '-1', 'on', '127.0.0.1:9464', '/run/x.sock'],
  REGISTRATION: [/open, invite, closed/, 'yes', 'true', 'invites', 'open, invite', '0'],
  QUOTA: [/500M.*none/, '-1', '0', 'unlimited', '10X', '1e9', '10 0', '9999999T', '0.1', 'M'],
  MAX_VALUE_SIZE: [/size in bytes/, '-1', '0', 'none', '10X', '1,5G', 'G', '9999999T'],
  PUBLIC_URL: [
    /https:\/\/sync\.example\.org/,
    'sync.example.org',
    'ftp://example.org',
    'javascript:alert(1)',
    'https://',
    '//x',
    '/',
    'https://example.org/?a=1',
    'https://example.org/#a',
    `https://user:${SECRET}@x.example`,
    'https://user@x.example',
    `https://:${SECRET}@x.example`,
    'https://x.example/#',
  ],
  TRUSTED_PROXIES: [
    /IP addresses and networks/,
    'localhost',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/',
    '10.0.0',
    '::/129',
    '*',
    'all',
    '10.0.0.1/8/8',
    '10.0.0.1-10.0.0.9',
    '10.0.0.1;10.0.0.2',
    '10.0.0.1, nginx',
    '1.2.3.4:80',
  ],
  SECRET_KEY: [/32 characters/, SECRET, 'x'.repeat(31), ` ${SECRET.repeat(4)}    `],
  LOG_LEVEL: [/trace, debug, info, warn, error, silent/, 'verbose', 'warning', '3', 'info,debug'],
  SMTP_URL: [
    /smtp:\/\/user:password@host:587/,
    'mail.example.org',
    `http://user:${SECRET}@x.example`,
    'smtp://',
    'smtp:',
    SECRET,
    `user:${SECRET}@x.example:587`,
    `smtp://user:${SECRET}@`,
    `smtp://user:${SECRET}@a b`,
  ],
  MAIL_FROM: [
    /sync@example\.org/,
    'sync',
    '@example.org',
    'sync@',
    'a@b, c@d',
    'a@b c@d',
    '<a@b> <c@d>',
    'a@b\r\nBcc: c@d',
    'Sync <sync@example.org',
    'sync@example.org>',
    'Sync sync@example.org',
    '<>',
    'Sync <>',
  ],
  DATABASE_AUTH_TOKEN: [/without blanks/, `a ${SECRET}`, 'ä', 'a\r\nb'],
  BLOB_URL: [
    /s3:\/\/bucket\/prefix\?endpoint=https:\/\/host&region=name/,
    's3://',
    's3:values',
    'values',
    'https://s3.example.org/values',
    `s3://id:${SECRET}@values`,
    's3://values:80/',
    's3://values//ana',
    's3://values/../others',
    's3://values/a b',
    's3://values/%2e',
    's3://values/?endpoint=',
    's3://values?endpoint=s3.example.org',
    `s3://values?endpoint=https://id:${SECRET}@s3.example.org`,
    's3://values?region=eu 1',
    `s3://values?secret=${SECRET}`,
    's3://values#ana',
  ],
  AWS_ACCESS_KEY_ID: [/without blanks/, 'two words', 'é'],
  AWS_SECRET_ACCESS_KEY: [/without blanks/, `${SECRET} ${SECRET}`],
  AWS_SESSION_TOKEN: [/without blanks/, `${SECRET} ${SECRET}`],
  DATABASE_URL: [
    /file:.*libsql:/,
    `libsql://x.example?authToken=${SECRET}`,
    'postgres://x',
    'libsql:',
    `https://user:${SECRET}@x.example`,
    'https://x.example/#a',
    'ws://x.example',
    'sync.db',
    'file:other.db',
  ],
}

/** The one line that a wrong setting stops with. */
function refusalOf(environment: Environment): string {
  try {
    readConfig({ MAIL_FROM: 'sync@example.org', ...environment })
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    assert.match(error.message, /^[^\r\n]{1,200}$/)
    return error.message
  }
  return assert.fail(`was taken: ${JSON.stringify(environment)}`)
}

function fileWith(t: TestContext, text: string): string {
  const path = join(temporaryFolder(t), 'setting')
  writeFileSync(path, text)
  return path
}

describe('the configuration', () => {
  it('has a default for everything', () => {
    const { trustedProxies, ...config } = readConfig({})
    assert.deepEqual(config, {
      host: '::',
      port: 8080,
      metricsPort: null,
      root: resolve('data'),
      registration: 'open',
      quota: GIB,
      maxValueSize: GIB,
      publicUrl: null,
      secretKey: null,
      database: null,
      blobUrl: null,
      logLevel: 'info',
      smtpUrl: null,
      mailFrom: null,
    })
    assert.deepEqual(trustedProxies.rules, [])
  })

  it('cannot be changed afterwards, and ignores what it does not know', () => {
    const config = readConfig({ PATH: '/bin', PORTS: 'x' })
    assert.ok(Object.isFrozen(config))
  })

  for (const [environment, expected] of GOOD) {
    it(`takes ${JSON.stringify(environment)}`, () => {
      const { trustedProxies: _, ...config } = readConfig(environment)
      const { trustedProxies: __, ...usual } = readConfig({})
      assert.deepEqual(config, { ...usual, ...expected })
    })
  }

  it('takes proxies as addresses and networks, with commas or blanks', () => {
    const { trustedProxies } = readConfig({
      TRUSTED_PROXIES: '10.0.0.1, 192.168.0.0/16,2001:db8::/32\n::1  172.16.0.0/12',
    })
    for (const ip of ['10.0.0.1', '192.168.255.1', '172.31.0.1']) {
      assert.ok(trustedProxies.check(ip, 'ipv4'), ip)
    }
    for (const ip of ['10.0.0.2', '192.169.0.1', '172.32.0.1']) {
      assert.ok(!trustedProxies.check(ip, 'ipv4'), ip)
    }
    assert.ok(trustedProxies.check('2001:db8:1::', 'ipv6'))
    assert.ok(!trustedProxies.check('2001:db9::', 'ipv6'))
  })

  it('refuses a database server without what all its nodes have in common', () => {
    const DATABASE_URL = 'libsql://db.example'
    for (const name of ['SECRET_KEY', 'BLOB_URL']) {
      const message = refusalOf({ ...server({ DATABASE_URL }), [name]: '' })
      assert.match(message, new RegExp(`^${name} is needed beside DATABASE_URL: `))
    }
    for (const url of ['', 'file:']) {
      const message = refusalOf({ DATABASE_URL: url, DATABASE_AUTH_TOKEN: SECRET })
      assert.match(message, /^DATABASE_AUTH_TOKEN is set, but DATABASE_URL names no /)
      assert.ok(!message.includes(SECRET))
    }
  })

  for (const name of Object.keys(WRONG)) {
    it(`takes an empty ${name} as none`, () => {
      const { trustedProxies: _, ...config } = readConfig({ [name]: ' ', [`${name}_FILE`]: '' })
      const { trustedProxies: __, ...usual } = readConfig({})
      assert.deepEqual(config, usual)
    })
  }

  it('takes an empty STATIC_ROOT as none', () => {
    assert.equal(readConfig({ STATIC_ROOT: '' }).root, resolve('data'))
  })
})

describe('a wrong setting', () => {
  for (const [name, [takes, ...values]] of Object.entries(WRONG)) {
    for (const value of values) {
      it(`is said in one line: ${name}=${JSON.stringify(value)}`, () => {
        const line = refusalOf({ [name]: value })
        assert.ok(line.startsWith(`${name} `), line)
        assert.match(line, takes)
        assert.ok(!line.includes(SECRET), 'no secret is echoed')
      })
    }
  }

  it('is SMTP_URL without MAIL_FROM', () => {
    const environment = { SMTP_URL: `smtp://user:${SECRET}@mail.example.org`, MAIL_FROM: '' }
    const line = refusalOf(environment)
    assert.match(line, /^MAIL_FROM .*SMTP_URL/)
    assert.ok(!line.includes(SECRET))
  })
})

describe('BLOB_URL', () => {
  it('takes credentials beside it, and no value that a bucket does not', () => {
    const BLOB_URL = 's3://values'
    for (const name of Object.keys(KEYS)) {
      assert.match(refusalOf({ ...KEYS, BLOB_URL, [name]: '' }), new RegExp(`^${name} .*BLOB_URL`))
    }
    const line = refusalOf({ ...KEYS, BLOB_URL, MAX_VALUE_SIZE: '79G' })
    assert.match(line, /^MAX_VALUE_SIZE .*78G/)
  })
})

describe('NAME_FILE', () => {
  it('names a file that holds the value, for every variable', (t) => {
    for (const [environment, expected] of GOOD) {
      const inFiles = Object.fromEntries(
        Object.entries(environment).map(([name, value]) => [
          `${name}_FILE`,
          fileWith(t, `${value}\n`),
        ]),
      )
      const { trustedProxies: _, ...config } = readConfig(inFiles)
      const { trustedProxies: __, ...usual } = readConfig({})
      assert.deepEqual(config, { ...usual, ...expected })
    }
    const { trustedProxies } = readConfig({
      TRUSTED_PROXIES_FILE: fileWith(t, '10.0.0.1\n10.0.0.2\n'),
    })
    assert.ok(trustedProxies.check('10.0.0.2', 'ipv4'))
  })

  for (const name of [...Object.keys(WRONG), 'STATIC_ROOT']) {
    it(`and ${name} itself are not both set`, (t) => {
      const line = refusalOf({ [name]: SECRET, [`${name}_FILE`]: fileWith(t, SECRET) })
      assert.ok(line.startsWith(`${name} and ${name}_FILE are both set`), line)
      assert.ok(!line.includes(SECRET))
    })

    it(`names a file that can be read: ${name}`, (t) => {
      for (const path of [join(temporaryFolder(t), SECRET), temporaryFolder(t)]) {
        const line = refusalOf({ [`${name}_FILE`]: path, MAIL_FROM: '' })
        assert.ok(line.startsWith(`${name}_FILE `), line)
        assert.ok(!line.includes(SECRET), 'a secret put into NAME_FILE by mistake is not echoed')
      }
    })
  }

  it('says what is wrong in the file without telling what it holds', (t) => {
    for (const [name, [takes]] of Object.entries(WRONG)) {
      const line = refusalOf({ [`${name}_FILE`]: fileWith(t, `${SECRET} @ ?`), MAIL_FROM: '' })
      assert.ok(line.startsWith(`${name} `), line)
      assert.match(line, takes)
      assert.ok(!line.includes(SECRET))
    }
  })
})

describe('A credential of systemd', () => {
  it('is read like NAME_FILE, for every variable', (t) => {
    for (const [environment, expected] of GOOD) {
      const folder = temporaryFolder(t)
      for (const [name, value] of Object.entries(environment)) {
        writeFileSync(join(folder, name), `${value}\n`)
      }
      const { trustedProxies: _, ...config } = readConfig({ CREDENTIALS_DIRECTORY: folder })
      const { trustedProxies: __, ...usual } = readConfig({})
      assert.deepEqual(config, { ...usual, ...expected })
    }
  })

  it('is not set beside the variable or NAME_FILE', (t) => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'SECRET_KEY'), KEY)
    const credentials = { CREDENTIALS_DIRECTORY: folder }
    for (const other of [{ SECRET_KEY: KEY }, { SECRET_KEY_FILE: fileWith(t, KEY) }]) {
      const line = refusalOf({ ...credentials, ...other })
      assert.match(line, /^SECRET_KEY(_FILE)? and the credential SECRET_KEY are both set/)
    }
    assert.equal(sourceOf(credentials, 'SECRET_KEY'), 'the credential SECRET_KEY')
    assert.equal(sourceOf(credentials, 'PORT'), 'default')
  })
})

describe('a server with a wrong setting', () => {
  for (const environment of [
    { PORT: 'eighty' },
    { SECRET_KEY: SECRET },
    { SMTP_URL: `smtp://user:${SECRET}@mail.example.org` },
  ] as Environment[]) {
    const [name = ''] = Object.keys(environment)

    it(`stops with one line and exit code 1 (${name})`, (t) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, ['src/main.ts', 'serve'], {
        env: { STATIC_ROOT: join(temporaryFolder(t), 'data'), ...environment } as NodeJS.ProcessEnv,
        encoding: 'utf8',
      })
      assert.equal(status, 1)
      assert.equal(stdout, '')
      assert.match(stderr, /^sync-node: [^\n]+\n$/)
      assert.ok(stderr.includes(name), stderr)
      assert.ok(!stderr.includes(SECRET))
    })
  }
})
