// Owns a browser for a test: Debian's Chromium, with a new profile, and what it may not do.
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import axe from 'axe-core'
import {
  chromium,
  type BrowserContext,
  type BrowserContextOptions,
  type Page,
} from 'playwright-core'

const EXECUTABLE = '/usr/bin/chromium'
const ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

const isMissing = !existsSync(EXECUTABLE)

/** For `describe`: where there is no Chromium, tests in it are left out; in CI they fail. */
export const skip =
  isMissing && process.env['CI'] === undefined
    ? `${EXECUTABLE} is not installed: apt-get install chromium`
    : false

if (skip !== false) process.stderr.write(`NOT TESTED, the pages in a browser: ${skip}\n`)

/** A browser of its own, which ends with the test. Nothing but the server's origin is ever asked. */
export async function openBrowser(
  t: TestContext,
  options: BrowserContextOptions = {},
): Promise<BrowserContext> {
  const profile = mkdtempSync(join(tmpdir(), 'sync-node-browser-'))
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE,
    args: ARGUMENTS,
    locale: 'en-GB',
    timezoneId: 'UTC',
    ...options,
  })
  t.after(async () => {
    await context.close()
    // Only now, and again if need be: its last processes may still be writing.
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 })
  })
  context.setDefaultTimeout(60_000)
  return context
}

/** A tab at `url`; at the test's end it had no error, broke no policy and asked no server but this and `others`. */
export async function openPage(
  t: TestContext,
  context: BrowserContext,
  url: string,
  others: string[] = [],
): Promise<Page> {
  const origins = [url, ...others].map((one) => new URL(one).origin)
  const page = await context.newPage()
  const wrong: string[] = []
  page.on('pageerror', (error) => wrong.push(String(error)))
  page.on('console', (message) => {
    // A refusal or lost connection, which the page explains, is in the console all the same.
    const isAnswer = message.text().startsWith('Failed to load resource:')
    if (message.type() === 'error' && !isAnswer) wrong.push(message.text())
  })
  page.on('request', (request) => {
    if (!origins.includes(new URL(request.url()).origin)) wrong.push(`asked ${request.url()}`)
  })
  t.after(() => assert.deepEqual(wrong, []))
  await page.goto(url)
  return page
}

interface Violation {
  id: string
  impact: string
  nodes: { target: string[]; failureSummary: string }[]
}

/** Nothing that axe calls serious or critical, in both themes; a picture of each, where asked for. */
export async function expectAccessible(page: Page, name: string): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    // Beside the page, not in it: the page's policy lets no other script run.
    const session = await page.context().newCDPSession(page)
    const { executionContextId } = await isolatedWorld(session)
    const evaluate = async (expression: string): Promise<unknown> => {
      const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
        expression,
        contextId: executionContextId,
        awaitPromise: true,
        returnByValue: true,
      })
      assert.equal(exceptionDetails, undefined, JSON.stringify(exceptionDetails))
      return result.value
    }
    await evaluate(`${axe.source}; 0`)
    const found = (await evaluate(
      `axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)`,
    )) as Violation[]
    await session.detach()
    const bad = found.filter(({ impact }) => ['serious', 'critical'].includes(impact))
    assert.deepEqual(
      bad.map(({ id, nodes }) => [
        id,
        nodes.map(({ target, failureSummary }) => [target, failureSummary]),
      ]),
      [],
      `${name}, ${colorScheme}`,
    )
    await picture(page, `${name}-${colorScheme}`)
  }
  await page.emulateMedia({ colorScheme: null })
}

type Session = Awaited<ReturnType<BrowserContext['newCDPSession']>>

async function isolatedWorld(session: Session): Promise<{ executionContextId: number }> {
  const { frameTree } = await session.send('Page.getFrameTree')
  return session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id })
}

/** The page fits the width that it has. */
export async function expectNoSidewaysScroll(page: Page): Promise<void> {
  const { scroll, client } = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = (
      globalThis as unknown as {
        document: { documentElement: { scrollWidth: number; clientWidth: number } }
      }
    ).document.documentElement
    return { scroll: scrollWidth, client: clientWidth }
  })
  assert.ok(scroll <= client, `${scroll} px of content in ${client}`)
}

/** Saved where PICTURES names a folder, for people to look at. */
async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env['PICTURES']
  if (folder !== undefined)
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true })
}
