// Owns the sequence that every way of running Sync Node has to pass: accounts, values, conflicts,
// sharing, a reset by the command line, a restart and a kill, and everything read back.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'
import type { Client } from './helpers/client.ts'
import { install, type Installation, type Ran } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { post, remoteClient, signUp, type Opened } from './helpers/remote.ts'

// None of these may ever be logged.
const ANA = { id: 'ana.smoke@example.org', password: 'ana keeps bees in june' }
const BEN = { id: 'ben-smoke', password: 'ben paints doors in may' }
const WRONG = 'nobody has this password'
const NEW_PASSWORD = 'ben paints gates in may'
const ADDRESS = '203.0.113.77'
const KEYS = { small: 'notes/shopping-list', large: 'photos/beach ☀', gone: 'drafts/unsent' }
const LAST = 'after-all-else'
const SMALL = 'eggs, flour, a lemon'
const META = 'meta-of-the-list'

interface Kept {
  ana: Opened
  ben: Opened
  large: Buffer
  /** The store key of the small value, which is shared with ben. */
  shared: string
}

export interface Smoked {
  /** All that the server and the commands logged. */
  log: string
  /** What must not stand in it. */
  privates: string[]
}

/** Runs the sequence with `command`, in an empty folder. */
export async function smoke(t: TestContext, command?: string[]): Promise<Smoked> {
  const here = install(t, command)
  const logs: string[] = []
  const serve = () => here.serve({ LOG_LEVEL: 'trace' })
  const keepLog = ({ stdout, stderr }: Pick<Ran, 'stdout' | 'stderr'>) => logs.push(stdout, stderr)

  const first = await serve()
  const kept = await fill(first.url)
  const token = await printReset(here, logs)
  const lost = kept.ben
  kept.ben = await spendReset(first.url, token)
  await readBack(first.url, kept)
  assert.deepEqual(await first.stop('SIGTERM'), { code: 0, signal: null })
  keepLog(first.output())

  const second = await serve()
  await readBack(second.url, kept)
  const last = `written before the kill ${randomBytes(8).toString('hex')}`
  await expectStatus(await remoteClient(second.url, kept.ana).put(LAST, last), 201)
  assert.deepEqual(await second.stop('SIGKILL'), { code: null, signal: 'SIGKILL' })
  keepLog(second.output())

  const third = await serve()
  await readBack(third.url, kept)
  assert.equal(await (await remoteClient(third.url, kept.ana).get(LAST)).text(), last)
  assert.deepEqual(await third.stop('SIGINT'), { code: 0, signal: null })
  keepLog(third.output())

  const people = [kept.ana, kept.ben, lost].flatMap(({ user, token: session }) => [user, session])
  const texts = [ANA.id, ANA.password, BEN.id, BEN.password, WRONG, NEW_PASSWORD, ADDRESS]
  const stored = [...Object.values(KEYS), LAST, SMALL, META, last, kept.shared, token]
  return { log: logs.join(''), privates: [...people, ...texts, ...stored, '127.0.0.1', '::1'] }
}

/** Two accounts, values small and large; what has to be refused is refused. */
async function fill(url: string): Promise<Kept> {
  const opened = { ana: await signUp(url, ANA), ben: await signUp(url, BEN) }
  const ana = remoteClient(url, opened.ana)
  await expectProblem(await post(url, '/account', ANA), 'ACCT03', 409)
  await expectProblem(await post(url, '/auth', { ...ANA, password: WRONG }, ADDRESS), 'AUTH02', 401)
  const small = await ana.save(KEYS.small, 'eggs')
  const large = randomBytes(1_000_000)
  await ana.save(KEYS.large, large)
  const gone = await ana.save(KEYS.gone, 'x'.repeat(20_000))
  await replace(ana, small.token)
  await share(ana, remoteClient(url, opened.ben), small.key)
  await expectStatus(await ana.delete(KEYS.gone, gone.token), 204)
  await expectProblem(await ana.get(KEYS.gone), 'ERR01', 404)
  await expectProblem(await ana.request(`/store/${KEYS.small}%2`), 'REQ01', 400)
  return { ...opened, large, shared: small.key }
}

/** With the token; then with the one it had, and without, in vain. */
async function replace(ana: Client, token: string): Promise<void> {
  const headers = { 'X-Sync-Token': token, 'X-Sync-Meta': META }
  const replaced = await expectStatus(await ana.put(KEYS.small, SMALL, headers), 204)
  const stale = await ana.put(KEYS.small, 'lost', headers)
  assert.equal(stale.headers.get('x-sync-token'), replaced.headers.get('x-sync-token'))
  await expectProblem(stale, 'KEY01', 412)
  await expectProblem(await ana.put(KEYS.small, 'lost'), 'KEY01', 428)
}

/** Ben may not read, then may, then may not, then may. */
async function share(ana: Client, ben: Client, key: string): Promise<void> {
  await expectProblem(await ben.get(key), 'ERR01', 404)
  await expectStatus(await ana.grant(KEYS.small, BEN.id, 'READ'), 200)
  assert.equal(await (await ben.get(key)).text(), SMALL)
  await expectProblem(await ben.put(key, 'not mine'), 'PERM01', 403)
  await expectStatus(await ana.revoke(KEYS.small, BEN.id), 204)
  await expectProblem(await ben.get(key), 'ERR01', 404)
  await expectStatus(await ana.grant(KEYS.small, BEN.id, 'READ'), 200)
}

async function printReset(here: Installation, logs: string[]): Promise<string> {
  const { code, stdout, stderr } = await here.run(['reset', BEN.id])
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^[\w-]{43}\n$/)
  logs.push(stderr)
  return stdout.trim()
}

async function spendReset(url: string, token: string): Promise<Opened> {
  const change = { password: NEW_PASSWORD, token }
  await expectStatus(await post(url, '/password', change), 204)
  await expectProblem(await post(url, '/password', change), 'AUTH02', 401)
  await expectProblem(await post(url, '/auth', BEN), 'AUTH02', 401)
  const login = await post(url, '/auth', { id: BEN.id, password: NEW_PASSWORD })
  return (await (await expectStatus(login, 200)).json()) as Opened
}

async function readBack(url: string, kept: Kept): Promise<void> {
  const [ana, ben] = [remoteClient(url, kept.ana), remoteClient(url, kept.ben)]
  const small = await expectStatus(await ana.get(KEYS.small), 200)
  assert.equal(await small.text(), SMALL)
  assert.equal(small.headers.get('x-sync-meta'), META)
  const large = await expectStatus(await ana.get(KEYS.large), 200)
  assert.deepEqual(Buffer.from(await large.arrayBuffer()), kept.large)
  await expectProblem(await ana.get(KEYS.gone), 'ERR01', 404)
  assert.equal(await (await ben.get(kept.shared)).text(), SMALL)
  assert.deepEqual(
    (await ben.list()).map(({ key, permission }) => [key, permission]),
    [[kept.shared, 'READ']],
  )
  const health = await expectStatus(await ana.request('/health'), 200)
  assert.deepEqual(await health.json(), { database: 'ok', disk: 'ok' })
}
