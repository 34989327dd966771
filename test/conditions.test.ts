import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { openAccount, openAccounts } from './helpers/accounts.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'

type Headers = Record<string, string>

const OTHER = '0123456789abcdefghijklmnop'
const VERSION_HEADERS = ['x-sync-token', 'etag', 'repr-digest', 'x-sync-meta']

/** What proxies and clients make of the ETag `"t"`. */
const formsOf = (t: string): string[] => [
  `"${t}"`,
  `W/"${t}"`,
  `"${t}-gzip"`,
  `W/"${t}-gzip"`,
  `"${t}-br"`,
  `"${t};gzip"`,
  t,
  `${t}-gzip`,
  `W/${t}`,
  `"${OTHER}", "${t}"`,
  `"${t}","${OTHER}"`,
  `"foreign/tag", W/"${OTHER}-gzip" , ${t}`,
]

/** What looks like it, and is another tag. */
const notFormsOf = (t: string): string[] => [
  `"${OTHER}"`,
  `W/"${OTHER}"`,
  `"${OTHER}", "${OTHER}-gzip"`,
  `"${t.slice(0, -1)}"`,
  `"${t}0"`,
  `"0${t}"`,
  `"${t}-x"`,
  `"${t.toUpperCase()}"`,
  `"${'0'.repeat(65)}"`,
  '"*"',
  '""',
]

async function startWithStore(t: TestContext) {
  const node = await startNode(t)
  const ana = await openAccount(node, 'ana')
  const saved = await ana.save('a', 'one', { 'X-Sync-Meta': 'm' })
  return { node, ana, ...saved }
}

const remove = (self: Client, key: string, headers: Headers): Promise<Response> =>
  self.request(`/store/${key}`, { method: 'DELETE', headers })

const digestOf = (value: string): string =>
  `sha-256=:${createHash('sha256').update(value).digest('base64')}:`

function expectVersion(
  response: Response,
  expected: { token: string; value: string; meta: string | null },
) {
  const { headers } = response
  assert.equal(headers.get('x-sync-token'), expected.token)
  assert.equal(headers.get('etag'), `"${expected.token}"`)
  assert.equal(headers.get('repr-digest'), digestOf(expected.value))
  assert.equal(headers.get('x-sync-meta'), expected.meta)
}

function expectNoVersion(response: Response): void {
  for (const name of VERSION_HEADERS) assert.equal(response.headers.get(name), null, name)
}

describe('the token of a write', () => {
  it('is understood in every form that a proxy gives an ETag', async (t) => {
    const { ana, token: first } = await startWithStore(t)
    let token = first
    for (let i = 0; i < formsOf(token).length; i++) {
      const header = formsOf(token)[i] as string
      const written = await ana.put('a', `value ${i}`, { 'If-Match': header })
      assert.equal(written.status, 204, header)
      token = written.headers.get('x-sync-token') as string
    }
  })

  it('is not found in what only resembles it, and nothing changes', async (t) => {
    const { ana, token } = await startWithStore(t)
    for (const header of notFormsOf(token)) {
      for (const refused of [
        await ana.put('a', 'two', { 'If-Match': header }),
        await remove(ana, 'a', { 'If-Match': header }),
      ]) {
        expectVersion(refused, { token, value: 'one', meta: 'm' })
        await expectProblem(refused, 'KEY01', 412)
      }
    }
    assert.equal(await (await ana.get('a')).text(), 'one')
  })

  it('may stand in X-Sync-Token, in If-Match, or alike in both', async (t) => {
    const { ana, token: first } = await startWithStore(t)
    let token = first
    for (const headersOf of [
      (tag: string) => ({ 'X-Sync-Token': tag }),
      (tag: string) => ({ 'X-Sync-Token': tag, 'If-Match': `"${tag}"` }),
      (tag: string) => ({ 'X-Sync-Token': tag, 'If-Match': `W/"${tag}-gzip"` }),
      () => ({ 'X-Sync-Token': '*' }),
      () => ({ 'If-Match': '*' }),
      () => ({ 'X-Sync-Token': '*', 'If-Match': '*' }),
    ]) {
      const written = await expectStatus(await ana.put('a', 'next', headersOf(token)), 204)
      assert.notEqual(written.headers.get('x-sync-token'), token)
      token = written.headers.get('x-sync-token') as string
    }
  })

  it('deletes in every form too', async (t) => {
    const { ana } = await startWithStore(t)
    for (const form of [...formsOf('').keys()].map((i) => (tag: string) => formsOf(tag)[i])) {
      const { token } = await ana.save('b', 'x')
      await expectStatus(await remove(ana, 'b', { 'If-Match': form(token) as string }), 204)
    }
    for (const headers of [{ 'If-Match': '*' }, { 'X-Sync-Token': '*' }]) {
      await ana.save('b', 'x')
      await expectStatus(await remove(ana, 'b', headers), 204)
      await expectProblem(await ana.get('b'), 'ERR01', 404)
    }
  })

  it('makes no sense with a contradiction beside it: REQ01, and nothing changes', async (t) => {
    const { ana, token } = await startWithStore(t)
    const contradictions: Headers[] = [
      { 'X-Sync-Token': token, 'If-Match': `"${OTHER}"` },
      { 'X-Sync-Token': OTHER, 'If-Match': `"${token}"` },
      { 'X-Sync-Token': token, 'If-Match': '*' },
      { 'X-Sync-Token': '*', 'If-Match': `"${token}"` },
      { 'If-Match': `"${token}"`, 'If-None-Match': '*' },
      { 'If-Match': '*', 'If-None-Match': '*' },
      { 'X-Sync-Token': token, 'If-None-Match': '*' },
      { 'If-None-Match': `"${token}"` },
      { 'If-None-Match': `"${OTHER}"` },
      { 'If-None-Match': `*, "${OTHER}"` },
    ]
    for (const headers of contradictions) {
      await expectProblem(await ana.put('a', 'two', headers), 'REQ01', 400)
      await expectProblem(await ana.put('nothing', 'two', headers), 'REQ01', 400)
      await expectProblem(await remove(ana, 'a', headers), 'REQ01', 400)
    }
    const read = await ana.get('a')
    expectVersion(read, { token, value: 'one', meta: 'm' })
    await expectProblem(await ana.get('nothing'), 'ERR01', 404)
  })
})

describe('a refused token', () => {
  it('comes back with what is there: 412 for a wrong one, 428 for none', async (t) => {
    const { ana, token } = await startWithStore(t)
    const bare = await ana.save('bare', 'no meta')
    for (const [headers, status] of [
      [{ 'X-Sync-Token': OTHER }, 412],
      [{ 'If-Match': `"${OTHER}"` }, 412],
      [{ 'If-None-Match': '*' }, 412],
      [{}, 428],
    ] as const) {
      for (const call of [
        (key: string) => ana.put(key, 'x', headers),
        (key: string) => remove(ana, key, headers),
      ]) {
        const withMeta = await call('a')
        expectVersion(withMeta, { token, value: 'one', meta: 'm' })
        await expectProblem(withMeta, 'KEY01', status)
        const without = await call('bare')
        expectVersion(without, { token: bare.token, value: 'no meta', meta: null })
        await expectProblem(without, 'KEY01', status)
      }
    }
  })

  it('on nothing is 412 without token headers for PUT, 404 for DELETE', async (t) => {
    const { ana } = await startWithStore(t)
    for (const headers of [
      { 'X-Sync-Token': OTHER },
      { 'X-Sync-Token': '*' },
      { 'If-Match': `"${OTHER}"` },
      { 'If-Match': '*' },
    ]) {
      const refused = await ana.put('nothing', 'x', headers)
      expectNoVersion(refused)
      await expectProblem(refused, 'KEY01', 412)
      await expectProblem(await remove(ana, 'nothing', headers), 'ERR01', 404)
    }
    await expectProblem(await remove(ana, 'nothing', {}), 'ERR01', 404)
    await expectProblem(await remove(ana, 'nothing', { 'If-None-Match': '*' }), 'ERR01', 404)
    await expectProblem(await ana.get('nothing'), 'ERR01', 404)
  })

  it('of a store that was deleted is 412 too, and the name takes a new one', async (t) => {
    const { ana, token } = await startWithStore(t)
    await expectStatus(await ana.delete('a', token), 204)
    const refused = await ana.put('a', 'x', { 'X-Sync-Token': token })
    expectNoVersion(refused)
    await expectProblem(refused, 'KEY01', 412)
    const again = await ana.save('a', 'one', { 'If-None-Match': '*' })
    assert.notEqual(again.token, token)
  })
})

describe('If-None-Match and If-Match of a read', () => {
  it('answer 304 without a body when a tag is current, in every form', async (t) => {
    const { ana, token, key } = await startWithStore(t)
    for (const header of [...formsOf(token), '*']) {
      for (const read of [
        await ana.get('a', { 'If-None-Match': header }),
        await ana.request('/store/a', { method: 'HEAD', headers: { 'If-None-Match': header } }),
      ]) {
        assert.equal(read.status, 304, header)
        assert.equal(read.headers.get('x-sync-token'), token)
        assert.equal(read.headers.get('etag'), `"${token}"`)
        assert.equal(read.headers.get('x-sync-key'), key)
        assert.equal(await read.text(), '')
      }
    }
  })

  it('answer 200 when none is', async (t) => {
    const { ana, token } = await startWithStore(t)
    for (const header of notFormsOf(token)) {
      const read = await ana.get('a', { 'If-None-Match': header })
      assert.equal(read.status, 200, header)
      assert.equal(await read.text(), 'one')
    }
  })

  it('answer 412 when If-Match names another version', async (t) => {
    const { ana, token } = await startWithStore(t)
    for (const header of [...formsOf(token), '*']) {
      assert.equal((await ana.get('a', { 'If-Match': header })).status, 200, header)
    }
    for (const header of notFormsOf(token)) {
      const refused = await ana.get('a', { 'If-Match': header })
      expectVersion(refused, { token, value: 'one', meta: 'm' })
      await expectProblem(refused, 'KEY01', 412)
    }
  })

  it('do not hide that there is nothing', async (t) => {
    const { ana } = await startWithStore(t)
    for (const name of ['If-None-Match', 'If-Match']) {
      for (const value of ['*', `"${OTHER}"`]) {
        await expectProblem(await ana.get('nothing', { [name]: value }), 'ERR01', 404)
      }
    }
  })
})

describe('the order of refusals', () => {
  const BAD_KEY = '/store/a%00'
  const WRONG: Headers = { 'X-Sync-Token': OTHER }
  const ABSURD: Headers = { 'If-Match': '*', 'If-None-Match': '*' }

  it('has the session first, a remembered one that ended too', async (t) => {
    const { node, ana } = await startWithStore(t)
    await expectStatus(await ana.request('/auth', { method: 'DELETE' }), 204)
    for (const headers of [ana.headers, {}, { Authorization: `Bearer ${'x'.repeat(43)}` }]) {
      for (const method of ['GET', 'PUT', 'DELETE']) {
        for (const path of [BAD_KEY, '/store/a?x=1', '/store/a', '/store/nothing']) {
          const answer = await node.request(path, { method, headers: { ...headers, ...ABSURD } })
          await expectProblem(answer, 'AUTH01', 401)
          assert.equal(answer.headers.get('www-authenticate'), 'Bearer')
        }
      }
    }
  })

  it('has the key second', async (t) => {
    const { ana } = await startWithStore(t)
    for (const method of ['GET', 'PUT', 'DELETE']) {
      await expectProblem(await ana.request(BAD_KEY, { method, headers: WRONG }), 'REQ01', 400)
    }
  })

  it('has the permission third, and the token last', async (t) => {
    const { node, ana, key } = await startWithStore(t)
    const [ben, cara, dora] = await openAccounts(node, ['ben', 'cara', 'dora'])
    await expectStatus(await ana.grant('a', 'ben', 'READ'), 200)
    await expectStatus(await ana.grant('a', 'cara', 'WRITE'), 200)
    for (const headers of [WRONG, {}, { 'If-None-Match': '*' }]) {
      await expectProblem(await dora.put(key, 'x', headers), 'ERR01', 404)
      await expectProblem(await remove(dora, key, headers), 'ERR01', 404)
      await expectProblem(await ben.put(key, 'x', headers), 'PERM01', 403)
      await expectProblem(await remove(ben, key, headers), 'PERM01', 403)
      await expectProblem(await remove(cara, key, headers), 'PERM01', 403)
      await expectProblem(await cara.put(key, 'x', headers), 'KEY01')
      await expectProblem(await remove(ana, key, headers), 'KEY01')
    }
  })
})
