import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { install } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { remoteClient, signUp } from './helpers/remote.ts'
import { openWire, type WireAnswer } from './helpers/wire.ts'

/** Stands in every hostile request, and in no answer. */
const MARK = 'zq7marked'
const HOST = 'Host: localhost\r\n'
const CODES: Record<string, number[]> = {
  REQ01: [400, 408, 416, 431],
  AUTH01: [401],
  SIZE01: [413],
  KEY01: [412, 428],
  ERR01: [404],
  ERR03: [405],
}

type Row = [name: string, request: string, code: string, status?: number]

function assertRefused(answer: WireAnswer | null, [, request, code, status]: Row): void {
  assert.ok(answer, 'there is an answer')
  const { headers } = answer
  assert.equal(headers['content-type'], 'application/problem+json', answer.text)
  const toHead = request.startsWith('HEAD ')
  const problem = toHead ? {} : (JSON.parse(answer.body.toString()) as Record<string, unknown>)
  if (!toHead) {
    assert.equal(problem['code'], code, answer.text)
    assert.equal(problem['status'], answer.status)
    assert.deepEqual(Object.keys(problem).sort(), ['code', 'detail', 'status', 'title', 'type'])
  }
  assert.ok(CODES[code]?.includes(answer.status), answer.text)
  if (status !== undefined) assert.equal(answer.status, status)
  assert.equal(headers['access-control-allow-origin'], '*')
  assert.match(headers['access-control-expose-headers'] ?? '', /X-Request-Id/)
  assert.match(headers['x-request-id'] ?? '', /^[0-9a-v]{26}$/)
  assert.ok(!answer.text.toLowerCase().includes(MARK), `the request is repeated: ${answer.text}`)
}

/** Sends each request on a connection of its own; afterwards the server is as well as before. */
async function refuseAll(t: TestContext, rows: Row[]): Promise<void> {
  const node = await startNode(t)
  const ana = await node.signUp('ana')
  for (const row of rows) {
    await t.test(row[0], async (t) => {
      const wire = await openWire(t, node.port)
      wire.send(row[1].replace('{session}', `Authorization: Bearer ${ana.token}\r\n`))
      const toHead = row[1].startsWith('HEAD ')
      assertRefused(await wire.answer({ toHead }), row)
      wire.socket.destroy() // or the end would wait until the server hangs up
    })
  }
  await assertWell(node, ana)
}

async function assertWell(node: TestNode, ana: Client): Promise<void> {
  await expectStatus(await node.request('/health'), 200)
  await expectStatus(await ana.put('afterwards', 'value', { 'X-Sync-Token': '*' }), 412)
  await expectStatus(await ana.put('afterwards', 'value'), 201)
  assert.equal(await (await ana.get('afterwards')).text(), 'value')
  assert.deepEqual(
    (await ana.list()).map(({ size }) => size),
    [5],
    'nothing else was written',
  )
  assert.deepEqual(node.fatal, [])
}

const get = (target: string): string => `GET ${target} HTTP/1.1\r\n${HOST}{session}\r\n`
let puts = 0
// Each to a key of its own: one that is taken must not spoil the next.
const put = (headers: string, body = 'x'): string =>
  `PUT /store/${MARK}${++puts} HTTP/1.1\r\n${HOST}{session}${headers}\r\n${body}`
const chunked = (body: string): string => put('Transfer-Encoding: chunked\r\n', body)
const withHeader = (line: string): string =>
  `GET /store/${MARK} HTTP/1.1\r\n${HOST}{session}${line}\r\n`

describe('a hostile target is refused', () => {
  const malformed = [
    `/store/${MARK}/../b`,
    `/store/${MARK}/%2e%2e/b`,
    `/store/${MARK}/.%2E/b`,
    `/store/../${MARK}`,
    `/store/${MARK}/.`,
    `/store/%2e/${MARK}`,
    `/store//${MARK}`,
    `/store/${MARK}//b`,
    `/store/${MARK}/`,
    `/store/${MARK}%2f`,
    `/store/%2f${MARK}`,
    '/store/',
    '/permission/',
    `/permission/${MARK}/../b`,
    `/store/${MARK}%00`,
    `/store/${MARK}%0d%0aX-Injected:%201`,
    `/store/${MARK}%1f`,
    `/store/${MARK}%`,
    `/store/${MARK}%4`,
    `/store/${MARK}%zz`,
    `/store/${MARK}%u0041`,
    '/store/%E0%A4%A',
    `/store/${MARK}%ff`,
    `/store/${MARK}%c0%af`,
    `/store/${MARK}%c0%ae%c0%ae/b`,
    `/store/${MARK}%ed%a0%80`,
    `/store/${MARK}%f4%90%80%80`,
    `/store/${MARK}\\b`,
    `\\store\\${MARK}`,
    `/store/${MARK}#fragment`,
    `/store/${MARK}\xc3\xa9`,
    `/store/${MARK}\xff`,
    `/store/${MARK}\x7f`,
    `/store/${MARK}\x01`,
    `http://localhost/store/${MARK}`,
    `http://${MARK}:x@localhost/health`,
    `https://${MARK}/health`,
    `ftp://${MARK}/`,
    `${MARK}:80`,
    '*',
    `store/${MARK}`,
    `?${MARK}`,
    `/store/${MARK}?x`,
    `/store/${MARK}?__proto__=1`,
    `/store?constructor=${MARK}`,
    `/health?${MARK}`,
    '/health?__proto__',
    `/health?hasOwnProperty=${MARK}`,
    `/permission/${MARK}?users=%`,
    `/health?x=%ff${MARK}`,
    `/store/${'a'.repeat(8001)}`,
  ]
  it('as REQ01', async (t) => {
    const rows = malformed.map((target): Row => [target.slice(0, 60), get(target), 'REQ01', 400])
    await refuseAll(t, rows)
  })

  it('as not found, and folded by nobody', async (t) => {
    const targets = [
      '//health',
      `//store/${MARK}`,
      `/${MARK}/../health`,
      '/./health',
      '/%68ealth',
      '/HEALTH',
      '/health/',
      '/health;a=b',
      '/health%20',
      '/health%00',
      '/health%2f',
      '/store%2Fa',
      `/${MARK}`,
      '/__proto__',
      '/constructor',
      `/auth/${MARK}/b`,
      `/account/${MARK}`,
      `/store/${MARK}`,
      `/store/~${'a'.repeat(43)}`,
      '/store/__proto__',
    ]
    await refuseAll(
      t,
      targets.map((target): Row => [target, get(target), 'ERR01', 404]),
    )
  })
})

describe('hostile framing is refused', () => {
  const one = '1\r\nx\r\n0\r\n\r\n'
  const coding = (value: string): string => put(`Transfer-Encoding: ${value}\r\n`, one)
  const rows: Row[] = [
    ['two lengths', put('Content-Length: 1\r\nContent-Length: 1\r\n'), 'REQ01'],
    ['two different lengths', put('Content-Length: 1\r\nContent-Length: 2\r\n'), 'REQ01'],
    ...['1, 1', '+1', '-1', '0x1', '1e1', ' ', '1 1', '1;1', '9'.repeat(30), MARK].map(
      (length): Row => [`length ${length}`, put(`Content-Length: ${length}\r\n`), 'REQ01', 400],
    ),
    ['a length beyond all', put('Content-Length: 9007199254740993\r\n'), 'SIZE01', 413],
    [
      'two codings',
      put('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', one),
      'REQ01',
    ],
    ['coding, length', put('Transfer-Encoding: chunked\r\nContent-Length: 1\r\n', one), 'REQ01'],
    ['length, coding', put('Content-Length: 1\r\nTransfer-Encoding: chunked\r\n', one), 'REQ01'],
    [
      'length, another case',
      put('Content-Length: 1\r\ntRANSFER-eNCODING: chunked\r\n', one),
      'REQ01',
    ],
    ...[
      'identity',
      'xchunked',
      'chunked, identity',
      'chunked, chunked',
      'gzip, chunked',
      'identity, chunked',
      '"chunked"',
      '\x0bchunked',
      MARK,
    ].map((value): Row => [`coding ${value}`, coding(value), 'REQ01', 400]),
    ['a blank before the colon', put('Transfer-Encoding : chunked\r\n', one), 'REQ01'],
    ['a tab in the name', put('Transfer-Encoding\t: chunked\r\n', one), 'REQ01'],
    ['a folded coding', put('Transfer-Encoding:\r\n chunked\r\n', one), 'REQ01'],
    ...['zz', '-1', '+1', '0x1', '1 1', '', 'f'.repeat(17), MARK].map((size): Row => [
      `chunk of ${size}`,
      chunked(`${size}\r\nx\r\n0\r\n\r\n`),
      'REQ01',
      400,
    ]),
    ['a chunk that is longer', chunked('1\r\nxy\r\n0\r\n\r\n'), 'REQ01'],
    ['chunks with bare LF', chunked('1\nx\n0\n\n'), 'REQ01'],
    [
      'a long chunk extension',
      chunked(`1;${MARK}=${'b'.repeat(20_000)}\r\nx\r\n0\r\n\r\n`),
      'REQ01',
    ],
    ['a bad trailer', chunked(`1\r\nx\r\n0\r\n${MARK} : b\r\n\r\n`), 'REQ01'],
  ]
  it('before anything is written', (t) => refuseAll(t, rows))
})

describe('hostile lines are refused', () => {
  const line = `GET /store/${MARK} HTTP/1.1\r\n`
  const rows: Row[] = [
    ['no Host', `${line}{session}\r\n`, 'REQ01', 400],
    ['two Hosts', `${line}${HOST}${HOST}{session}\r\n`, 'REQ01'],
    ['two different Hosts', `${line}${HOST}Host: ${MARK}\r\n{session}\r\n`, 'REQ01'],
    ...[
      `${MARK} b`,
      `${MARK}/..`,
      `a@${MARK}`,
      '[::1',
      'a:99999999',
      '\xff',
      'a\\b',
      'a?b',
      'a#b',
    ].map((host): Row => [`Host ${host}`, `${line}Host: ${host}\r\n{session}\r\n`, 'REQ01', 400]),
    ['bare LF', `GET /store/${MARK} HTTP/1.1\n${HOST}\n`, 'REQ01'],
    ['LF in the headers', `${line}Host: a\nX-A: ${MARK}\r\n\r\n`, 'REQ01'],
    ['CR in a header', `${line}${HOST}X-A: a\rX-B: ${MARK}\r\n\r\n`, 'REQ01'],
    ['NUL in a header', withHeader(`X-A: ${MARK}\0\r\n`), 'REQ01'],
    ['a folded header', withHeader(`X-A: b\r\n ${MARK}\r\n`), 'REQ01'],
    ['a name with a blank', withHeader(`X ${MARK}: b\r\n`), 'REQ01'],
    ['a blank before the colon', withHeader(`X-${MARK} : b\r\n`), 'REQ01'],
    ['a blank before the name', `${line} ${HOST}\r\n`, 'REQ01'],
    ['no colon', withHeader(`${MARK}\r\n`), 'REQ01'],
    ['no name', withHeader(`: ${MARK}\r\n`), 'REQ01'],
    ['a name of other bytes', withHeader(`X-\xe9: ${MARK}\r\n`), 'REQ01'],
    ['two sessions', withHeader(`Authorization: Bearer ${MARK}\r\n`), 'REQ01'],
    ['two ranges', withHeader('Range: bytes=0-1\r\nRange: bytes=2-3\r\n'), 'REQ01'],
    ['large headers', withHeader(`X-A: ${MARK.repeat(3000)}\r\n`), 'REQ01', 431],
    ['many headers', withHeader(`${MARK}: b\r\n`.repeat(3000)), 'REQ01', 431],
    ['a large target', get(`/store/${MARK.repeat(3000)}`), 'REQ01', 431],
    ['no HTTP at all', `${MARK}\r\n\r\n`, 'REQ01'],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'REQ01'],
    ['another protocol', `GET /${MARK} ICE/1.0\r\n${HOST}\r\n`, 'REQ01'],
    ['another version', `GET /${MARK} HTTP/1.2\r\n${HOST}\r\n`, 'REQ01'],
    ['a preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'REQ01'],
    ['NUL bytes', '\0\0\0\0', 'REQ01'],
    ['blanks in the target', `GET /store/${MARK} b HTTP/1.1\r\n${HOST}\r\n`, 'REQ01'],
  ]
  it('by their bytes', (t) => refuseAll(t, rows))
})

describe('methods that are none here are refused', () => {
  const request = (method: string, target: string): string =>
    `${method} ${target} HTTP/1.1\r\n${HOST}{session}\r\n`
  const rows: Row[] = [
    ['TRACE', request('TRACE', `/store/${MARK}`), 'ERR03', 405],
    ['TRACE of nothing', request('TRACE', `/${MARK}`), 'ERR03', 405],
    ['CONNECT', request('CONNECT', `${MARK}:443`), 'ERR03', 405],
    ['CONNECT to a path', request('CONNECT', `/store/${MARK}`), 'ERR03', 405],
    ...[
      'PATCH',
      'POST',
      'PROPFIND',
      'MKCOL',
      'LOCK',
      'LINK',
      'QUERY',
      'PURGE',
      'M-SEARCH',
      'SOURCE',
    ].map((method): Row => [method, request(method, `/store/${MARK}`), 'ERR03', 405]),
    ['PUT of the list', request('PUT', '/store'), 'ERR03', 405],
    ['GET of a login', request('GET', '/auth'), 'ERR03', 405],
    ['LINK of nothing', request('LINK', `/${MARK}`), 'ERR01', 404],
    ...['FOO', 'get', 'PUTT', 'G\0T', MARK].map((method): Row => [
      method,
      request(method, `/store/${MARK}`),
      'REQ01',
      400,
    ]),
  ]
  it('by ERR03 where there is something, and what is no method at all by REQ01', async (t) => {
    await refuseAll(t, rows)
  })

  it('with Allow', async (t) => {
    const node = await startNode(t)
    const methods = {
      '/store/a': 'GET, HEAD, PUT, DELETE, OPTIONS',
      '/auth': 'POST, DELETE, OPTIONS',
    }
    for (const [path, allow] of Object.entries(methods)) {
      const wire = await openWire(t, node.port)
      wire.send(`PATCH ${path} HTTP/1.1\r\n${HOST}\r\n`)
      const answer = await wire.answer()
      assert.equal(answer?.headers['allow'], allow)
    }
    for (const method of ['TRACE', 'CONNECT']) {
      const wire = await openWire(t, node.port)
      wire.send(`${method} /store/a HTTP/1.1\r\n${HOST}\r\n`)
      assert.match((await wire.answer())?.headers['allow'] ?? '', /GET/)
    }
  })
})

describe('hostile headers of a write are refused', () => {
  const header = (line: string): string => put(`${line}\r\nContent-Length: 1\r\n`)
  const rows: Row[] = [
    ['meta of other bytes', header(`X-Sync-Meta: ${MARK}\xe9`), 'REQ01', 400],
    ['meta in UTF-8', header(`X-Sync-Meta: ${MARK}\xc3\xa9`), 'REQ01', 400],
    ['meta with a tab', header(`X-Sync-Meta: ${MARK}\tb`), 'REQ01', 400],
    ['meta with DEL', header(`X-Sync-Meta: ${MARK}\x7f`), 'REQ01', 400],
    ['meta with CR', header(`X-Sync-Meta: a\rX-Injected: ${MARK}`), 'REQ01', 400],
    ['meta with LF', header(`X-Sync-Meta: a\nX-Injected: ${MARK}`), 'REQ01', 400],
    [
      'meta of 8,001',
      header(`X-Sync-Meta: ${MARK}${'m'.repeat(8001 - MARK.length)}`),
      'REQ01',
      400,
    ],
    ['meta of 9,000', header(`X-Sync-Meta: ${MARK.repeat(1000)}`), 'REQ01', 400],
    ['two metas', header(`X-Sync-Meta: a\r\nX-Sync-Meta: ${MARK}`), 'REQ01', 400],
    ['two tokens', header(`X-Sync-Token: a\r\nX-Sync-Token: ${MARK}`), 'REQ01', 400],
    ['no token in it', header('X-Sync-Token: '), 'REQ01', 400],
    ['a token of others', header(`X-Sync-Token: ${MARK}!`), 'KEY01', 412],
    ['a token of other bytes', header(`X-Sync-Token: \xff`), 'KEY01', 412],
    ['gzip', header('Content-Encoding: gzip'), 'REQ01', 400],
    ['identity and gzip', header('Content-Encoding: identity, gzip'), 'REQ01', 400],
    ['two encodings', header('Content-Encoding: identity\r\nContent-Encoding: gzip'), 'REQ01', 400],
    ['an unknown encoding', header(`Content-Encoding: ${MARK}`), 'REQ01', 400],
    ['a part', header('Content-Range: bytes 0-0/1'), 'REQ01', 400],
    ['a part of nothing', header(`Content-Range: ${MARK}`), 'REQ01', 400],
    ['a digest that is none', header(`Repr-Digest: ${MARK}`), 'REQ01', 400],
    ['a short digest', header('Content-Digest: sha-256=:AAAA:'), 'REQ01', 400],
    ['a wrong digest', header(`Repr-Digest: sha-256=:${'A'.repeat(43)}=:`), 'REQ01', 400],
    ['two digests', header('Repr-Digest: sha-256=:AA:\r\nRepr-Digest: sha-256=:AA:'), 'REQ01', 400],
    [
      'no session',
      `PUT /store/${MARK} HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\nx`,
      'AUTH01',
      401,
    ],
    ...[
      'Basic',
      'Bearer',
      `Bearer ${MARK}`,
      `Bearer ${'a'.repeat(43)}`,
      `Bearer ${'a'.repeat(43)} b`,
    ].map((session): Row => [
      `session ${session}`,
      `GET /store HTTP/1.1\r\n${HOST}Authorization: ${session}\r\n\r\n`,
      'AUTH01',
      401,
    ]),
  ]
  it('before anything is written', (t) => refuseAll(t, rows))
})

describe('hostile JSON is refused', () => {
  const post = (body: string, target = '/account'): string =>
    `POST ${target} HTTP/1.1\r\n${HOST}{session}Content-Length: ${body.length}\r\n\r\n${body}`
  const member = (text: string): string =>
    post(`{"id":"${MARK}","password":"${MARK}${MARK}",${text}}`)
  const rows: Row[] = [
    ...[
      '',
      'null',
      '[]',
      '{}',
      '"a"',
      '1',
      'true',
      '{',
      `{"id":`,
      `${MARK}`,
      '{"id":1}',
      'NaN',
    ].map((body): Row => [`body ${body}`, post(body), 'REQ01', 400]),
    ['not UTF-8', post(`{"id":"${MARK}\xff","password":"${MARK}"}`), 'REQ01', 400],
    ['cut UTF-8', post(`{"id":"${MARK}\xe2\x82","password":"${MARK}"}`), 'REQ01', 400],
    ['UTF-16', post('\xff\xfe{\0}\0'), 'REQ01', 400],
    ['a lone surrogate', post(`{"id":"${MARK}\\ud800","password":"${MARK}"}`), 'REQ01', 400],
    ['__proto__', member('"__proto__":{"device":"x"}'), 'REQ01', 400],
    ['constructor', member('"constructor":{"prototype":{}}'), 'REQ01', 400],
    ['toString', member('"toString":1'), 'REQ01', 400],
    ['a misspelt member', member(`"devise":"${MARK}"`), 'REQ01', 400],
    ['a member that echoes', member(`"${MARK}":1`), 'REQ01', 400],
    ['a device of 101', member(`"device":"${'d'.repeat(101)}"`), 'REQ01', 400],
    ['deep arrays', post('['.repeat(60_000)), 'REQ01', 400],
    ['deep closed arrays', post('['.repeat(30_000) + ']'.repeat(30_000)), 'REQ01', 400],
    ['deep objects', post(`{"id":${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}}`), 'REQ01', 400],
    ['huge', post(`{"id":"${MARK.repeat(10_000)}"}`), 'SIZE01', 413],
    ['huge and chunked', tooLongInChunks(), 'SIZE01', 413],
    ['huge for a login', post(`{"id":"${MARK.repeat(10_000)}"}`, '/auth'), 'SIZE01', 413],
    ['no list of permissions', put1(`{"user":"${MARK}"}`), 'REQ01', 400],
    [
      'a permission with __proto__',
      put1(`[{"user":"a","permission":"OWN","__proto__":1}]`),
      'REQ01',
    ],
    ['a permission that is none', put1(`[{"user":"a","permission":"${MARK}"}]`), 'REQ01', 400],
    [
      'a permission of constructor',
      put1(`[{"user":"a","permission":"constructor"}]`),
      'REQ01',
      400,
    ],
  ]
  it('wherever it goes', (t) => refuseAll(t, rows))

  function put1(body: string): string {
    return post(body, '/permission/a').replace('POST', 'PUT')
  }

  function tooLongInChunks(): string {
    const chunk = `4000\r\n${MARK.padEnd(0x4000, ' ')}\r\n`
    return `POST /auth HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(5)}`
  }
})

describe('a refusal', () => {
  const rows = {
    'of a route': get('/store/%00'),
    'of a body': `POST /auth HTTP/1.1\r\n${HOST}Content-Length: 1\r\n\r\nx`,
    'before routing': get('/store/a\\b'),
    'of a method': `TRACE / HTTP/1.1\r\n${HOST}\r\n`,
    'of CONNECT': `CONNECT a:1 HTTP/1.1\r\n${HOST}\r\n`,
    'of an expectation': put('Expect: nothing\r\nContent-Length: 1\r\n'),
    'of the parser': 'nothing\r\n\r\n',
    'of large headers': withHeader(`X-A: ${'a'.repeat(20_000)}\r\n`),
    'of a host': `GET /health HTTP/1.1\r\nHost: a b\r\n\r\n`,
  }
  for (const [name, request] of Object.entries(rows)) {
    it(`is stored by no cache: ${name}`, async (t) => {
      const node = await startNode(t)
      const wire = await openWire(t, node.port)
      wire.send(request.replace('{session}', `Authorization: Bearer ${'a'.repeat(43)}\r\n`))
      const answer = await wire.answer()
      wire.socket.destroy()
      assert.ok((answer?.status ?? 0) >= 400)
      assert.equal(answer?.headers['cache-control'], 'no-store')
      assert.equal(answer.headers['x-content-type-options'], 'nosniff')
    })
  }
})

describe('odd requests that are rightful', () => {
  async function open(t: TestContext) {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    return { node, ana, session: `Authorization: Bearer ${ana.token}\r\n` }
  }

  it('are answered', async (t) => {
    const { node, ana, session } = await open(t)
    const rows: [string, number][] = [
      [`GET /health HTTP/1.0\r\n\r\n`, 200],
      [`GET /store HTTP/1.0\r\n${session}\r\n`, 200],
      [`\r\n\r\nGET /health HTTP/1.1\r\n${HOST}\r\n`, 200],
      [`GET /health HTTP/1.1\r\nHost: [::1]:80\r\n\r\n`, 200],
      [`GET /health HTTP/1.1\r\nHOST: LOCALHOST\r\n\r\n`, 200],
      [
        `GET /health HTTP/1.1\r\n${HOST}__proto__: a\r\n__proto__: b\r\nconstructor: c\r\n\r\n`,
        200,
      ],
      [`GET /store HTTP/1.1\r\n${HOST}${session}__proto__: authorization\r\n\r\n`, 200],
      [`GET /health HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`, 200],
      [`GET /health HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`, 200],
      [
        `PUT /store/a HTTP/1.1\r\n${HOST}${session}Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx`,
        201,
      ],
      [
        `PUT /store/b HTTP/1.1\r\n${HOST}${session}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nX-Sync-Token: no\r\n\r\n`,
        201,
      ],
      [
        `PUT /store/c HTTP/1.1\r\n${HOST}${session}Content-Encoding: Identity\r\nContent-Length: 1\r\n\r\nx`,
        201,
      ],
      [`PUT /store/d HTTP/1.1\r\n${HOST}${session}Content-Length: 0\r\n\r\n`, 201],
      [`PUT /store/e HTTP/1.1\r\n${HOST}${session}\r\n`, 201],
      [`get /health HTTP/1.1\r\n${HOST}\r\n`, 400],
    ]
    for (const [request, status] of rows) {
      const wire = await openWire(t, node.port)
      wire.send(request)
      assert.equal((await wire.answer())?.status, status, request)
      wire.socket.destroy()
    }
    const sizes = (await ana.list()).map(({ size }) => size)
    assert.deepEqual(
      sizes.sort((a, b) => a - b),
      [0, 0, 1, 1, 1],
    )
  })

  it('keys that look alike are different stores', async (t) => {
    const { node, session } = await open(t)
    const targets = [
      '%25E0%25A4%25A',
      '%E0%A4%85',
      '%25E0%25A4%2585',
      'a%5Cb',
      'a%20b',
      'a+b',
      'a%2Bb',
    ]
    const others = [
      '__proto__',
      'constructor',
      '%C3%A9',
      'e%CC%81',
      '%EF%BB%BFa',
      'a',
      'A',
      '...',
      'a%7F',
    ]
    const keys = new Set<string | undefined>()
    for (const target of [...targets, ...others]) {
      const wire = await openWire(t, node.port)
      wire.send(`PUT /store/${target} HTTP/1.1\r\n${HOST}${session}Content-Length: 1\r\n\r\nx`)
      const answer = await wire.answer()
      // a+b and a%2Bb are one: what is percent-encoded is decoded, exactly once.
      assert.equal(answer?.status, target === 'a%2Bb' ? 428 : 201)
      keys.add(answer?.headers['x-sync-key'])
    }
    assert.equal(keys.size, targets.length + others.length - 1)
  })

  it('HEAD with a body does not disturb what follows on the connection', async (t) => {
    const { node } = await open(t)
    const wire = await openWire(t, node.port)
    wire.send(`HEAD /health HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`)
    assert.equal((await wire.answer({ toHead: true }))?.status, 200)
    wire.send(`GET /info HTTP/1.1\r\n${HOST}\r\n`)
    assert.match((await wire.answer())?.body.toString() ?? '', /"sync-node"/)
  })

  it('pipelined are answered in order', async (t) => {
    const { node, ana, session } = await open(t)
    await ana.save('a', 'value')
    const wire = await openWire(t, node.port)
    const targets = ['/health', '/store/none', '/store/a', '/info', '/store/%00', '/store']
    wire.send(targets.map((target) => `GET ${target} HTTP/1.1\r\n${HOST}${session}\r\n`).join(''))
    const statuses: (number | undefined)[] = []
    for (const _ of targets) statuses.push((await wire.answer())?.status)
    assert.deepEqual(statuses, [200, 404, 200, 200, 400, 200])
  })

  it('pipelined are begun one after the other, as the answers are taken', async (t) => {
    const { node, ana, session } = await open(t)
    const saved = await ana.save('a', 'value')
    const { cursor } = (await (await ana.request('/changes')).json()) as { cursor: string }
    const wire = await openWire(t, node.port)
    wire.send(
      `GET /changes?wait=50&since=${cursor} HTTP/1.1\r\n${HOST}${session}\r\n`,
      `DELETE /store/a HTTP/1.1\r\n${HOST}${session}X-Sync-Token: ${saved.token}\r\n\r\n`,
    )
    // The poll listens, and what stands behind it has come.
    await eventually(() => node.running.deps.listeners.count(), 1)
    const other = await ana.save('b', 'value')
    const poll = JSON.parse((await wire.answer())?.body.toString() ?? '') as {
      changes: { key: string }[]
    }
    assert.deepEqual(
      poll.changes.map(({ key }) => key),
      [other.key],
    )
    assert.equal((await wire.answer())?.status, 204)
  })

  it('pipelined by the thousand, while the first is still to be answered, end the connection', async (t) => {
    const { node, ana, session } = await open(t)
    const { cursor } = (await (await ana.request('/changes')).json()) as { cursor: string }
    const wire = await openWire(t, node.port)
    wire.send(`GET /changes?wait=50&since=${cursor} HTTP/1.1\r\n${HOST}${session}\r\n`)
    await eventually(() => node.running.deps.listeners.count(), 1)
    wire.send(`GET /info HTTP/1.1\r\n${HOST}\r\n`.repeat(2000))
    await wire.closed()
    await eventually(() => node.running.deps.listeners.count(), 0)
    await expectStatus(await ana.request('/changes'), 200)
  })

  it('with a body that nobody reads, and that never ends, are hung up on', async (t) => {
    const { node } = await open(t)
    const wire = await openWire(t, node.port)
    t.mock.timers.enable({ apis: ['setTimeout'] })
    wire.send(`GET /info HTTP/1.1\r\n${HOST}Content-Length: 100\r\n\r\n${'x'.repeat(10)}`)
    assert.equal((await wire.answer())?.status, 200)
    // All that is sent in the meantime is taken, and a body that ends keeps its connection.
    wire.send('x'.repeat(90), `GET /info HTTP/1.1\r\n${HOST}Content-Length: 100\r\n\r\n`)
    assert.equal((await wire.answer())?.status, 200)
    t.mock.timers.tick(30_000)
    await wire.closed()
    t.mock.timers.reset()
  })

  it('that would upgrade are answered as they are, and what stands behind them is sent again', async (t) => {
    const { node, session } = await open(t)
    const wire = await openWire(t, node.port)
    const upgrade = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n'
    wire.send(
      `GET /store HTTP/1.1\r\n${HOST}${session}${upgrade}\r\n`,
      `GET /info HTTP/1.1\r\n${HOST}\r\n`,
    )
    const answer = await wire.answer()
    assert.equal(answer?.status, 200)
    assert.equal(answer.headers['connection'], 'close')
    await wire.closed()
    assert.equal(await wire.answer(), null)
  })

  it('followed by rubbish get their own answer first', async (t) => {
    const { node, ana, session } = await open(t)
    for (const request of [
      `GET /health HTTP/1.1\r\n${HOST}\r\n`,
      `PUT /store/a HTTP/1.1\r\n${HOST}${session}Content-Length: 1\r\n\r\nx`,
    ]) {
      const wire = await openWire(t, node.port)
      wire.send(`${request}${MARK}\r\n\r\n`)
      const first = await wire.answer()
      await wire.closed()
      wire.socket.destroy()
      assert.ok([200, 201].includes(first?.status ?? 0), `it was answered ${first?.status}`)
    }
    await expectStatus(await ana.get('a'), 200)
  })
})

describe('Expect', () => {
  const expectBody = 'Expect: 100-continue\r\n'

  it('is answered by 100 when the body is wanted', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const session = `Authorization: Bearer ${ana.token}\r\n`
    const login = JSON.stringify({ id: 'ana', password: 'wrong password' })
    const rows: [string, string, number][] = [
      [
        `PUT /store/a HTTP/1.1\r\n${HOST}${session}${expectBody}Content-Length: 5\r\n\r\n`,
        'value',
        201,
      ],
      [
        `PUT /store/b HTTP/1.1\r\n${HOST}${session}EXPECT: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n`,
        '1\r\nx\r\n0\r\n\r\n',
        201,
      ],
      [
        `POST /auth HTTP/1.1\r\n${HOST}${expectBody}Content-Length: ${login.length}\r\n\r\n`,
        login,
        401,
      ],
    ]
    for (const [head, body, status] of rows) {
      const wire = await openWire(t, node.port)
      wire.send(head)
      const first = await wire.answer()
      assert.equal(first?.status, 100)
      wire.send(body)
      assert.equal((await wire.answer())?.status, status)
    }
    assert.equal(await (await ana.get('a')).text(), 'value')
  })

  it('is refused at once when the body is not', async (t) => {
    const node = await startNode(t, { MAX_VALUE_SIZE: '1000' })
    const ana = await node.signUp('ana')
    await ana.save('there', 'value')
    const session = `Authorization: Bearer ${ana.token}\r\n`
    const rows: [string, string, number][] = [
      ['PUT /store/a', '', 401],
      ['PUT /store/there', session, 428],
      ['PUT /store/there', `${session}X-Sync-Token: 0\r\n`, 412],
      ['PUT /store/none', `${session}X-Sync-Token: 0\r\n`, 412],
      [`PUT /store/~${'a'.repeat(43)}`, session, 404],
      ['PUT /store/%00', session, 400],
      ['PUT /store/a', `${session}Content-Encoding: gzip\r\n`, 400],
      ['PUT /store/a', `${session}X-Sync-Meta: \xff\r\n`, 400],
      ['PUT /store/a', `${session}Repr-Digest: x\r\n`, 400],
      ['PUT /store/a', `${session}Content-Length: 1001\r\n`, 413],
      ['POST /auth', 'Content-Length: 9999999\r\n', 413],
      ['PATCH /store/a', session, 405],
      ['PUT /none', session, 404],
    ]
    for (const [start, headers, status] of rows) {
      const wire = await openWire(t, node.port)
      const length = headers.includes('Content-Length') ? '' : 'Content-Length: 5\r\n'
      wire.send(`${start} HTTP/1.1\r\n${HOST}${headers}${length}${expectBody}\r\n`)
      assert.equal((await wire.answer())?.status, status, `${start} ${headers}`)
    }
  })

  it('that is anything else is REQ01', async (t) => {
    const expect = (value: string): string => put(`Expect: ${value}\r\nContent-Length: 1\r\n`)
    const values = ['200-ok', '100-continue, x', MARK, '100-continue;a', '']
    await refuseAll(
      t,
      values.slice(0, 4).map((value): Row => [value, expect(value), 'REQ01', 400]),
    )
  })
})

describe('large headers', () => {
  const main = join(import.meta.dirname, '../src/main.ts')
  // What the executable is started with: Node's own limit is too small for what the protocol allows.
  const { execArgv } = JSON.parse(
    readFileSync(join(import.meta.dirname, '../sea-config.json'), 'utf8'),
  ) as { execArgv: string[] }

  async function startAsExecutable(t: TestContext) {
    const server = await install(t, [process.execPath, ...execArgv, main]).serve({
      HOST: '127.0.0.1',
    })
    const ana = remoteClient(server.url, await signUp(server.url, { id: 'ana' }))
    return { port: Number(new URL(server.url).port), ana, url: server.url }
  }

  for (const [name, character] of [
    ['Chinese', '語'],
    ['emoji', '🦀'],
  ] as const) {
    it(`carry a key of 8,000 characters and a meta of 8,000: ${name}`, async (t) => {
      const { port, ana } = await startAsExecutable(t)
      const target = `/store/${encodeURIComponent(character.repeat(8000))}`
      const session = `Authorization: Bearer ${ana.token}\r\n`
      const meta = 'm'.repeat(8000)
      const wire = await openWire(t, port)
      wire.send(
        `PUT ${target} HTTP/1.1\r\n${HOST}${session}X-Sync-Meta: ${meta}\r\nContent-Length: 5\r\n\r\nvalue`,
      )
      const made = await wire.answer()
      assert.ok(made)
      assert.equal(made.status, 201, made.text)
      wire.send(
        `GET ${target} HTTP/1.1\r\n${HOST}${session}If-Match: ${made.headers['etag']}\r\n\r\n`,
      )
      const read = await wire.answer()
      assert.equal(read?.body.toString(), 'value')
      assert.equal(read.headers['x-sync-meta'], meta)
      const longer = target + encodeURIComponent(character)
      wire.send(`GET ${longer} HTTP/1.1\r\n${HOST}${session}\r\n`)
      const row: Row = ['one more', '', 'REQ01', 400]
      assertRefused(await wire.answer(), row)
    })
  }

  it('beyond that are 431, and the server goes on', async (t) => {
    const { port, ana } = await startAsExecutable(t)
    for (const header of [`X-A: ${MARK.repeat(20_000)}`, `${MARK}: b\r\n`.repeat(20_000).trim()]) {
      const wire = await openWire(t, port)
      wire.send(`GET /health HTTP/1.1\r\n${HOST}${header}\r\n\r\n`)
      assertRefused(await wire.answer(), ['431', '', 'REQ01', 431])
    }
    await expectStatus(await ana.put('a', 'value'), 201)
    await expectProblem(
      await ana.put('a', 'value', { 'X-Sync-Meta': 'm'.repeat(9000) }),
      'REQ01',
      400,
    )
  })
})
