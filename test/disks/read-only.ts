// Owns the trial of a disk that takes no writes any more, and then does again.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { EXECUTABLE, install } from '../helpers/executable.ts'
import { remoteClient, signUp } from '../helpers/remote.ts'
import { compile, type Op } from './disk.ts'
import { mountExt4 } from './mount.ts'
import { STOPS, openPlace, type Scope } from './place.ts'
import type { Client } from '../helpers/client.ts'

const WRITES: Op[] = ['create', 'write', 'truncate', 'rename', 'unlink', 'mkdir']

/** Writes are refused as ERR05, reads go on. */
async function expectReadOnly(client: Client, turn: number): Promise<void> {
  for (const size of [10, 100_000]) {
    const refused = await client.put(`new ${turn}`, randomBytes(size))
    assert.equal(refused.status, 503)
    assert.match(await refused.text(), /ERR05/)
  }
  assert.equal((await client.get('small')).status, 200)
  assert.equal((await client.get('large')).status, 200)
}

/** So many times without a restart: by the library, since Linux remounts nothing that is open for writing. */
export async function turnReadOnly(scope: Scope, folder: string, times: number): Promise<void> {
  const place = await openPlace(scope, compile(folder))
  for (let turn = 0; turn < times; turn++) {
    place.disk.arm('create', 1, { name: '', error: 'EROFS', later: WRITES })
    assert.equal((await place.keeper.put('first', randomBytes(100_000))).status, 503)
    await expectReadOnly(place.keeper, turn)
    place.disk.calm()
    await place.promise()
    await place.keeper.save(`new ${turn}`, randomBytes(100_000))
    await place.expectKept()
  }
}

/** Once by an ext4 that gave up, mounted anew under the next start. */
export async function remount(scope: Scope): Promise<void> {
  const { point, abort, again } = mountExt4(scope, 600)
  const here = install(scope, EXECUTABLE)
  const environment = { STATIC_ROOT: join(point, 'data') }
  const server = await here.serve(environment)
  const opened = await signUp(server.url, { id: 'ana' })
  const ana = remoteClient(server.url, opened)
  await ana.save('small', 'value')
  await ana.save('large', randomBytes(100_000))
  abort()
  await expectReadOnly(ana, 0)
  const { code } = await server.stop()
  // The sync of its last checkpoint fails, and it says so.
  assert.ok(code === 0 || STOPS.test(server.output().stdout))
  again()
  const next = remoteClient((await here.serve(environment)).url, opened)
  assert.equal(await (await next.get('small')).text(), 'value')
  await next.save('new', randomBytes(100_000))
}
