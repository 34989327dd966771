import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { routes } from '../src/http/app.ts'
import { CODES } from '../src/http/problem.ts'
import { openAccount } from './helpers/accounts.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { raw } from './helpers/raw.ts'
import { initOf, nameOf, requestFor, targetOf, type Subject } from './helpers/requests.ts'

type Json = Record<string, unknown>

const METHOD_NAMES = ['get', 'head', 'put', 'post', 'delete', 'options', 'trace', 'patch']

async function documentOf({ url }: TestNode): Promise<Json> {
  const answer = await fetch(`${url}/openapi.json`)
  assert.equal(answer.headers.get('content-type'), 'application/json')
  return (await answer.json()) as Json
}

/** Every object in the document, with the way to it. */
function* objectsIn(value: unknown, way: string[] = []): Generator<[string[], Json]> {
  if (typeof value !== 'object' || value === null) return
  if (!Array.isArray(value)) yield [way, value as Json]
  for (const [name, member] of Object.entries(value)) yield* objectsIn(member, [...way, name])
}

function* operationsOf(document: Json): Generator<[string, Json, Json]> {
  for (const [path, item] of Object.entries(document['paths'] as Record<string, Json>)) {
    for (const method of METHOD_NAMES) {
      const operation = item[method] as Json | undefined
      if (operation !== undefined) yield [`${method.toUpperCase()} ${path}`, operation, item]
    }
  }
}

function resolve(document: Json, reference: string): unknown {
  assert.match(reference, /^#\//)
  return reference
    .slice(2)
    .split('/')
    .map((part) => decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~'))
    .reduce<unknown>((found, part) => (found as Json | undefined)?.[part], document)
}

describe('/openapi.json', () => {
  it('has what OpenAPI 3.1 asks of a document', async (t) => {
    const document = await documentOf(await startNode(t))
    assert.match(String(document['openapi']), /^3\.1\.\d+$/)
    const info = document['info'] as Json
    for (const name of ['title', 'version']) assert.equal(typeof info[name], 'string')
    const known = [
      'openapi',
      'info',
      'servers',
      'paths',
      'components',
      'security',
      'tags',
      'externalDocs',
    ]
    for (const name of Object.keys(document)) assert.ok(known.includes(name), name)
    for (const [path, item] of Object.entries(document['paths'] as Json)) {
      assert.match(path, /^\//)
      for (const name of Object.keys(item as Json)) {
        assert.ok(['parameters', 'summary', 'description', ...METHOD_NAMES].includes(name), name)
      }
    }
  })

  it('resolves every $ref', async (t) => {
    const document = await documentOf(await startNode(t))
    let count = 0
    for (const [way, { $ref }] of objectsIn(document)) {
      if (typeof $ref !== 'string') continue
      count++
      assert.equal(typeof resolve(document, $ref), 'object', `${way.join('/')} -> ${$ref}`)
    }
    assert.ok(count > 0)
  })

  it('has every route, and no other', async (t) => {
    const document = await documentOf(await startNode(t))
    const operations = [...operationsOf(document)].map(([name]) => name)
    assert.deepEqual(operations.sort(), routes.map(nameOf).sort())
  })

  it('describes what every operation takes: its parameters, its session, its body', async (t) => {
    const document = await documentOf(await startNode(t))
    const ids = new Set<unknown>()
    for (const [name, operation, item] of operationsOf(document)) {
      const route = routes.find((one) => nameOf(one) === name)
      assert.ok(!ids.has(operation['operationId']), `${name} shares its operationId`)
      ids.add(operation['operationId'])
      const parameters = [item, operation].flatMap((of) => (of['parameters'] ?? []) as Json[])
      const inPath = parameters.filter((one) => one['in'] === 'path')
      const expected = [...name.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter)
      assert.deepEqual(
        inPath.map((one) => one['name']),
        expected,
      )
      assert.ok(inPath.every((one) => one['required'] === true))
      for (const one of parameters) assert.ok(one['name'] && one['in'] && one['schema'], name)
      const security = route?.session === true ? [{ session: [] }] : undefined
      assert.deepEqual(operation['security'], security, name)
      assert.equal('requestBody' in operation, Boolean(route?.body ?? route?.takesValue), name)
    }
  })

  it('describes every answer, the refusals that any route may give too', async (t) => {
    const document = await documentOf(await startNode(t))
    for (const [name, operation] of operationsOf(document)) {
      const answers = operation['responses'] as Record<string, Json>
      for (const [status, answer] of Object.entries(answers)) {
        assert.match(status, /^[2-5]\d\d$/)
        assert.equal(typeof answer['description'], 'string', `${name} ${status}`)
      }
      const needsSession = 'security' in operation
      for (const status of ['400', '500', ...(needsSession ? ['401'] : [])]) {
        assert.ok(status in answers, `${name} ${status}`)
      }
    }
  })

  it('has schemas that compile, and know every code', async (t) => {
    const document = await documentOf(await startNode(t))
    const ajv = new Ajv2020({ strict: false, logger: false })
    ajv.addSchema(document, 'openapi')
    let count = 0
    for (const [way] of objectsIn(document)) {
      if (way.at(-1) !== 'schema' && way.at(-2) !== 'schemas') continue
      const pointer = way.map((part) => part.replaceAll('~', '~0').replaceAll('/', '~1'))
      const $ref = `openapi#/${pointer.map(encodeURIComponent).join('/')}`
      assert.equal(typeof ajv.compile({ $ref }), 'function')
      assert.ok(ajv.validateSchema(resolve(document, `#/${pointer.join('/')}`) as Json), $ref)
      count++
    }
    assert.ok(count > routes.length)
    const problem = resolve(document, '#/components/schemas/Problem') as {
      properties: { code: { enum: string[] } }
    }
    assert.deepEqual(problem.properties.code.enum, CODES)
  })
})

describe('An answer of any route, and every refusal', () => {
  it('says what it is, and no browser runs, frames or guesses at it', async (t) => {
    const node = await startNode(t)
    const hush = async (answer: Response, why: string): Promise<void> => {
      const of = (name: string): string => answer.headers.get(name) ?? ''
      const isValue = of('content-disposition') === 'attachment'
      const policy = isValue
        ? /^sandbox; default-src 'none'$/
        : /base-uri 'none'.*frame-ancestors 'none'/
      if (answer.status !== 304) assert.match(of('content-security-policy'), policy, why)
      assert.match(of('content-security-policy'), /default-src 'none'/, why)
      assert.equal(of('x-content-type-options'), 'nosniff', why)
      assert.equal(answer.headers.has('set-cookie') || answer.headers.has('server'), false, why)
      const type = of('content-type')
      if ((await answer.text()) !== '') assert.match(type, /^(application|text)\//, why)
      if (/^text\/(?!event-stream)/.test(type)) assert.match(type, /; charset=utf-8$/, why)
    }
    for (const route of routes) {
      const { request, headers } = await prepare(node)
      const prepared = requestFor(route, request)
      const target = targetOf(prepared)
      await hush(await node.request(target, initOf(route.method, prepared, headers)), nameOf(route))
      await hush(await fetch(`${node.url}${target}?surplus`, { method: route.method }), 'refused')
    }
    await hush(await fetch(`${node.url}/nothing`), 'not found')
    await hush(await fetch(`${node.url}/store/a//b`), 'early')
  })
})

describe('CORS', () => {
  const ALLOWED = [
    'Authorization',
    'Content-Type',
    'If-Match',
    'If-None-Match',
    'If-Range',
    'Range',
    'Content-Digest',
    'Repr-Digest',
    'Last-Event-ID',
    'X-Sync-Token',
    'X-Sync-Meta',
  ].map((name) => name.toLowerCase())

  // What a browser shows a script without being told to.
  const SAFE = [
    'cache-control',
    'content-language',
    'content-length',
    'content-type',
    'expires',
    'last-modified',
    'pragma',
  ]
  // Of the connection.
  const NOT_OURS = ['connection', 'date', 'keep-alive', 'transfer-encoding', 'vary']
  // For the browser itself; the protocol has them exposed all the same.
  const FOR_BROWSERS = ['x-content-type-options', 'content-security-policy']
  // Of a page, which no script of another origin asks for.
  const OF_PAGES = ['referrer-policy']

  const listOf = (answer: Response, name: string): string[] =>
    (answer.headers.get(name) ?? '').toLowerCase().split(/, */).filter(Boolean)

  function expectOpen(answer: Response, why: string): void {
    const { headers } = answer
    assert.equal(headers.get('access-control-allow-origin'), '*', why)
    assert.equal(headers.get('access-control-allow-credentials'), null, why)
    assert.equal(headers.get('x-content-type-options'), 'nosniff', why)
    const exposed = listOf(answer, 'access-control-expose-headers')
    assert.ok(!exposed.includes('*'), 'by name')
    for (const name of headers.keys()) {
      if (name.startsWith('access-control-') || NOT_OURS.includes(name)) continue
      assert.ok(
        [...SAFE, ...FOR_BROWSERS, ...OF_PAGES, ...exposed].includes(name),
        `${why}: ${name} is not exposed`,
      )
    }
  }

  it('answers a preflight for every path, whoever asks', async (t) => {
    const node = await startNode(t)
    const paths = [...new Set(routes.map(({ path }) => path.replace(/\{\w+\}/, 'a')))]
    for (const path of [...paths, '/nothing', '/store/a%00', '/store/a?x=1']) {
      const answer = await node.request(path, {
        method: 'OPTIONS',
        headers: {
          Origin: 'https://app.example',
          'Access-Control-Request-Method': 'PUT',
          'Access-Control-Request-Headers': 'authorization,x-sync-token',
        },
      })
      await expectStatus(answer, 204)
      assert.equal(answer.headers.get('access-control-allow-origin'), '*')
      assert.equal(answer.headers.get('access-control-allow-credentials'), null)
      const methods = listOf(answer, 'access-control-allow-methods')
      for (const method of ['get', 'head', 'put', 'post', 'delete'])
        assert.ok(methods.includes(method))
      const allowed = listOf(answer, 'access-control-allow-headers')
      for (const name of ALLOWED) assert.ok(allowed.includes(name), name)
      assert.ok(!allowed.includes('*'), 'a * does not cover Authorization')
    }
  })

  it('exposes every header that the protocol names', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await ana.save('a', 'x', { 'X-Sync-Meta': 'm' })
    const exposed = listOf(await ana.get('a'), 'access-control-expose-headers')
    for (const name of [
      'accept-ranges',
      'allow',
      'content-disposition',
      'content-range',
      'etag',
      'repr-digest',
      'retry-after',
      'www-authenticate',
      'x-sync-key',
      'x-sync-meta',
      'x-sync-quota-limit',
      'x-sync-quota-used',
      'x-sync-token',
      ...FOR_BROWSERS,
    ]) {
      assert.ok(exposed.includes(name), name)
    }
  })

  it('shows a script every header of an answer to any route', async (t) => {
    const node = await startNode(t)
    for (const route of routes) {
      const { request, headers } = await prepare(node)
      const prepared = requestFor(route, request)
      const answer = await node.request(targetOf(prepared), initOf(route.method, prepared, headers))
      expectOpen(answer, nameOf(route))
      const isValue = route.path === '/store/{key}' && ['GET', 'HEAD'].includes(route.method)
      const isPage = ['text/html', 'text/css', 'text/javascript'].some((type) =>
        answer.headers.get('content-type')?.startsWith(type),
      )
      const caching = isValue ? 'private, no-cache, no-transform' : isPage ? 'no-cache' : 'no-store'
      assert.equal(answer.headers.get('cache-control'), caching, nameOf(route))
    }
  })

  it('shows it every header of a value, of a part of it, and of a refusal', async (t) => {
    const node = await startNode(t, { QUOTA: '100' })
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('a', 'value', { 'X-Sync-Meta': 'm' })
    for (const [status, answer] of [
      [200, await ana.get('a')],
      [206, await ana.get('a', { Range: 'bytes=0-1' })],
      [304, await ana.get('a', { 'If-None-Match': token })],
      [416, await ana.get('a', { Range: 'bytes=9-' })],
      [400, await ana.get('a%00')],
      [401, await node.request('/store/a')],
      [404, await ana.get('b')],
      [405, await ana.request('/store/a', { method: 'PATCH' })],
      [412, await ana.put('a', 'x', { 'If-None-Match': '*' })],
      [428, await ana.put('a', 'x')],
      [507, await ana.put('b', 'x'.repeat(101))],
    ] as const) {
      if (status !== 400) assert.equal(answer.status, status)
      expectOpen(answer, String(status))
    }
  })

  it('and no-store are on what is refused before routing too', async (t) => {
    const node = await startNode(t)
    for (const lines of [
      ['TRACE /store/a HTTP/1.1'],
      ['CONNECT localhost:80 HTTP/1.1'],
      ['FOO /store/a HTTP/1.1'],
      ['GET /store/a\\b HTTP/1.1'],
      ['GET /store/a HTTP/1.1', 'Authorization: a', 'Authorization: b'],
      ['GET /store/a HTTP/1.1', 'Expect: a miracle'],
      ['GET /store/a HTTP/1.1', `X-Large: ${'x'.repeat(200_000)}`],
    ]) {
      const answer = await raw(t, node, lines)
      const why = lines.join(', ').slice(0, 80)
      expectOpen(answer, why)
      assert.equal(answer.headers.get('cache-control'), 'no-store', why)
      assert.equal(answer.headers.get('content-type'), 'application/problem+json', why)
    }
  })
})

let subjects = 0

/** An OWN of a store that is shared with a friend, and what a request of each route is about. */
async function prepare(
  node: TestNode,
): Promise<{ request: Subject; headers: Record<string, string> }> {
  const id = `person ${subjects++}`
  const self = await openAccount(node, id)
  const friend = await openAccount(node, `friend of ${id}`)
  const { key, token } = await self.save('a', 'as it was')
  await expectStatus(await self.grant('a', friend.user, 'READ'), 200)
  const [session] = (await (await self.request('/account')).json()) as { token: string }[]
  return {
    headers: self.headers,
    request: {
      key,
      token,
      friend: friend.user,
      session: session?.token as string,
      newId: `new ${id}`,
      login: id,
    },
  }
}

describe('what a request has that is not known', () => {
  const NAMES = ['nonsense', 'Users', 'constructor', '__proto__', 'toString', 'hasOwnProperty', '']

  it('is REQ01 in the query of every route', async (t) => {
    const node = await startNode(t)
    const { request, headers } = await prepare(node)
    for (const route of routes) {
      const prepared = requestFor(route, request)
      for (const name of NAMES) {
        const query = `${prepared.query === undefined ? '' : `${prepared.query}&`}${name}=1`
        const target = targetOf({ ...prepared, query })
        const answer = await node.request(target, initOf(route.method, prepared, headers))
        assert.equal(answer.status, 400, `${route.method} ${target}`)
        if (route.method === 'HEAD') continue
        const { detail } = await expectProblem(answer, 'REQ01', 400)
        if (name !== '') assert.ok(!String(detail).includes(name), String(detail))
      }
    }
    assert.equal((await node.request(`/store/${request.key}`, { headers })).status, 200)
  })

  it('is REQ01 in the JSON of every route that takes some', async (t) => {
    const node = await startNode(t)
    const { request, headers } = await prepare(node)
    for (const route of routes.filter(({ body }) => body !== undefined)) {
      const prepared = requestFor(route, request)
      const json = JSON.stringify(prepared.json)
      for (const name of NAMES) {
        // As text: an object literal would take __proto__ for its prototype.
        const body = json.replace('{', `{${JSON.stringify(name)}:1,`)
        const init = initOf(route.method, { ...prepared, body }, headers)
        const answer = await node.request(targetOf(prepared), init)
        const { detail } = await expectProblem(answer, 'REQ01', 400)
        if (name !== '') assert.ok(!String(detail).includes(name), String(detail))
      }
    }
  })

  it('is REQ01 when the body is no JSON, or not what the route takes', async (t) => {
    const node = await startNode(t)
    const { request, headers } = await prepare(node)
    const invalid = [
      '',
      '{',
      '[]',
      'null',
      '1',
      '"x"',
      '{}',
      '[{}]',
      '[[]]',
      '{"a":1}x',
      '\ufeff{}',
    ]
    for (const route of routes.filter(({ body }) => body !== undefined)) {
      const prepared = requestFor(route, request)
      for (const body of [...invalid, Buffer.from([0x22, 0xff, 0x22])]) {
        const answer = await node.request(targetOf(prepared), {
          method: route.method,
          headers,
          body,
        })
        await expectProblem(answer, 'REQ01', 400)
      }
    }
  })

  it('is not looked at before the session', async (t) => {
    const node = await startNode(t)
    const { request } = await prepare(node)
    for (const route of routes.filter(({ session }) => session)) {
      const prepared = requestFor(route, request)
      const target = targetOf({ ...prepared, query: 'nonsense=1' })
      const answer = await node.request(target, initOf(route.method, prepared, {}))
      assert.equal(answer.status, 401, nameOf(route))
    }
  })
})
