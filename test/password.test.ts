import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { getPriority } from 'node:os'
import { describe, it } from 'node:test'
import { create } from '../src/account.ts'
import { toHandle } from '../src/handle.ts'
import { PRINTED_MS, print } from '../src/reset-token.ts'
import { commit } from '../src/database/database.ts'
import {
  HOUR,
  MINUTE,
  count,
  outcomes,
  post,
  refusalOf,
  rows,
  sha256,
  tryLogin,
} from './helpers/ask.ts'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

const NEW = 'a new password'

const change = (self: Client, body: object): Promise<Response> =>
  self.request('/password', { method: 'POST', body: JSON.stringify(body) })

const reset = (node: TestNode, token: string, password = NEW): Promise<Response> =>
  post(node, '/password', { password, token })

/** A token as `sync-node reset` prints it, or `sync-node account add` for a new account. */
async function printFor(node: TestNode, id: string, kind: keyof typeof PRINTED_MS = 'reset') {
  const { deps } = node.running
  const handle = toHandle(deps, id)
  const { secret, statements } = print(deps, handle, PRINTED_MS[kind])
  const all = kind === 'reset' ? statements : [...create(deps, { handle, phc: '' }), ...statements]
  await commit(
    deps.database,
    () => all,
    async () => assert.fail('there is no such account, or one already'),
  )
  return secret
}

/** Asks for a token by mail, and reads the mail. */
async function mailFor(node: TestNode, id: string): Promise<string> {
  const { length } = node.mails
  await expectStatus(await post(node, '/resetpassword', { id }), 204)
  await eventually(() => node.mails.length, length + 1)
  return node.mails.at(-1)?.token as string
}

async function expectEnded(...sessions: Client[]): Promise<void> {
  for (const self of sessions) {
    await expectProblem(await self.request('/account'), 'AUTH01', 401)
    await expectProblem(await self.put('a', 'x'), 'AUTH01', 401)
  }
}

describe('POST /password with the current password', () => {
  it('sets a new one and ends every other session', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const phone = await node.logIn('ana')
    await phone.save('a', 'x')
    const changed = await change(ana, { password: NEW, current: PASSWORD })
    assert.equal((await expectStatus(changed, 204)).headers.get('cache-control'), 'no-store')
    await expectEnded(phone)
    await expectProblem(await tryLogin(node, 'ana'), 'AUTH02', 401)
    assert.equal((await ana.list()).length, 1)
    await expectStatus(await tryLogin(node, 'ana', NEW), 200)
    await expectStatus(await ben.request('/account'), 200)
    await expectStatus(await tryLogin(node, 'ben'), 200)
  })

  it('refuses a wrong one as a wrong login, and changes nothing', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const phone = await node.logIn('ana')
    const login = await refusalOf(await tryLogin(node, 'ana', 'wrong'))
    for (const current of ['wrong', '', NEW, ana.user]) {
      assert.deepEqual(await refusalOf(await change(ana, { password: NEW, current })), login)
    }
    await expectStatus(await phone.request('/account'), 200)
    await expectStatus(await tryLogin(node, 'ana'), 200)
  })

  it('needs a session', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const body = { password: NEW, current: PASSWORD }
    await expectProblem(await post(node, '/password', body), 'AUTH01', 401)
    const unknown = { Authorization: `Bearer ${sha256(ana.token)}` }
    await expectProblem(await post(node, '/password', body, unknown), 'AUTH01', 401)
    await expectStatus(await ana.request('/auth', { method: 'DELETE' }), 204)
    await expectProblem(await change(ana, body), 'AUTH01', 401)
    await expectStatus(await tryLogin(node, 'ana'), 200)
  })

  it('refuses one that does not meet the rules', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana@example.org')
    for (const password of ['seven 7', 'ﬁﬁﬁa', 'x'.repeat(1025), ' ANA@example.org']) {
      const refused = await change(ana, { password, current: PASSWORD })
      await expectProblem(refused, 'ACCT02', 422)
    }
    await expectStatus(await change(ana, { password: 'ﬁﬁﬁﬁ', current: PASSWORD }), 204)
    await expectStatus(await tryLogin(node, 'ana@example.org', 'fifififi'), 200)
  })

  for (const [name, isOne] of [
    ['one session', true],
    ['several', false],
  ] as const) {
    it(`does one of many changes that are asked for at once, by ${name}`, async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const others = await Promise.all([1, 2, 3].map(async () => (isOne ? ana : node.logIn('ana'))))
      const wanted = [0, 1, 2, 3].map((i) => `password number ${i}`)
      const answers = await Promise.all(
        [ana, ...others].map((self, i) => change(self, { password: wanted[i], current: PASSWORD })),
      )
      const statuses = answers.map(({ status }) => status)
      assert.equal(statuses.filter((status) => status === 401).length, 3)
      await expectStatus(await tryLogin(node, 'ana', wanted[statuses.indexOf(204)]), 200)
      assert.equal(await count(node, 'sync_session'), 2)
    })
  }

  it('is refused to an account that was disabled', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await rows(node, 'UPDATE sync_account SET disabled = 1')
    const refused = await change(ana, { password: NEW, current: PASSWORD })
    await expectProblem(refused, 'AUTH02', 401)
  })

  it('takes current or token, not both and not neither', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const body of [{ password: NEW }, { password: NEW, current: PASSWORD, token: 'x' }]) {
      await expectProblem(await change(ana, body), 'REQ01', 400)
    }
  })
})

describe('POST /password with a reset token', () => {
  for (const [kind, tokenFor] of [
    ['mailed', mailFor],
    ['printed', printFor],
  ] as const) {
    it(`sets a password and ends every session (${kind})`, async (t) => {
      const node = await startNode(t)
      const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
      const phone = await node.logIn('ana')
      await phone.save('a', 'x')
      const token = await tokenFor(node, 'ana')
      assert.match(token, /^[\w-]{43}$/)
      await expectStatus(await reset(node, token), 204)
      await expectEnded(ana, phone)
      await expectStatus(await ben.request('/account'), 200)
      await expectProblem(await tryLogin(node, 'ana'), 'AUTH02', 401)
      const again = await node.logIn('ana', { password: NEW })
      assert.equal(await (await again.get('a')).text(), 'x')
      await expectStatus(await tryLogin(node, 'ben'), 200)
    })

    it(`takes a token for an hour (${kind})`, async (t) => {
      const node = await startNode(t)
      await Promise.all([node.signUp('ana'), node.signUp('ben')])
      const [late, inTime] = [await tokenFor(node, 'ana'), await tokenFor(node, 'ben')]
      node.advance(HOUR - MINUTE)
      await expectStatus(await reset(node, inTime), 204)
      node.advance(MINUTE)
      await expectProblem(await reset(node, late), 'AUTH02', 401)
      await expectStatus(await tryLogin(node, 'ana'), 200)
      await node.running.housekeep()
      assert.equal(await count(node, 'password_reset_token'), 0)
    })
  }

  it('takes a token once, also from many at once', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const token = await mailFor(node, 'ana')
    const wanted = [1, 2, 3, 4, 5].map((i) => `password number ${i}`)
    const answers = await outcomes(wanted.map((password) => reset(node, token, password)))
    const winner = wanted[answers.indexOf('204')]
    assert.deepEqual(answers.sort(), ['204', ...Array<string>(4).fill('401 AUTH02')])
    await expectStatus(await tryLogin(node, 'ana', winner), 200)
    await expectProblem(await reset(node, token), 'AUTH02', 401)
    await expectStatus(await tryLogin(node, 'ana', winner), 200)
  })

  it('refuses a wrong, spent or expired token with the same answer', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await node.signUp('ben')
    const [spent, expired] = [await printFor(node, 'ana'), await printFor(node, 'ben')]
    await expectStatus(await reset(node, spent), 204)
    node.advance(HOUR)
    const refusal = await refusalOf(await reset(node, 'wrong'))
    assert.match((refusal as { body: string }).body, /"AUTH02"/)
    for (const token of [spent, expired, '', sha256(expired), ana.token, 'x'.repeat(43)]) {
      assert.deepEqual(await refusalOf(await reset(node, token)), refusal)
    }
    // A token that is no good is told before a password that is none.
    assert.deepEqual(await refusalOf(await reset(node, spent, 'short')), refusal)
  })

  it('keeps the token when the password does not meet the rules', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana@example.org')
    const token = await mailFor(node, 'ana@example.org')
    for (const password of ['seven 7', 'ﬁﬁﬁa', 'x'.repeat(1025), 'Ana@example.org']) {
      await expectProblem(await reset(node, token, password), 'ACCT02', 422)
    }
    await expectStatus(await reset(node, token), 204)
  })

  it('ignores any Authorization', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const ended = await node.logIn('ana')
    await expectStatus(await ended.request('/auth', { method: 'DELETE' }), 204)
    const bearers = [ana.token, ben.token, ended.token, 'x'.repeat(43), ''].map(
      (token) => `Bearer ${token}`,
    )
    for (const Authorization of [...bearers, 'Basic eDp5', 'nonsense']) {
      const body = { password: NEW, token: await printFor(node, 'ana') }
      await expectStatus(await post(node, '/password', body, { Authorization }), 204)
    }
    await expectStatus(await ben.request('/account'), 200)
    await expectStatus(await tryLogin(node, 'ben'), 200)
    await expectProblem(await tryLogin(node, 'ben', NEW), 'AUTH02', 401)
  })

  it('finds nothing of an account that was deleted', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const token = await printFor(node, 'ana')
    await expectStatus(await ana.request('/account', { method: 'DELETE' }), 204)
    await node.signUp('ana')
    await expectProblem(await reset(node, token), 'AUTH02', 401)
    await expectStatus(await tryLogin(node, 'ana'), 200)
  })

  it('is kept as the SHA-256 of the token only', async (t) => {
    const node = await startNode(t)
    await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const tokens = [await mailFor(node, 'ana'), await printFor(node, 'ben')]
    const stored = await rows(node, 'SELECT token FROM password_reset_token ORDER BY printed')
    assert.deepEqual(
      stored.map(({ token }) => token),
      tokens.map(sha256),
    )
  })
})

describe('a token that the command line prints', () => {
  it('is good for 7 days where it is for a new account', async (t) => {
    const node = await startNode(t)
    const [late, inTime] = [
      await printFor(node, 'ana', 'newAccount'),
      await printFor(node, 'ben', 'newAccount'),
    ]
    await expectProblem(await tryLogin(node, 'ben', ''), 'AUTH02', 401)
    node.advance(7 * 24 * HOUR - MINUTE)
    await expectStatus(await reset(node, inTime), 204)
    await node.logIn('ben', { password: NEW })
    await expectProblem(await reset(node, inTime), 'AUTH02', 401)
    node.advance(MINUTE)
    await expectProblem(await reset(node, late), 'AUTH02', 401)
  })

  it('is replaced by another one, but by no mail', async (t) => {
    const node = await startNode(t)
    await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const first = await printFor(node, 'ana')
    node.advance(30 * MINUTE)
    await expectStatus(await post(node, '/resetpassword', { id: 'ana' }), 204)
    // Ben's mail shows that ana's turn has passed.
    await mailFor(node, 'ben')
    assert.deepEqual(
      node.mails.map(({ address }) => address),
      ['ben'],
    )
    const second = await printFor(node, 'ana')
    await expectProblem(await reset(node, first), 'AUTH02', 401)
    await expectStatus(await reset(node, second), 204)
  })

  it('makes way for a mail when it has expired', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await printFor(node, 'ana')
    node.advance(HOUR)
    await expectStatus(await reset(node, await mailFor(node, 'ana')), 204)
  })
})

describe('a password hash', () => {
  it('gives way to all else that the process does', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const threads = readdirSync('/proc/self/task').map(Number)
    const lower = threads.filter((thread) => getPriority(thread) > getPriority())
    assert.ok(lower.length > 0)
  })
})
