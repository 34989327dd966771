import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { install, type Installation, type Ran } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { openStream, readPage } from './helpers/feed.ts'
import { PASSWORD } from './helpers/node.ts'
import { post, remoteClient, signUp } from './helpers/remote.ts'

/** It was done; answers what stands on stdout. */
function done({ code, stdout, stderr }: Ran): string {
  assert.equal(code, 0, stderr)
  return stdout
}

/** It was refused in one line; answers that. */
function refused({ code, stdout, stderr }: Ran, expectedCode = 1): string {
  assert.deepEqual([code, stdout], [expectedCode, ''], stderr)
  const said = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Data: '))
  assert.equal(said.length, 1, stderr)
  return said[0] as string
}

const json = async (here: Installation, ...args: string[]): Promise<unknown> =>
  JSON.parse(done(await here.run([...args, '--json'])))

async function startWithAna(t: TestContext) {
  const here = install(t)
  const server = await here.serve()
  const { url } = server
  const opened = await signUp(url, { id: 'ana' })
  const ana = remoteClient(url, opened)
  const login = () => post(url, '/auth', { id: 'ana', password: PASSWORD, device: 'a phone' })
  return { here, server, url, ana, login, user: opened.user }
}

describe('sync-node account, beside a running server', () => {
  it('lists accounts by handle with their use, and shows one by id or handle', async (t) => {
    const { here, url, ana, user } = await startWithAna(t)
    const ben = await signUp(url, { id: 'ben' })
    await expectStatus(await ana.put('notes', 'x'.repeat(2000)), 201)
    await expectStatus(await ana.grant('notes', ben.user, 'READ'), 200)
    const listed = (await json(here, 'account', 'list')) as Record<string, unknown>[]
    const [first, second] = listed
    assert.deepEqual(
      [first?.['user'], first?.['used'], first?.['stores'], first?.['owned'], first?.['sessions']],
      [user, 2000, 1, 1, 1],
    )
    assert.deepEqual(
      [second?.['user'], second?.['used'], second?.['stores'], second?.['owned']],
      [ben.user, 0, 1, 0],
    )
    const text = done(await here.run(['account', 'list']))
    assert.match(text, new RegExp(`^ACCOUNT .*\n${user}  2.0 KiB .* enabled\n`))
    for (const name of ['ana', ' ANA', user]) {
      const shown = (await json(here, 'account', 'show', name)) as Record<string, unknown>
      assert.deepEqual([shown['user'], shown['quota']], [user, 1024 ** 3])
      assert.equal((shown['sessions'] as unknown[]).length, 1)
    }
    assert.match(done(await here.run(['account', 'show', 'ana'])), /used +2\.0 KiB of 1\.0 GiB/)
    assert.match(refused(await here.run(['account', 'show', 'nobody'])), /no account/)
  })

  it('disables at once: sessions and streams end, nobody logs in, what is shared stays', async (t) => {
    const { here, url, ana, login, user } = await startWithAna(t)
    const ben = remoteClient(url, await signUp(url, { id: 'ben' }))
    const put = await expectStatus(await ana.put('notes', 'shared'), 201)
    const key = put.headers.get('x-sync-key') as string
    await expectStatus(await ana.grant('notes', ben.user, 'READ'), 200)
    const stream = await openStream(ana)
    done(await here.run(['account', 'disable', 'ana']))
    await expectProblem(await ana.get('notes'), 'AUTH01', 401)
    await expectProblem(await login(), 'AUTH02', 401)
    while ((await stream.next()) !== undefined);
    assert.equal(await (await expectStatus(await ben.get(key), 200)).text(), 'shared')
    assert.match(refused(await here.run(['reset', 'ana'])), /disabled/)
    const [listed] = (await json(here, 'account', 'list')) as Record<string, unknown>[]
    assert.deepEqual([listed?.['user'], listed?.['disabled']], [user, true])
    done(await here.run(['account', 'enable', 'ana']))
    await expectStatus(await login(), 200)
  })

  it('lets no reset token that was made before outlive the disabling', async (t) => {
    const { here, url, login } = await startWithAna(t)
    const token = done(await here.run(['reset', 'ana'])).trim()
    done(await here.run(['account', 'disable', 'ana']))
    done(await here.run(['account', 'enable', 'ana']))
    const spent = await post(url, '/password', { token, password: 'a new password' })
    await expectProblem(spent, 'AUTH02', 401)
    await expectStatus(await login(), 200)
  })

  it('deletes only when told yes, and then at once', async (t) => {
    const { here, url, ana, login } = await startWithAna(t)
    const ben = remoteClient(url, await signUp(url, { id: 'ben' }))
    const put = await expectStatus(await ana.put('notes', 'shared'), 201)
    const key = put.headers.get('x-sync-key') as string
    await expectStatus(await ana.grant('notes', ben.user, 'READ'), 200)
    assert.match(refused(await here.run(['account', 'delete', 'ana'])), /the 1 stores.*--yes/)
    await expectStatus(await ana.get('notes'), 200)
    done(await here.run(['account', 'delete', 'ana', '--yes']))
    await expectProblem(await ana.get('notes'), 'AUTH01', 401)
    await expectProblem(await ben.get(key), 'ERR01', 404)
    await expectProblem(await login(), 'AUTH02', 401)
    assert.match(refused(await here.run(['account', 'delete', 'ana', '--yes'])), /no account/)
    const again = remoteClient(url, await signUp(url, { id: 'ana' }))
    assert.deepEqual(await (await again.request('/store')).json(), [])
  })

  it('has those who could read something told within moments, as a deletion by its owner has', async (t) => {
    const { here, url, ana } = await startWithAna(t)
    const cleo = remoteClient(url, await signUp(url, { id: 'cleo' }))
    const ben = remoteClient(url, await signUp(url, { id: 'ben' }))
    const keys: string[] = []
    for (const owner of [ana, cleo]) {
      const put = await expectStatus(await owner.put('notes', 'shared'), 201)
      keys.push(put.headers.get('x-sync-key') as string)
      await expectStatus(await owner.grant('notes', 'ben', 'READ'), 200)
    }
    const { cursor } = await readPage(ben)
    const stream = await openStream(ben, { query: `?since=${cursor}` })
    t.after(() => stream.close())
    const deleted = async () => {
      for (;;) {
        const event = await stream.next()
        if (event === undefined || event.change.deleted === true) return event?.change.key
      }
    }
    done(await here.run(['account', 'delete', 'ana', '--yes']))
    assert.equal(await deleted(), keys[0])
    await expectStatus(await cleo.request('/account', { method: 'DELETE' }), 204)
    assert.equal(await deleted(), keys[1])
  })

  it('lists sessions with their devices, and ends one or all', async (t) => {
    const { here, url, ana, login } = await startWithAna(t)
    const phone = remoteClient(
      url,
      (await (await login()).json()) as { token: string; user: string },
    )
    const all = (await json(here, 'sessions', 'ana')) as { token: string; device: string | null }[]
    assert.deepEqual(new Set(all.map(({ device }) => device)), new Set(['a phone', null]))
    const { token = '' } = all.find(({ device }) => device === 'a phone') ?? {}
    assert.match(done(await here.run(['sessions', 'ana'])), /a phone/)
    assert.match(refused(await here.run(['sessions', 'ana', '--end', 'x'])), /no such session/)
    done(await here.run(['sessions', 'ana', '--end', token]))
    await expectProblem(await phone.get('notes'), 'AUTH01', 401)
    await expectProblem(await ana.get('notes'), 'ERR01', 404)
    done(await here.run(['sessions', 'ana', '--end', 'all']))
    await expectProblem(await ana.get('notes'), 'AUTH01', 401)
    assert.deepEqual(await json(here, 'sessions', 'ana'), [])
  })

  it('lets no name of a device steer the terminal', async (t) => {
    const { here, url } = await startWithAna(t)
    const device = 'phone\u001b[2J\u009b\r\nroot'
    await expectStatus(await post(url, '/auth', { id: 'ana', password: PASSWORD, device }), 200)
    const printed = done(await here.run(['sessions', 'ana'])).replaceAll('\n', '')
    assert.doesNotMatch(printed, /\p{Cc}/u)
  })
})

describe('sync-node', () => {
  it('healthcheck asks the server that runs here', async (t) => {
    const here = install(t)
    const server = await here.serve()
    const environment = { PORT: new URL(server.url).port }
    const healthy = done(await here.run(['healthcheck'], environment))
    assert.deepEqual(JSON.parse(healthy), { database: 'ok', disk: 'ok' })
    await server.stop()
    assert.match(refused(await here.run(['healthcheck'], environment)), /No answer/)
  })

  it('config prints what is in force and where it comes from, and no secret', async (t) => {
    const here = install(t)
    const printed = done(
      await here.run(['config'], {
        SECRET_KEY: 'a secret of more than 32 characters',
        SMTP_URL: 'smtp://mailer:hunter2@mail.example.org:587',
        MAIL_FROM: 'sync@example.org',
        TRUSTED_PROXIES: '10.0.0.0/8',
        QUOTA: '5G',
      }),
    )
    assert.match(printed, /^PORT +0 +environment$/m)
    assert.match(printed, /^QUOTA +5368709120 +environment$/m)
    assert.match(printed, /^REGISTRATION +open +default$/m)
    assert.match(printed, /^SMTP_URL +smtp:\/\/mailer:…@mail\.example\.org:587 +environment$/m)
    assert.match(printed, /^TRUSTED_PROXIES +.*10\.0\.0\.0\/8 +environment$/m)
    assert.doesNotMatch(printed, /hunter2|more than 32/)
    assert.match(refused(await here.run(['config'], { PORT: 'x' })), /PORT/)
  })

  it('version tells what is inside', async (t) => {
    const inside = JSON.parse(done(await install(t).run(['version', '--json'])))
    assert.deepEqual(Object.keys(inside), [
      'version',
      'schema',
      'platform',
      'node',
      'v8',
      'sqlite',
      'openssl',
    ])
  })

  it('tells of each command by --help, wherever it stands', async (t) => {
    const here = install(t)
    const names = [...done(await here.run(['--help'])).matchAll(/^ {2}([a-z]+(?: [a-z]+)?) /gm)]
    assert.ok(names.length >= 13)
    for (const [, name = ''] of names) {
      const text = done(await here.run([...name.split(' '), '--help']))
      assert.ok(text.startsWith(`Usage: sync-node ${name}`), text)
      assert.equal(done(await here.run(['help', ...name.split(' ')])), text)
    }
    assert.match(done(await here.run(['account', '--help'])), /account list[^]*account enable/)
  })

  it('says in one line, with exit code 2, that it was called wrongly', async (t) => {
    const here = install(t)
    for (const args of [
      ['backups'],
      ['account'],
      ['account', 'list', 'ana'],
      ['account', 'show'],
      ['sessions', 'ana', '--end'],
      ['invite', '--frobnicate'],
    ]) {
      assert.match(refused(await here.run(args), 2), /^sync-node.*--help$/)
    }
  })
})
