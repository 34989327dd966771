import assert from 'node:assert/strict'
import { before, describe, it, type TestContext } from 'node:test'
import type { BrowserContext, Page } from 'playwright-core'
import { buildPage } from '../scripts/web.ts'
import { connect } from '../src/client/client.ts'
import { CODES } from '../src/http/problem.ts'
import * as invitation from '../src/invitation.ts'
import { MESSAGES, deviceOf, messageOf, sizeOf } from '../src/web/words.ts'
import {
  expectAccessible,
  expectNoSidewaysScroll,
  openBrowser,
  openPage,
  skip,
} from './helpers/browser.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

const NEW_PASSWORD = 'another long password'
const ANA = { id: 'ana@example.org', password: PASSWORD }

before(buildPage)

interface Opened {
  node: TestNode
  context: BrowserContext
  page: Page
}

async function open(
  t: TestContext,
  {
    environment = {},
    fragment = '',
  }: { environment?: Record<string, string>; fragment?: string } = {},
): Promise<Opened> {
  const node = await startNode(t, environment)
  const context = await openBrowser(t)
  const page = await openPage(t, context, `${node.url}/${fragment}`)
  return { node, context, page }
}

const press = (page: Page, name: string | RegExp): Promise<void> =>
  page.getByRole('button', { name }).click()

const says = (page: Page, text: string | RegExp): Promise<void> => page.getByText(text).waitFor()

const heading = (page: Page, name: string): Promise<void> =>
  page.getByRole('heading', { name, exact: true }).waitFor()

async function fill(page: Page, fields: Record<string, string>): Promise<void> {
  for (const [label, value] of Object.entries(fields)) {
    await page.getByLabel(label, { exact: true }).filter({ visible: true }).fill(value)
  }
}

async function logIn(
  page: Page,
  { id, password }: { id: string; password: string },
): Promise<void> {
  await fill(page, { 'User name or e-mail': id, Password: password })
  await press(page, 'Log in')
}

/** Opened, with an account that is logged in. */
async function openAsAna(t: TestContext, environment?: Record<string, string>) {
  const opened = await open(t, environment === undefined ? {} : { environment })
  const ana = connect({ url: opened.node.url })
  await ana.register({ ...ANA, device: 'a phone' })
  await logIn(opened.page, ANA)
  await heading(opened.page, 'Your account')
  return { ...opened, ana }
}

const storeItem = (page: Page, name: string) =>
  page.getByRole('listitem').filter({ has: page.getByRole('heading', { name, level: 3 }) })

const focused = (page: Page): Promise<string> =>
  page.evaluate('document.activeElement.id || document.activeElement.textContent')

describe('The account page', () => {
  it('comes from this server alone, by its ETag, and lets nothing else run', async (t) => {
    const node = await startNode(t)
    for (const [path, type] of [
      ['/', 'text/html; charset=utf-8'],
      ['/page.css', 'text/css; charset=utf-8'],
      ['/page.js', 'text/javascript; charset=utf-8'],
    ] as const) {
      const answer = await expectStatus(await node.request(path), 200)
      const { headers } = answer
      assert.equal(headers.get('content-type'), type)
      assert.equal(headers.get('referrer-policy'), 'no-referrer')
      assert.match(headers.get('content-security-policy') ?? '', /^default-src 'none';/)
      const etag = headers.get('etag') as string
      const again = await node.request(path, { headers: { 'If-None-Match': etag } })
      assert.equal(again.status, 304)
      if (path !== '/page.js') assert.doesNotMatch(await answer.text(), /https?:\/\/|\/\/\w/)
    }
    const policy = (await node.request('/')).headers.get('content-security-policy')
    assert.equal(
      policy,
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    )
    await expectProblem(await node.request('/', { method: 'POST' }), 'ERR03', 405)
  })

  it('has words for every code, and for what has none', () => {
    for (const code of [...CODES, 'NETWORK', 'PROXY']) {
      assert.ok(messageOf({ code }) === MESSAGES[code], code)
      assert.match(MESSAGES[code] ?? '', /^[A-Z][^]*\.$/, code)
    }
    assert.match(messageOf(new TypeError('x is undefined')), /Reload/)
    assert.match(messageOf(undefined), /Reload/)
    assert.equal(messageOf({ code: 'AUTH02' }, { AUTH02: 'Other words.' }), 'Other words.')
    assert.match(messageOf({ code: 'RATE01', retryAfterMs: 60_000 }), /in a minute/)
    assert.match(messageOf({ code: 'RATE01', retryAfterMs: 600_000 }), /in 10 minutes/)
  })

  it('writes sizes and devices as people do', () => {
    const sizes = [0, 1, 1023, 1024, 1536, 150 * 1024, 1024 ** 3].map(sizeOf)
    assert.deepEqual(
      sizes.map((size) => size.replace(',', '.').replace('1.023', '1023')),
      ['0 bytes', '1 byte', '1023 bytes', '1 KB', '1.5 KB', '150 KB', '1 GB'],
    )
    const agent = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
    assert.equal(deviceOf(agent), 'Firefox on Linux, account page')
    assert.equal(deviceOf(''), 'Browser, account page')
  })
})

describe('The account page, in a browser', { skip, concurrency: 2 }, () => {
  it('registers, keeps the session over a reload, and logs out', async (t) => {
    const { node, page } = await open(t)
    await page.getByRole('link', { name: 'Create an account' }).click()
    await heading(page, 'Create an account')
    await fill(page, { 'User name or e-mail': ANA.id, Password: ANA.password })
    await press(page, 'Create the account')
    await says(page, 'Welcome: your account is made.')
    const handle = await page.locator('#handle').textContent()
    assert.match(handle ?? '', /^~[\w-]{43}$/)
    assert.equal(page.url(), `${node.url}/`)
    await page.reload()
    await heading(page, 'Your account')
    assert.equal(await page.locator('#handle').textContent(), handle)
    await press(page, 'Log out')
    await says(page, 'You are logged out.')
    await page.reload()
    await heading(page, 'Log in')
    assert.equal(await page.evaluate('sessionStorage.length + localStorage.length'), 0)
    assert.equal(await page.evaluate('document.cookie'), '')
    await logIn(page, ANA)
    await heading(page, 'Your account')
    const sessions = await connect({ url: node.url, token: await tokenIn(page) }).sessions()
    assert.deepEqual(
      sessions.map(({ device }) => device),
      ['Chrome on Linux, account page'],
    )
  })

  it('says in plain words what is wrong, and lets people go on', async (t) => {
    const { node, page } = await open(t)
    await node.signUp(ANA.id)
    await logIn(page, { ...ANA, password: 'not the password' })
    await says(page, 'The user name or the password is wrong.')
    assert.equal(await focused(page), 'Log in', 'the focus stays where it was')
    await page.getByRole('link', { name: 'Create an account' }).click()
    await fill(page, { 'User name or e-mail': ANA.id, Password: ANA.password })
    await press(page, 'Create the account')
    await says(page, 'This user name is taken.')
    await fill(page, { 'User name or e-mail': '~ana' })
    await press(page, 'Create the account')
    await says(page, 'This user name or password cannot be used.')
    await page.getByRole('link', { name: 'log in' }).click()
    await heading(page, 'Log in')
    assert.equal(await page.getByLabel('Password', { exact: true }).first().inputValue(), '')
    await node.stop()
    await logIn(page, ANA)
    await says(page, 'The server cannot be reached.')
  })

  it('gives password managers what they look for', async (t) => {
    const { page } = await openAsAna(t)
    const purposes = (form: string) =>
      page
        .locator(`#${form} input[autocomplete]`)
        .evaluateAll((inputs) =>
          inputs.map((input) => (input as unknown as { autocomplete: string }).autocomplete),
        )
    assert.deepEqual(await purposes('login'), ['username', 'current-password'])
    assert.deepEqual((await purposes('register')).slice(0, 2), ['username', 'new-password'])
    assert.deepEqual(await purposes('forgot'), ['username'])
    assert.deepEqual(await purposes('reset'), ['off', 'username', 'new-password'])
    assert.deepEqual(await purposes('change'), ['username', 'current-password', 'new-password'])
    assert.deepEqual(await purposes('delete'), ['username', 'current-password'])
    const known = page.locator('#change input[autocomplete=username]')
    assert.equal(await known.inputValue(), ANA.id)
  })

  it('shows a password only while it is asked to', async (t) => {
    const { page } = await open(t)
    const field = page.locator('#login-password')
    assert.equal(await field.getAttribute('type'), 'password')
    await page.locator('#login').getByLabel('Show password').check()
    assert.equal(await field.getAttribute('type'), 'text')
    await page.getByRole('link', { name: 'Create an account' }).click()
    await heading(page, 'Create an account')
    assert.equal(await field.getAttribute('type'), 'password')
  })

  it('shows sessions, and ends one of another device', async (t) => {
    const { page, ana } = await openAsAna(t)
    const item = storeItem(page, 'a phone')
    await says(page, 'this one')
    await item.getByRole('button', { name: 'Log out a phone' }).click()
    await says(page, 'a phone is logged out.')
    assert.equal(await item.count(), 0)
    assert.equal(await focused(page), 'sessions-title')
    await assert.rejects(ana.sessions(), { code: 'AUTH01' })
  })

  it('shows stores by name where it can be read, else by key, and the storage used', async (t) => {
    const { page, ana } = await openAsAna(t, { QUOTA: '1M' })
    await says(page, 'None yet.')
    await says(page, '0 bytes of 1 MB used (0%).')
    const evil = '<img src=x onerror=alert(1)>'
    await ana.store('notes/shopping').put('x'.repeat(600_000))
    await ana.store(evil).put('x')
    await page.reload()
    await storeItem(page, 'notes/shopping').getByText('586 KB').waitFor()
    await storeItem(page, evil).getByText('owner').waitFor()
    await says(page, /of 1 MB used \(57%\)/)
    assert.equal(
      await page
        .locator('#meter')
        .evaluate((meter) => (meter as unknown as { value: number }).value),
      600_001,
    )
    assert.equal(await page.locator('main img').count(), 0)
  })

  it('shows a store without a name by its key', async (t) => {
    const { node, page } = await open(t)
    const ana = await node.signUp(ANA.id)
    const { key } = await ana.save('secret', 'value', { 'X-Sync-Meta': 'not what a client writes' })
    await logIn(page, ANA)
    const item = storeItem(page, `${key.slice(0, 9)}…`)
    await item.getByText('5 bytes').waitFor()
    assert.equal(await item.locator('code').getAttribute('title'), key)
  })

  it('says that there is no quota where there is none', async (t) => {
    const { page } = await openAsAna(t, { QUOTA: 'none' })
    await says(page, '0 bytes used. There is no limit')
    assert.equal(await page.locator('#meter').isVisible(), false)
  })

  it('shows many stores a part at a time, newest first', async (t) => {
    const { page, ana } = await openAsAna(t)
    for (let i = 0; i < 60; i++) await ana.store(`store ${i}`).put('x')
    await page.reload()
    await storeItem(page, 'store 59').waitFor()
    assert.equal(await page.locator('#stores > li').count(), 50)
    await press(page, 'Show more (10 left)')
    await storeItem(page, 'store 0').waitFor()
    assert.equal(await page.locator('#stores > li').count(), 60)
    assert.equal(await page.locator('#more').isVisible(), false)
    const names = await page.locator('#stores > li > .row h3').allTextContents()
    assert.equal(new Set(names).size, 60)
    assert.equal(await focused(page), 'Who has access to store 9')
  })

  it('shows who has access, and revokes it', async (t) => {
    const { node, page, ana } = await openAsAna(t)
    const ben = await node.signUp('ben')
    await ana.store('list').put('x')
    await ana.store('list').share('ben', 'WRITE')
    await page.reload()
    const item = storeItem(page, 'list')
    const access = item.getByRole('button', { name: 'Who has access to list' })
    await access.click()
    const members = page.getByRole('list', { name: 'Access to list' })
    await members.getByText(ben.user).waitFor()
    await members.getByText('can change it').waitFor()
    assert.equal(await access.getAttribute('aria-expanded'), 'true')
    await members.getByRole('button', { name: 'Revoke' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
    assert.equal((await ben.list()).length, 1)
    await members.getByRole('button', { name: 'Revoke' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click()
    await says(page, 'The access is revoked.')
    assert.equal(await members.getByText(ben.user).count(), 0)
    assert.deepEqual(await ben.list(), [])
  })

  it('leaves a store of somebody else, and one of several owners', async (t) => {
    const { node, page, ana } = await openAsAna(t)
    const ben = connect({ url: node.url })
    await ben.register({ id: 'ben', password: PASSWORD })
    await ben.store('of ben').put('x')
    await ben.store('of ben').share(ANA.id, 'READ')
    await ana.store('of both').put('x')
    await ana.store('of both').share('ben', 'OWN')
    await page.reload()
    await storeItem(page, 'of ben').getByText('can read it').waitFor()
    await press(page, 'Leave of ben')
    await page.getByRole('dialog').getByRole('button', { name: 'Leave' }).click()
    await says(page, 'You left of ben.')
    assert.equal(await focused(page), 'stores-title')
    await press(page, 'Who has access to of both')
    await page
      .getByRole('list', { name: 'Access to of both' })
      .getByRole('button', { name: 'Leave' })
      .click()
    await page.getByRole('dialog').getByRole('button', { name: 'Leave' }).click()
    await says(page, 'You left of both.')
    assert.deepEqual((await ana.list()).stores, [])
    assert.equal((await ben.list()).stores.length, 2)
  })

  it('does not let the last owner leave, nor says that it can', async (t) => {
    const { node, page, ana } = await openAsAna(t)
    await ana.store('mine').put('x')
    await ana.store('ours').put('x')
    await ana.store('ours').share((await node.signUp('ben')).user, 'OWN')
    await page.reload()
    await press(page, 'Who has access to mine')
    const mine = page.getByRole('list', { name: 'Access to mine' })
    await mine.getByText('You').waitFor()
    assert.equal(await mine.getByRole('button').count(), 0)
    await press(page, 'Who has access to ours')
    const leave = page
      .getByRole('list', { name: 'Access to ours' })
      .getByRole('button', { name: 'Leave' })
    await leave.waitFor()
    await ana.store('ours').share('ben', 'READ')
    await leave.click()
    await page.getByRole('dialog').getByRole('button', { name: 'Leave' }).click()
    await says(page, 'You are the only owner of this store.')
  })

  it('deletes a store, but not one that was changed meanwhile', async (t) => {
    const { page, ana } = await openAsAna(t)
    await ana.store('old').put('x')
    await page.reload()
    await storeItem(page, 'old').waitFor()
    await ana.store('old').put('y', { token: '*' })
    await press(page, 'Delete old')
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await says(page, 'Somebody changed this store just now.')
    await page.reload()
    await press(page, 'Delete old')
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await says(page, 'old is deleted.')
    assert.deepEqual((await ana.list()).stores, [])
  })

  it('changes the password, which logs the other devices out', async (t) => {
    const { page, ana } = await openAsAna(t)
    await fill(page, { 'Current password': 'not this', 'New password': NEW_PASSWORD })
    await press(page, 'Change the password')
    await says(page, 'The current password is wrong.')
    await fill(page, { 'Current password': PASSWORD })
    await press(page, 'Change the password')
    await says(page, 'The password is changed.')
    await assert.rejects(ana.sessions(), { code: 'AUTH01' })
    assert.equal(await page.getByLabel('Current password').inputValue(), '')
    await ana.login({ ...ANA, password: NEW_PASSWORD })
    await page.reload()
    await heading(page, 'Your account')
  })

  it('asks for a reset mail, and finishes it from the link', async (t) => {
    const { node, page } = await open(t, {
      environment: { PUBLIC_URL: 'https://sync.example.org' },
    })
    await node.signUp(ANA.id)
    await page.getByRole('link', { name: 'Forgot your password?' }).click()
    await fill(page, { 'E-mail': ANA.id })
    await press(page, 'Send me a link')
    await says(page, 'a link is on its way.')
    while (node.mails.length === 0) await new Promise(setImmediate)
    const token = node.mails[0]?.token as string
    await page.goto(`${node.url}/#reset=${token}`)
    await heading(page, 'Set a new password')
    assert.equal(page.url(), `${node.url}/`)
    assert.equal(await page.getByLabel('Reset token').isVisible(), false)
    await fill(page, { 'User name or e-mail': ANA.id, 'New password': 'ana@example.org' })
    await press(page, 'Set the password')
    await says(page, 'This user name or password cannot be used.')
    await fill(page, { 'New password': NEW_PASSWORD })
    await press(page, 'Set the password')
    await says(page, 'The new password is set.')
    await heading(page, 'Your account')
    await page.goBack()
    assert.ok(!page.url().includes(token))
    await page.goto(`${node.url}/#reset=${token}`)
    await fill(page, { 'User name or e-mail': ANA.id, 'New password': PASSWORD })
    await press(page, 'Set the password')
    await says(page, 'This link or token was used already, or is too old.')
  })

  it('follows a link that is opened right after a step back', async (t) => {
    const { page } = await openAsAna(t)
    await page.evaluate(`location.hash = '#forgot'; location.hash = '#reset=${'a'.repeat(32)}'`)
    await heading(page, 'Set a new password')
    assert.equal(await page.getByLabel('Reset token').isVisible(), false)
  })

  it('takes a reset token that was printed, and a name that was mistyped', async (t) => {
    const { node, page } = await open(t)
    await node.signUp(ANA.id)
    await connect({ url: node.url }).requestReset(ANA.id)
    while (node.mails.length === 0) await new Promise(setImmediate)
    await page.getByRole('link', { name: 'Forgot your password?' }).click()
    await page.getByRole('link', { name: 'I have a reset token' }).click()
    await fill(page, {
      'Reset token': ` ${node.mails[0]?.token} `,
      'User name or e-mail': 'anna@example.org',
      'New password': NEW_PASSWORD,
    })
    await press(page, 'Set the password')
    await says(page, 'The new password is set. Log in with it.')
    await logIn(page, { ...ANA, password: NEW_PASSWORD })
    await heading(page, 'Your account')
  })

  it('registers with an invitation from its link, once', async (t) => {
    const { node, page } = await open(t, { environment: { REGISTRATION: 'invite' } })
    await page.getByRole('link', { name: 'Create an account with an invitation' }).click()
    await page.getByLabel('Invitation').waitFor()
    const secret = await invitation.issue(node.running.deps)
    await page.goto(`${node.url}/#invitation=${secret}`)
    await heading(page, 'Create an account')
    assert.equal(page.url(), `${node.url}/`)
    await fill(page, { 'User name or e-mail': ANA.id, Password: PASSWORD })
    await press(page, 'Create the account')
    await heading(page, 'Your account')
    await press(page, 'Log out')
    await page.goto(`${node.url}/#invitation=${secret}`)
    await fill(page, { 'User name or e-mail': 'ben', Password: PASSWORD })
    await press(page, 'Create the account')
    await says(page, 'The invitation was used already')
  })

  it('opens with an invitation in a new tab as well', async (t) => {
    const { node, context } = await open(t, { environment: { REGISTRATION: 'invite' } })
    const secret = await invitation.issue(node.running.deps)
    const page = await openPage(t, context, `${node.url}/#invitation=${secret}`)
    await heading(page, 'Create an account')
    assert.equal(page.url(), `${node.url}/`)
    assert.equal(await page.getByLabel('Invitation').inputValue(), secret)
    await fill(page, { 'User name or e-mail': ANA.id, Password: PASSWORD })
    await press(page, 'Create the account')
    await heading(page, 'Your account')
  })

  it('offers no registration where it is closed', async (t) => {
    const { page } = await open(t, { environment: { REGISTRATION: 'closed' } })
    await says(page, 'New accounts are made by whoever runs this server.')
    assert.equal(await page.getByRole('link', { name: 'Create an account' }).count(), 0)
  })

  it('copies the handle', async (t) => {
    const { node, context, page } = await openAsAna(t)
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: node.url })
    await press(page, 'Copy the handle')
    await says(page, 'The handle is copied.')
    const copied = await page.evaluate('navigator.clipboard.readText()')
    assert.equal(copied, await page.locator('#handle').textContent())
  })

  it('deletes the account, after logging in once more as the same', async (t) => {
    const { node, page, ana } = await openAsAna(t)
    await node.signUp('ben')
    await ana.store('mine').put('x')
    const dialog = page.getByRole('dialog')
    const confirm = async (id: string, password: string) => {
      await dialog.getByLabel('User name or e-mail').fill(id)
      await dialog.getByLabel('Password', { exact: true }).fill(password)
      await dialog.getByRole('button', { name: 'Delete it for good' }).click()
    }
    await press(page, 'Delete the account…')
    assert.equal(await dialog.getByLabel('User name or e-mail').inputValue(), ANA.id)
    await dialog.getByRole('button', { name: 'Cancel' }).click()
    node.advance(11 * 60_000)
    await press(page, 'Delete the account…')
    await confirm(ANA.id, 'not the password')
    await dialog.getByText('The user name or the password is wrong.').waitFor()
    await confirm('ben', PASSWORD)
    await dialog.getByText('This is the user name of another account.').waitFor()
    await node.logIn('ben')
    await confirm(ANA.id, PASSWORD)
    await says(page, 'The account is deleted.')
    await heading(page, 'Log in')
    await assert.rejects(ana.list(), { code: 'AUTH01' })
    await assert.rejects(ana.login(ANA), { code: 'AUTH02' })
  })

  it('goes to the login when the session was ended elsewhere', async (t) => {
    const { node, page, ana } = await openAsAna(t)
    await ana.changePassword({ current: PASSWORD, password: NEW_PASSWORD })
    await press(page, 'Log out a phone')
    await says(page, 'You were logged out. Log in again.')
    assert.equal(await page.evaluate('sessionStorage.length'), 0)
    await page.goto(`${node.url}/`)
    await heading(page, 'Log in')
  })

  it('leaves nothing of one person in the page for the next', async (t) => {
    const { page, ana } = await openAsAna(t, { QUOTA: '1M' })
    await ana.store('diary').put('x'.repeat(3000))
    await page.reload()
    const diary = storeItem(page, 'diary')
    await diary.getByRole('button', { name: 'Who has access' }).click()
    await heading(page, 'a phone')
    await diary.getByRole('button', { name: 'Delete' }).click()
    await press(page, 'Cancel')
    const traces = ['diary', 'a phone', ANA.id, ana.user as string, '2.9 KB', 'value="3000"']
    const content = await page.content()
    for (const trace of traces) assert.ok(content.includes(trace), trace)
    await press(page, /^Log out$/)
    await heading(page, 'Log in')
    const after = await page.content()
    for (const trace of traces) assert.ok(!after.includes(trace), trace)
  })

  it('shows nothing of one person to the next, however late it comes', async (t) => {
    const { node, context, page, ana } = await openAsAna(t)
    await ana.store('diary').put('of ana')
    const ben = connect({ url: node.url })
    await ben.register({ id: 'ben', password: PASSWORD })
    await ben.store('plans').put('of ben')
    const { promise: isLate, resolve: answer } = Promise.withResolvers<void>()
    const answers: Promise<void>[] = []
    let asked = 0
    await context.route(/\/(store|account)$/, async (route) => {
      if (route.request().method() !== 'GET' || ++asked > 2) return route.continue()
      // What the server says to ana.
      const response = await route.fetch()
      await isLate
      answers.push(route.fulfill({ response }))
    })
    await page.reload()
    await heading(page, 'Your account')
    while (asked < 2) await new Promise(setImmediate)
    await press(page, /^Log out$/)
    await logIn(page, { id: 'ben', password: PASSWORD })
    await storeItem(page, 'plans').waitFor()
    const arrived = page.waitForResponse(/\/store$/)
    answer()
    await arrived
    await Promise.all(answers)
    // A call that was made after these came has had its answer taken in after theirs.
    await page.evaluate(`fetch('/info').then((response) => response.text())`)
    assert.equal(await storeItem(page, 'plans').count(), 1)
    assert.equal(await storeItem(page, 'diary').count(), 0)
    assert.equal(await page.getByText('a phone').count(), 0)
  })

  it('is used by the keyboard alone', async (t) => {
    const { node, page } = await open(t)
    const ana = await node.signUp(ANA.id)
    await ana.save('a', 'x')
    const tabTo = async (name: RegExp | string) => {
      const target = page.locator(':focus').and(page.getByText(name).or(page.getByLabel(name)))
      for (let tries = 0; tries < 40; tries++) {
        await page.keyboard.press('Tab')
        if ((await target.count()) > 0) return
      }
      assert.fail(`no way to ${name}`)
    }
    await tabTo('User name or e-mail')
    await page.keyboard.type(ANA.id)
    await tabTo('Password')
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press('Enter')
    await heading(page, 'Your account')
    assert.equal(await focused(page), 'account-title')
    await page.getByRole('button', { name: /^Delete ~/ }).waitFor()
    await tabTo(/^Who has access/)
    await page.keyboard.press('Enter')
    await page.getByRole('list', { name: /^Access to/ }).waitFor()
    await tabTo(/^Delete ~/)
    await page.keyboard.press('Enter')
    await page.getByRole('dialog').waitFor()
    assert.equal(await focused(page), 'Cancel')
    await page.keyboard.press('Escape')
    assert.match(await focused(page), /^Delete ~/)
    assert.equal((await ana.list()).length, 1)
  })
})

const tokenIn = (page: Page): Promise<string> =>
  page.evaluate("JSON.parse(sessionStorage.getItem('sync-node')).token")

describe('Every view of the account page', { skip }, () => {
  /** Everything that can be seen at once, with something in it. */
  async function fillAccount(node: TestNode): Promise<void> {
    const ana = connect({ url: node.url })
    await ana.register({ ...ANA, device: 'Notes on the phone' })
    const ben = await node.signUp('ben')
    await ana.store('notes/shopping').put('x'.repeat(15_000))
    await ana.store('a name that is as long as names of documents sometimes happen to be').put('x')
    await ana.store('notes/shopping').share('ben', 'WRITE')
    const { key } = await ben.save('holiday', 'x'.repeat(3000))
    await expectStatus(await ben.grant(key, ANA.id, 'READ'), 200)
  }

  for (const width of [1200, 360]) {
    it(`is accessible and fits at ${width} px, in both themes`, async (t) => {
      const { node, page } = await open(t, {
        environment: { QUOTA: '20000', REGISTRATION: 'open' },
      })
      await page.setViewportSize({ width, height: 800 })
      const look = async (name: string) => {
        await expectNoSidewaysScroll(page)
        await expectAccessible(page, `${name}-${width}`)
      }
      await fillAccount(node)
      await page.getByRole('link', { name: 'Create an account', exact: true }).waitFor()
      await look('login')
      await logIn(page, { ...ANA, password: 'wrong' })
      await says(page, 'The user name or the password is wrong.')
      await look('login-wrong')
      await page.goto(`${node.url}/#invitation=${'x'.repeat(43)}`)
      await heading(page, 'Create an account')
      await look('register')
      await page.goto(`${node.url}/#forgot`)
      await heading(page, 'Forgot your password?')
      await look('forgot')
      await page.goto(`${node.url}/#token`)
      await heading(page, 'Set a new password')
      await look('reset')
      await page.goto(`${node.url}/`)
      await logIn(page, ANA)
      await press(page, 'Who has access to notes/shopping')
      await page.getByRole('list', { name: 'Access to notes/shopping' }).waitFor()
      await press(page, 'Copy the handle')
      await says(page, /The handle is copied|copy it by hand/)
      await look('account')
      await press(page, 'Delete notes/shopping')
      await look('confirm')
      await page.keyboard.press('Escape')
      await press(page, 'Delete the account…')
      await look('delete')
    })
  }
})
