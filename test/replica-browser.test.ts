import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import type { BrowserContext, Page } from 'playwright-core'
import { buildClient } from '../scripts/client.ts'
import { connect } from '../src/client/client.ts'
import { openBrowser, openPage, skip } from './helpers/browser.ts'
import { startNode } from './helpers/node.ts'

// An app of the built files. The test answers for them, so that they load offline, as from a service worker.
const APP = `<!doctype html><title>app</title><script type="module">
import { connect } from '/app/client.js'
import { indexedDbStore, openReplica } from '/app/replica.js'
const text = (bytes) => bytes && new TextDecoder().decode(bytes)
globalThis.begin = async (token) => {
  const client = connect({ url: location.origin, token, retry: { baseMs: 1 } })
  const local = await indexedDbStore('notes')
  const merge = ({ local, remote }) => local ?? remote
  const replica = await openReplica({ client, local, merge })
  globalThis.replica = replica
  globalThis.read = async (id) => text(await replica.get(id))
}
globalThis.isReady = true
</script>`

/** The app in a tab of its own, begun on this session. */
async function openTab(
  t: Parameters<typeof openPage>[0],
  context: BrowserContext,
  { url, token }: { url: string; token: string },
): Promise<Page> {
  const page = await openPage(t, context, `${url}/app/`)
  await page.waitForFunction('globalThis.isReady')
  await page.evaluate(`begin(${JSON.stringify(token)})`)
  return page
}

async function openApp(t: Parameters<typeof openPage>[0]): Promise<BrowserContext> {
  await buildClient({ isQuiet: true })
  const context = await openBrowser(t)
  await context.route('**/app/**', (route) => {
    const name = /\w+\.js$/.exec(route.request().url())?.[0]
    if (name === undefined) return route.fulfill({ body: APP, contentType: 'text/html' })
    const body = readFileSync(new URL(`../dist/${name}`, import.meta.url), 'utf8')
    return route.fulfill({ body, contentType: 'text/javascript' })
  })
  return context
}

const isIn = (page: Page, state: string) =>
  page.waitForFunction(`replica.status().state === '${state}'`)

/** Resolves when the tab reads `text` under `id`. */
const reads = async (page: Page, id: string, text: string): Promise<void> => {
  await page.evaluate(`new Promise((resolve) => {
    const look = async () => { if (await read('${id}') === '${text}') resolve() }
    replica.subscribe(look)
    look()
  })`)
}

describe('A replica in IndexedDB', { skip }, () => {
  it('is shared by tabs of which one syncs, and survives a reload', async (t) => {
    const node = await startNode(t)
    const { token } = await node.signUp('ana')
    const { url } = node
    const elsewhere = connect({ url, token })
    const context = await openApp(t)
    const first = await openTab(t, context, { url, token })
    await isIn(first, 'live')
    const second = await openTab(t, context, { url, token })
    await isIn(second, 'waiting')
    await second.evaluate(`replica.put('a', 'of the second tab')`)
    await reads(first, 'a', 'of the second tab')
    await first.evaluate('replica.synced()')
    await second.waitForFunction('replica.status().pending === 0')
    const current = await elsewhere.store('a').get()
    assert.equal(new TextDecoder().decode(current?.value), 'of the second tab')
    await elsewhere.store('a').put('from elsewhere', { token: '*' })
    await reads(second, 'a', 'from elsewhere')

    await first.close()
    await isIn(second, 'live')
    await context.setOffline(true)
    await second.evaluate(`replica.put('a', 'offline')`)
    await second.evaluate(`replica.put('gone', 'offline').then(() => replica.delete('gone'))`)
    await second.reload().catch(() => undefined)
    const third = await openTab(t, context, { url, token })
    await reads(third, 'a', 'offline')
    assert.equal(await third.evaluate('replica.status().pending'), 1)
    await context.setOffline(false)
    await third.evaluate('replica.synced()')
    const { stores } = await elsewhere.list()
    assert.deepEqual(
      stores.map(({ name }) => name),
      ['a'],
    )
    const after = await elsewhere.store('a').get()
    assert.equal(new TextDecoder().decode(after?.value), 'offline')
  })
})
