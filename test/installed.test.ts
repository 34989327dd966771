import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parseEnvironmentFile } from '../src/environment-file.ts'
import { giveToService, serviceUser, withSettings } from '../src/installed.ts'
import { ENVIRONMENT_FILES } from './helpers/environment-files.ts'
import { install } from './helpers/executable.ts'
import { temporaryFolder } from './helpers/node.ts'
import { signUp } from './helpers/remote.ts'

describe('A settings file', () => {
  for (const [text, expected] of ENVIRONMENT_FILES) {
    it(`is read as systemd reads it: ${JSON.stringify(text)}`, () => {
      assert.deepEqual(parseEnvironmentFile(text), expected)
    })
  }
})

const OWNER = { uid: 54_321, gid: 54_322 }
const isFine = process.getuid?.() === 0 || process.env['CI'] !== undefined
const skip = isFine ? false : 'NOT TESTED: only root can work for others'

describe('The installed executable', () => {
  const executable = '/usr/bin/sync-node'

  it('takes what is not in the environment from the settings of the service', (t) => {
    const file = join(temporaryFolder(t), 'settings')
    writeFileSync(file, 'PORT=81\nSECRET_KEY_FILE=/secret\nSMTP_URL=smtp://x\nHOST=::1\n')
    const environment = {
      PATH: '/bin',
      PORT: '82',
      SECRET_KEY: 'k',
      SMTP_URL_FILE: '/smtp',
      HOST: '',
    }
    assert.deepEqual(withSettings(environment, { executable, file }), {
      ...environment,
      HOST: '::1',
      STATIC_ROOT: '/var/lib/sync-node',
    })
    assert.deepEqual(
      withSettings(environment, { executable: '/home/ana/sync-node', file }),
      environment,
    )
  })

  it('takes the credentials of the service, while that runs', (t) => {
    const credentials = temporaryFolder(t)
    const from = (there: string) =>
      withSettings({}, { executable, file: '/none', credentials: there })['CREDENTIALS_DIRECTORY']
    assert.equal(from(credentials), credentials)
    assert.equal(from(join(credentials, 'none')), undefined)
  })

  it('gives what root makes to the user of the service', { skip }, (t) => {
    const users = join(temporaryFolder(t), 'passwd')
    assert.equal(serviceUser({ executable, users }), null)
    writeFileSync(
      users,
      `root:x:0:0::/root:/bin/sh\nsync-node:x:${OWNER.uid}:${OWNER.gid}::/:/bin/sh\n`,
    )
    assert.deepEqual(serviceUser({ executable, users }), OWNER)
    assert.equal(serviceUser({ executable: '/home/ana/sync-node', users }), null)
    const root = temporaryFolder(t)
    mkdirSync(join(root, 'blobs'))
    writeFileSync(join(root, 'blobs', 'value'), '')
    giveToService(root, OWNER)
    for (const name of ['', 'blobs', 'blobs/value']) {
      const { uid, gid } = statSync(join(root, name))
      assert.deepEqual({ uid, gid }, OWNER, name)
    }
  })

  it('works on no other data where it may not read the settings', { skip }, (t) => {
    const file = join(temporaryFolder(t), 'settings')
    writeFileSync(file, 'STATIC_ROOT=/srv/sync', { mode: 0o600 })
    chmodSync(join(file, '..'), 0o755)
    process.seteuid?.(OWNER.uid)
    try {
      assert.throws(
        () => withSettings({}, { executable, file }),
        /cannot be read: run this as root/,
      )
      const given = { STATIC_ROOT: '/srv/sync' }
      assert.deepEqual(withSettings(given, { executable, file }), given)
    } finally {
      process.seteuid?.(0)
    }
  })

  it('works on /var/lib/sync-node, unless it is told otherwise', (t) => {
    const file = join(temporaryFolder(t), 'settings')
    assert.deepEqual(withSettings({}, { executable, file }), { STATIC_ROOT: '/var/lib/sync-node' })
    writeFileSync(file, 'STATIC_ROOT=/srv/sync')
    assert.deepEqual(withSettings({}, { executable, file }), { STATIC_ROOT: '/srv/sync' })
    writeFileSync(file, 'STATIC_ROOT_FILE=/root')
    assert.deepEqual(withSettings({}, { executable, file }), { STATIC_ROOT_FILE: '/root' })
    const environment = { STATIC_ROOT: './data' }
    assert.deepEqual(withSettings(environment, { executable, file }), environment)
  })
})

describe('A command of root', { skip }, () => {
  it('works as the owner of the data, and leaves nothing there that is not the owner’s', async (t) => {
    const here = install(t)
    chmodSync(here.folder, 0o755)
    mkdirSync(here.root, { mode: 0o700 })
    chownSync(here.root, OWNER.uid, OWNER.gid)
    const server = await here.serve()
    const status = readStatus(server.pid)
    assert.match(status, new RegExp(`^Uid:(\\t${OWNER.uid}){4}$`, 'm'))
    assert.match(status, new RegExp(`^Gid:(\\t${OWNER.gid}){4}$`, 'm'))
    assert.match(status, new RegExp(`^Groups:\\t${OWNER.gid} ?$`, 'm'))
    assert.match(status, /^CapEff:\t0+$/m)
    await signUp(server.url, { id: 'ana' })
    assert.equal((await here.run(['reset', 'ana'])).code, 0)
    const files = readdirSync(here.root)
    assert.ok(files.includes('sync-node.db-wal'))
    for (const name of files) {
      const { uid, gid } = statSync(join(here.root, name))
      assert.deepEqual({ uid, gid }, OWNER, name)
    }
    await server.stop()
    // What the owner cannot read, root could.
    chownSync(join(here.root, 'sync-node.db'), 0, 0)
    assert.match((await here.run(['reset', 'ana'])).stderr, /cannot be opened/)
    assert.match((await here.run(['doctor'])).stdout, /cannot be opened/)
  })

  it('reads a setting from a file that is for root alone', async (t) => {
    const here = install(t)
    chmodSync(here.folder, 0o755)
    mkdirSync(here.root, { mode: 0o700 })
    chownSync(here.root, OWNER.uid, OWNER.gid)
    const file = join(here.folder, 'secret-key')
    writeFileSync(file, 'k'.repeat(40), { mode: 0o600 })
    const environment = { SECRET_KEY_FILE: file }
    const server = await here.serve(environment)
    await signUp(server.url, { id: 'ana' })
    assert.equal((await here.run(['reset', 'ana'], environment)).code, 0)
  })
})

const readStatus = (pid: number): string => readFileSync(`/proc/${pid}/status`, 'utf8')
