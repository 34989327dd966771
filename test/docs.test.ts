import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { buildPage } from '../scripts/web.ts'
import { routes } from '../src/http/app.ts'
import { CODES } from '../src/http/problem.ts'
import {
  expectAccessible,
  expectNoSidewaysScroll,
  openBrowser,
  openPage,
  skip,
} from './helpers/browser.ts'
import { startNode } from './helpers/node.ts'

// The account page, which /docs links to, is bundled by the build.
before(buildPage)

describe('/docs', () => {
  it('is HTML that nothing may run in, and asks nothing of others', async (t) => {
    const node = await startNode(t)
    const answer = await node.request('/docs')
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('content-type'), 'text/html; charset=utf-8')
    assert.equal(answer.headers.get('referrer-policy'), 'no-referrer')
    const policy = answer.headers.get('content-security-policy') ?? ''
    assert.match(policy, /^default-src 'none'; style-src 'sha256-[\w+/=]+';/)
    assert.match(policy, /frame-ancestors 'none'/)
    const text = await answer.text()
    assert.doesNotMatch(text, /<script|<img|<link|<iframe|javascript:|\son\w+=|https?:\/\//i)
  })

  it('is asked for again by its ETag', async (t) => {
    const node = await startNode(t)
    const etag = (await node.request('/docs')).headers.get('etag') as string
    for (const tag of [etag, `W/${etag}`, `"other", ${etag}`]) {
      const answer = await node.request('/docs', { headers: { 'If-None-Match': tag } })
      assert.equal(answer.status, 304, tag)
      assert.equal(answer.headers.get('etag'), etag)
      assert.equal(await answer.text(), '')
    }
    const other = await node.request('/docs', { headers: { 'If-None-Match': '"other"' } })
    assert.equal(other.status, 200)
    const head = await fetch(`${node.url}/docs`, { method: 'HEAD' })
    assert.equal(head.headers.get('etag'), etag)
  })

  it('has every route with its parameters, answers and errors, and every code', async (t) => {
    const node = await startNode(t)
    const text = await (await node.request('/docs')).text()
    for (const { method, path, summary } of routes) {
      assert.ok(text.includes(`<b>${method}</b> <code>${path}</code>`), `${method} ${path}`)
      assert.ok(text.includes(`${summary.replaceAll("'", '&#39;')}.`), summary)
    }
    for (const code of CODES) assert.ok(text.includes(`<tr id="${code}">`), code)
    for (const name of ['If-None-Match', 'X-Sync-Meta', 'since', 'users', 'invitation?: string']) {
      assert.ok(text.includes(name), name)
    }
  })

  it('links only to what is there', async (t) => {
    const node = await startNode(t)
    const text = await (await node.request('/docs')).text()
    const ids = [...text.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id)
    assert.equal(new Set(ids).size, ids.length)
    for (const [, target = ''] of text.matchAll(/href="([^"]+)"/g)) {
      if (target.startsWith('#')) assert.ok(ids.includes(target.slice(1)), target)
      else assert.equal((await node.request(target)).status, 200, target)
    }
  })
})

describe('/docs in a browser', { skip }, () => {
  it('is accessible and fits, on a desk and on a phone', async (t) => {
    const node = await startNode(t)
    const context = await openBrowser(t)
    const page = await openPage(t, context, `${node.url}/docs`)
    for (const width of [1200, 360]) {
      await page.setViewportSize({ width, height: 800 })
      await expectNoSidewaysScroll(page)
      await expectAccessible(page, `docs-${width}`)
    }
  })
})
