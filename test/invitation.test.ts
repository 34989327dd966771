import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { issue } from '../src/invitation.ts'
import { DAY, MINUTE, count, outcomes, post, refusalOf, rows, sha256 } from './helpers/ask.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

const register = (node: TestNode, id: string, invitation?: string): Promise<Response> =>
  post(node, '/account', { id, password: PASSWORD, invitation })

const isKept = async (node: TestNode, invitation: string): Promise<boolean> =>
  (await count(node, 'invitation WHERE token = ?', [sha256(invitation)])) === 1

describe('REGISTRATION=invite', () => {
  it('takes an invitation, once', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const [first, second] = [await issue(node.running.deps), await issue(node.running.deps)]
    assert.match(first, /^[\w-]{43}$/)
    await expectStatus(await register(node, 'ana', first), 200)
    await node.logIn('ana')
    await expectProblem(await register(node, 'ben', first), 'ACCT01', 403)
    await expectStatus(await register(node, 'ben', second), 200)
    assert.equal(await count(node, 'invitation'), 0)
    assert.equal(await count(node, 'sync_account'), 2)
  })

  it('refuses a missing, wrong, spent or expired one with the same answer', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const [spent, expired] = [await issue(node.running.deps), await issue(node.running.deps)]
    await expectStatus(await register(node, 'ana', spent), 200)
    node.advance(7 * DAY)
    const refusal = await refusalOf(await register(node, 'ben'))
    assert.match((refusal as { body: string }).body, /"ACCT01"/)
    for (const wrong of [spent, expired, sha256(expired), '', 'wrong', 'x'.repeat(43)]) {
      assert.deepEqual(await refusalOf(await register(node, 'ben', wrong)), refusal)
    }
    assert.equal(await count(node, 'sync_account'), 1)
  })

  it('takes an invitation for 7 days', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const [inTime, late] = [await issue(node.running.deps), await issue(node.running.deps)]
    node.advance(7 * DAY - MINUTE)
    await node.running.housekeep()
    await expectStatus(await register(node, 'ana', inTime), 200)
    node.advance(MINUTE)
    await expectProblem(await register(node, 'ben', late), 'ACCT01', 403)
    await node.running.housekeep()
    assert.equal(await count(node, 'invitation'), 0)
  })

  it('lets one of many in who bring the same one at once', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const invitation = await issue(node.running.deps)
    const ids = ['ana', 'ben', 'cem', 'dia', 'eli']
    const answers = await outcomes(ids.map((id) => register(node, id, invitation)))
    assert.deepEqual(answers.sort(), ['200', ...Array<string>(4).fill('403 ACCT01')])
    assert.equal(await count(node, 'sync_account'), 1)
    assert.equal(await count(node, 'sync_session'), 1)
  })

  it('looks at the invitation before the id, and keeps it when the id will not do', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    await expectStatus(await register(node, 'ana', await issue(node.running.deps)), 200)
    const invitation = await issue(node.running.deps)
    const attempts = [
      [{ id: 'ana' }, 'ACCT03', 409],
      [{ id: '' }, 'ACCT02', 422],
      [{ id: 'ben', password: 'short' }, 'ACCT02', 422],
    ] as const
    for (const [wanted, code, status] of attempts) {
      const body = { password: PASSWORD, ...wanted }
      await expectProblem(await post(node, '/account', body), 'ACCT01', 403)
      const wrong = { ...body, invitation: 'wrong' }
      await expectProblem(await post(node, '/account', wrong), 'ACCT01', 403)
      await expectProblem(await post(node, '/account', { ...body, invitation }), code, status)
      assert.ok(await isKept(node, invitation))
    }
    await expectStatus(await register(node, 'ben', invitation), 200)
  })

  it('keeps an invitation as its SHA-256 only', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const invitation = await issue(node.running.deps)
    const [row] = await rows(node, 'SELECT token FROM invitation')
    assert.equal(row?.['token'], sha256(invitation))
  })

  it('is good after the server was started again', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const invitation = await issue(node.running.deps)
    await node.restart()
    await expectStatus(await register(node, 'ana', invitation), 200)
  })
})

describe('REGISTRATION=closed', () => {
  it('takes no invitation either, and lets those in who have an account', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await node.restart({ REGISTRATION: 'closed' })
    const invitation = await issue(node.running.deps)
    for (const [id, given] of [['ben'], ['ben', invitation], ['ana', invitation], ['']] as const) {
      await expectProblem(await register(node, id, given), 'ACCT01', 403)
    }
    assert.ok(await isKept(node, invitation))
    assert.equal((await node.logIn('ana')).id, 'ana')
  })
})

describe('REGISTRATION=open', () => {
  it('is the default and takes everyone, with or without an invitation', async (t) => {
    const node = await startNode(t)
    const invitation = await issue(node.running.deps)
    for (const [id, given] of [['ana'], ['ben', 'wrong'], ['cem', invitation]] as const) {
      await expectStatus(await register(node, id, given), 200)
    }
  })
})

describe('GET /info', () => {
  it('says how an account is come by', async (t) => {
    const node = await startNode(t)
    for (const registration of ['open', 'invite', 'closed']) {
      await node.restart({ REGISTRATION: registration })
      const info = (await (await node.request('/info')).json()) as { registration: string }
      assert.equal(info.registration, registration)
    }
  })
})
