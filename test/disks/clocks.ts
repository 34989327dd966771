// Owns the trial of a machine whose clock is wrong: the real program under libfaketime, with sessions,
// a superseded value and things in the trash that a leap of time would end.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EXECUTABLE, install, type Installation, type Server } from '../helpers/executable.ts'
import { eventually } from '../helpers/eventually.ts'
import { PASSWORD } from '../helpers/node.ts'
import { post, remoteClient, signUp, type Opened } from '../helpers/remote.ts'
import { bytes, type Scope } from './place.ts'

const LIBRARY = '/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1'

const library = (): string =>
  execFileSync('sh', ['-c', `echo ${LIBRARY}`])
    .toString()
    .trim()

/** False, or why there is nothing to test with. In CI that is a failure. */
export const noFaketime = (): string | false =>
  process.env['CI'] === undefined && !existsSync(library())
    ? 'NOT TESTED: a clock that is wrong. Install faketime.'
    : false

export const CLOCKS: Record<string, string> = {
  '30 days back': '-30d',
  '400 days ahead': '+400d',
  'in 1970': '@1970-01-01 00:00:10',
}

/** What a clock that is wrong might end or delete. */
interface Data {
  here: Installation
  ana: Opened
  cursor: string
  reset: string
}

async function makeData(here: Installation): Promise<Data> {
  const server = await here.serve()
  const ana = await signUp(server.url, { id: 'ana' })
  await signUp(server.url, { id: 'ben' })
  const self = remoteClient(server.url, ana)
  await self.save('kept', bytes(50_000, 1))
  const { token } = await self.save('deleted', 'value')
  const page = (await (await self.request('/changes')).json()) as { cursor: string }
  await self.delete('deleted', token)
  await self.save('replaced', bytes(40_000, 2))
  const reset = (await here.run(['reset', 'ben'])).stdout.trim()
  // As an upload that a crash has left.
  writeFileSync(join(here.root, 'trash', `${Date.now()}-1-${'0'.repeat(26)}`), 'left')
  await server.stop()
  return { here, ana, cursor: page.cursor, reset }
}

const clocked = (time: string): Record<string, string> => ({
  LD_PRELOAD: library(),
  FAKETIME: time,
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
})

/** Starts the server at a wrong time, and at the right one after it: nothing ends, nothing goes. */
export async function startAtWrongTime(scope: Scope, time: string): Promise<void> {
  const data = await makeData(install(scope, EXECUTABLE))
  for (const environment of [clocked(time), clocked(time), {}]) {
    const server = await serveForAWhile(data.here, environment)
    await expectAll(server, data)
    await server.stop()
  }
  const server = await data.here.serve()
  const body = { password: 'battery horse correct', token: data.reset }
  assert.equal((await post(server.url, '/password', body)).status, 204, 'the reset token is good')
}

/** The clock of a running server leaps, and comes back. */
export async function leap(scope: Scope, time: string): Promise<void> {
  const data = await makeData(install(scope, EXECUTABLE))
  const file = join(data.here.folder, 'time')
  writeFileSync(file, '+0')
  forgetRounds(data.here)
  const server = await data.here.serve({
    LD_PRELOAD: library(),
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  })
  writeFileSync(file, time)
  await expectRound(data.here)
  await expectAll(server, data)
  writeFileSync(file, '+0')
  await expectAll(server, data)
  await server.stop()
}

async function serveForAWhile(
  here: Installation,
  environment: Record<string, string>,
): Promise<Server> {
  forgetRounds(here)
  const server = await here.serve(environment)
  await expectRound(here)
  return server
}

/** The reserve may have been made while the data was. */
const forgetRounds = (here: Installation): void =>
  rmSync(join(here.root, 'reserve'), { force: true })

/** Waits for a round of housekeeping, at whose end the reserve is made. */
const expectRound = (here: Installation): Promise<void> =>
  eventually(() => existsSync(join(here.root, 'reserve')), true)

async function expectAll({ url }: Server, { here, ana, cursor }: Data): Promise<void> {
  const self = remoteClient(url, ana)
  const kept = await self.get('kept')
  assert.equal(kept.status, 200, 'the session lives')
  assert.ok(bytes(50_000, 1).equals(Buffer.from(await kept.arrayBuffer())))
  assert.equal((await post(url, '/auth', { id: 'ana', password: PASSWORD })).status, 200)
  const changes = await self.request(`/changes?since=${cursor}`)
  assert.equal(changes.status, 200, 'the cursor is known')
  const { changes: found } = (await changes.json()) as { changes: { deleted?: true }[] }
  assert.equal(found.filter(({ deleted }) => deleted === true).length, 1, 'the deletion is told of')
  assert.equal(readdirSync(join(here.root, 'blobs')).length, 2)
  assert.equal(readdirSync(join(here.root, 'trash')).length, 1)
}
