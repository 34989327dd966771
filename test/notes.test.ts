// Owns the proof that an app of the public client works where people use it: the notes app of test/notes
// on several devices, each a browser with a profile of its own, on a real server.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { before, describe, it, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import type { BrowserContext, Locator, Page } from 'playwright-core'
import { connect, type Current } from '../src/client/client.ts'
import { openBrowser, openPage, skip } from './helpers/browser.ts'
import { eventually } from './helpers/eventually.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'
import { decode } from './notes/note.ts'

const APP = fileURLToPath(new URL('notes/', import.meta.url))
// The longest pause of the client after failures is half of it.
const GIVE_UP_MS = 60_000

const files = new Map([['/notes/', { type: 'text/html', body: readFileSync(`${APP}index.html`) }]])

before(async () => {
  const { outputFiles } = await build({
    entryPoints: [`${APP}notes.ts`],
    bundle: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'warning',
  })
  const body = Buffer.from(outputFiles[0]?.contents ?? [])
  files.set('/notes/notes.js', { type: 'text/javascript', body })
})

interface App {
  url: string
  /** Where it finds its sync server. */
  server: string
}

type Handle = (asked: IncomingMessage, answer: ServerResponse) => void

/** Serves the app's files with this policy, and hands on what else is asked. */
async function listen(t: TestContext, policy: string, handle: Handle): Promise<string> {
  const app = createServer((asked, answer) => {
    const file = files.get(asked.url ?? '')
    if (file === undefined) return handle(asked, answer)
    answer.setHeader('Content-Type', `${file.type}; charset=utf-8`)
    answer.setHeader('Content-Security-Policy', policy)
    answer.end(file.body)
  })
  app.listen(0, '127.0.0.1')
  await once(app, 'listening')
  t.after(() => {
    app.close()
    app.closeAllConnections()
  })
  return `http://127.0.0.1:${(app.address() as AddressInfo).port}`
}

const policyFor = (server: string): string =>
  `default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src ${server}`

/** The app on an origin of its own. */
async function serveApart(t: TestContext, node: TestNode): Promise<App> {
  const origin = await listen(t, policyFor(node.url), (_, answer) => answer.writeHead(404).end())
  return { url: `${origin}/notes/`, server: node.url }
}

/** The app and the server behind one origin, as a reverse proxy has them. */
async function serveTogether(t: TestContext, node: TestNode): Promise<App> {
  const origin = await listen(t, policyFor(`'self'`), (asked, answer) => {
    const { method = 'GET', url = '/', headers } = asked
    const passed = request(node.url + url, { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode ?? 502, answered.headers)
      answered.on('error', () => answer.destroy())
      answered.pipe(answer)
    })
    passed.on('error', () => (answer.headersSent ? answer.destroy() : answer.writeHead(502).end()))
    answer.on('close', () => passed.destroy())
    asked.pipe(passed)
  })
  return { url: `${origin}/notes/`, server: origin }
}

interface Device {
  context: BrowserContext
  page: Page
  app: App
}

/** The app in two browsers; nobody is logged in. */
async function openTwo(t: TestContext, app: App): Promise<[Device, Device]> {
  // Both before their pages: a page that fails its checks at the end leaves what was opened after it.
  const contexts = [await openBrowser(t), await openBrowser(t)] as const
  const open = async (context: BrowserContext): Promise<Device> => {
    context.setDefaultTimeout(GIVE_UP_MS)
    return { context, app, page: await openPage(t, context, app.url, [app.server]) }
  }
  return [await open(contexts[0]), await open(contexts[1])]
}

async function enter(
  { page, app }: Device,
  press: 'Log in' | 'Register',
  id: string,
): Promise<void> {
  await page.getByLabel('Server').fill(app.server)
  await page.getByLabel('User name').fill(id)
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: press }).click()
  await shows({ page }, 'Synced')
}

/** Two devices of a new account. */
async function openAna(t: TestContext, app: App): Promise<[Device, Device]> {
  const [phone, laptop] = await openTwo(t, app)
  await enter(phone, 'Register', 'ana')
  await enter(laptop, 'Log in', 'ana')
  return [phone, laptop]
}

type OnPage = Pick<Device, 'page'>

/** Resolves when the status line says so. */
const shows = ({ page }: OnPage, status: string): Promise<void> =>
  page.getByRole('status').getByText(status, { exact: true }).waitFor()

const listed = ({ page }: OnPage, label: string): Locator =>
  page.getByRole('list', { name: 'Notes' }).getByRole('button', { name: label, exact: true })

const text = ({ page }: OnPage): Locator => page.getByLabel('Text')

async function choose(device: OnPage, label: string): Promise<void> {
  await listed(device, label).click()
  await text(device).waitFor()
}

async function write(device: OnPage, label: string, value: string): Promise<void> {
  await choose(device, label)
  await text(device).fill(value)
}

async function create(device: OnPage, title: string, value: string): Promise<void> {
  await device.page.locator('#new').click()
  await eventually(() => device.page.getByLabel('Title').inputValue(), 'New note')
  await device.page.getByLabel('Title').fill(title)
  await text(device).fill(value)
}

const reads = (device: OnPage, value: string): Promise<void> =>
  eventually(() => text(device).inputValue(), value)

const items = ({ page }: OnPage): Locator =>
  page.getByRole('list', { name: 'Notes' }).getByRole('listitem')

/** All notes, as a person who looks through them finds them. */
async function all(device: OnPage): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const item of await items(device).all()) {
    const button = item.getByRole('button').first()
    const label = await button.innerText()
    await button.click()
    await text(device).waitFor()
    found[label] = await text(device).inputValue()
  }
  return found
}

async function goOffline(...devices: Device[]): Promise<void> {
  for (const { context } of devices) await context.setOffline(true)
  for (const device of devices) await shows(device, 'Offline')
}

async function goOnline(...devices: Device[]): Promise<void> {
  for (const { context } of devices) await context.setOffline(false)
  for (const device of devices) await shows(device, 'Synced')
}

/** What a device sees that was never there before. */
async function whatServerHas(node: TestNode, id: string): Promise<Record<string, string>> {
  const client = connect({ url: node.url })
  await client.login({ id, password: PASSWORD })
  const { stores } = await client.list()
  const found: Record<string, string> = {}
  for (const { key } of stores) {
    const { value } = (await client.store(key).get()) as Current
    const note = decode(value)
    found[note.title] = note.text
  }
  assert.equal(Object.keys(found).length, stores.length)
  return found
}

/** Edits the same note and different ones on two devices that are offline, which keep it all. */
async function editApart(phone: Device, laptop: Device): Promise<void> {
  await create(phone, 'Shopping', 'milk')
  await create(phone, 'Ideas', 'sleep')
  await listed(laptop, 'Shopping').waitFor()
  await listed(laptop, 'Ideas').waitFor()
  await shows(phone, 'Synced')
  await goOffline(phone, laptop)
  await write(phone, 'Shopping', 'milk\nbread')
  await create(phone, 'On the phone', 'one')
  await shows(phone, 'Offline, 2 to send')
  await write(laptop, 'Shopping', 'milk\neggs')
  await laptop.page.getByLabel('Title').fill('Shopping list')
  await write(laptop, 'Ideas', 'sleep more')
  await create(laptop, 'On the laptop', 'two')
  await shows(laptop, 'Offline, 3 to send')
}

const isMerged = (notes: Record<string, string>): void => {
  const { 'Shopping list': shopping, ...others } = notes
  assert.deepEqual(shopping?.split('\n').toSorted(), ['bread', 'eggs', 'milk'])
  assert.deepEqual(others, { Ideas: 'sleep more', 'On the phone': 'one', 'On the laptop': 'two' })
}

const handleOf = ({ page }: OnPage): Promise<string> => page.locator('#handle').innerText()

async function share({ page }: OnPage, user: string, permission: 'READ' | 'WRITE'): Promise<void> {
  await page.getByLabel('Share with').fill(user)
  await page.getByLabel('who may write').setChecked(permission === 'WRITE')
  await page.getByRole('button', { name: 'Share', exact: true }).click()
  const members = page.getByRole('list', { name: 'Shared with' })
  await members.getByText(`${user} may ${permission}`).waitFor()
}

const press = ({ page }: OnPage, name: string): Promise<void> =>
  page.getByRole('button', { name, exact: true }).click()

describe('A notes app on an origin of its own', { skip }, () => {
  it('loses nothing of what two devices wrote offline, in the same note and in others', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = await openAna(t, await serveApart(t, node))
    await editApart(phone, laptop)
    await goOnline(phone, laptop)
    const expected = await whatServerHas(node, 'ana')
    isMerged(expected)
    await eventually(() => all(phone), expected)
    await eventually(() => all(laptop), expected)
  })

  it('shows what another device writes by the event stream, and asks for nothing more', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = await openAna(t, await serveApart(t, node))
    await create(phone, 'Shopping', 'milk')
    await shows(phone, 'Synced')
    const isShown = laptop.page.waitForResponse(/permission/)
    await choose(laptop, 'Shopping')
    await isShown
    await reads(laptop, 'milk')
    const asked: string[] = []
    laptop.page.on('request', (one) => asked.push(`${one.method()} ${one.url()}`))
    for (const line of ['bread', 'eggs', 'flour']) {
      const before = performance.now()
      await text(phone).fill(line)
      await reads(laptop, line)
      t.diagnostic(`live after ${Math.round(performance.now() - before)} ms`)
    }
    assert.deepEqual(asked, [])
  })

  it('asks its server without credentials but the session', async (t) => {
    const node = await startNode(t)
    const [device] = await openTwo(t, await serveApart(t, node))
    // Cookies do not know ports: this one goes to the app's origin, and could go to the server's.
    await device.context.addCookies([{ name: 'known', value: 'here', url: node.url }])
    const page = await device.page.reload()
    assert.equal((await page?.request().allHeaders())?.['cookie'], 'known=here')
    const seen: Promise<[Record<string, string>, Record<string, string>]>[] = []
    device.page.on('response', (answer) => {
      if (!answer.url().startsWith(node.url)) return
      seen.push(Promise.all([answer.request().allHeaders(), answer.allHeaders()]))
    })
    await enter(device, 'Register', 'ana')
    await create(device, 'Shopping', 'milk')
    await shows(device, 'Synced')
    assert.ok(seen.length >= 4)
    for (const [asked, answered] of await Promise.all(seen)) {
      assert.equal(asked['cookie'], undefined)
      assert.equal(answered['access-control-allow-origin'], '*')
      assert.equal(answered['access-control-allow-credentials'], undefined)
    }
  })

  it('has its notes after a reload while the server is away, and goes on by itself', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = await openAna(t, await serveApart(t, node))
    await create(phone, 'Shopping', 'milk')
    await shows(phone, 'Synced')
    await listed(laptop, 'Shopping').waitFor()
    await node.stop()
    for (const device of [phone, laptop]) {
      await shows(device, 'Offline')
      await device.page.reload()
      await shows(device, 'Offline')
    }
    await write(phone, 'Shopping', 'milk\nbread')
    await write(laptop, 'Shopping', 'milk\neggs')
    for (const device of [phone, laptop]) {
      await shows(device, 'Offline, 1 to send')
      await device.page.reload()
      await shows(device, 'Offline, 1 to send')
    }
    assert.deepEqual(await all(phone), { 'Shopping, not sent yet': 'milk\nbread' })
    assert.deepEqual(await all(laptop), { 'Shopping, not sent yet': 'milk\neggs' })
    await node.restart({ PORT: String(node.port) })
    for (const device of [phone, laptop]) await shows(device, 'Synced')
    const expected = await whatServerHas(node, 'ana')
    assert.deepEqual(expected['Shopping']?.split('\n').toSorted(), ['bread', 'eggs', 'milk'])
    await eventually(() => all(phone), expected)
    await eventually(() => all(laptop), expected)
  })

  it('shares a note with another account, to read, then to write, and takes it back', async (t) => {
    const node = await startNode(t)
    const [phone, bob] = await openTwo(t, await serveApart(t, node))
    await enter(phone, 'Register', 'ana')
    await enter(bob, 'Register', 'bob')
    const handle = await handleOf(bob)
    await create(phone, 'Private', 'mine')
    await create(phone, 'Shopping', 'milk')
    await shows(phone, 'Synced')

    await share(phone, handle, 'READ')
    await choose(bob, 'Shopping, shared with me, to read')
    await reads(bob, 'milk')
    assert.equal(await text(bob).isEditable(), false)
    await text(phone).fill('milk\nbread')
    await reads(bob, 'milk\nbread')

    await share(phone, handle, 'WRITE')
    await listed(bob, 'Shopping, shared with me').waitFor()
    await text(bob).fill('milk\nbread\neggs')
    await reads(phone, 'milk\nbread\neggs')
    assert.deepEqual(await all(bob), { 'Shopping, shared with me': 'milk\nbread\neggs' })

    await press(phone, 'Stop sharing')
    await eventually(() => items(bob).count(), 0)
    await bob.page.reload()
    await shows(bob, 'Synced')
    assert.equal(await items(bob).count(), 0)
    assert.deepEqual(await all(phone), { Private: 'mine', Shopping: 'milk\nbread\neggs' })
  })

  it('keeps what was written offline into a note that was taken back meanwhile', async (t) => {
    const node = await startNode(t)
    const [phone, bob] = await openTwo(t, await serveApart(t, node))
    await enter(phone, 'Register', 'ana')
    await enter(bob, 'Register', 'bob')
    await create(phone, 'Shopping', 'milk')
    await shows(phone, 'Synced')
    await share(phone, await handleOf(bob), 'WRITE')
    await listed(bob, 'Shopping, shared with me').waitFor()
    await goOffline(bob)
    await write(bob, 'Shopping, shared with me', 'milk\neggs')
    await press(phone, 'Stop sharing')
    await phone.page.getByRole('button', { name: 'Stop sharing' }).waitFor({ state: 'detached' })
    await bob.context.setOffline(false)
    await shows(bob, 'Synced, 1 refused')
    assert.deepEqual(Object.values(await all(bob)), ['milk\neggs'])
    await press(bob, 'Take back')
    await shows(bob, 'Synced')
    assert.equal(await items(bob).count(), 0)
    assert.deepEqual(await all(phone), { Shopping: 'milk' })
  })
})

describe('A notes app on the origin of its server', { skip }, () => {
  it('keeps what was written offline through reloads and a restart of the server', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = await openAna(t, await serveTogether(t, node))
    await editApart(phone, laptop)
    await goOnline(phone, laptop)
    await node.restart()
    for (const device of [phone, laptop]) {
      await device.page.reload()
      await shows(device, 'Synced')
    }
    const expected = await whatServerHas(node, 'ana')
    isMerged(expected)
    await eventually(() => all(phone), expected)
    await eventually(() => all(laptop), expected)
    await write(phone, 'Ideas', 'sleep well')
    await choose(laptop, 'Ideas')
    await reads(laptop, 'sleep well')
  })
})
