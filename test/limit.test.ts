import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { describe, it } from 'node:test'
import { readConfig } from '../src/config.ts'
import { clientAddress } from '../src/http/address.ts'
import {
  DAY,
  HOUR,
  MINUTE,
  cheapen,
  count,
  from,
  outcome,
  outcomes,
  post,
  refusalOf,
  tryLogin,
} from './helpers/ask.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

const HERE = '192.0.2.1'
const ELSEWHERE = '198.51.100.1'
const WRONG = 'a wrong password'

const loginFrom = (node: TestNode, address: string, id: string, password = PASSWORD) =>
  tryLogin(node, id, password, from(address))

/** So many wrong logins of `id`, ten at once; fails unless each was tried and found wrong. */
async function failFrom(node: TestNode, address: string, id: string, times = 10): Promise<void> {
  for (let left = times; left > 0; left -= 10) {
    const some = Array.from({ length: Math.min(left, 10) })
    const answers = await outcomes(some.map(() => loginFrom(node, address, id, WRONG)))
    assert.deepEqual([...new Set(answers)], ['401 AUTH02'], `${id} at ${address}`)
  }
}

/** The answer is RATE01; answers after how many milliseconds to try again. */
async function expectLimited(response: Response): Promise<number> {
  const retryAfter = response.headers.get('retry-after') ?? ''
  await expectProblem(response, 'RATE01', 429)
  assert.match(retryAfter, /^[1-9]\d*$/)
  return Number(retryAfter) * 1000
}

/** An attempt to register that costs no hash: tried, it is ACCT02. */
const attempt = (node: TestNode, headers: Record<string, string> = {}): Promise<Response> =>
  post(node, '/account', { id: 'ana', password: 'short' }, headers)

const TRIED = '422 ACCT02'
const LIMITED = '429 RATE01'

/** Uses up what an address has. */
async function exhaust(node: TestNode, headers: (i: number) => Record<string, string>) {
  for (let i = 0; i < 20; i++) assert.equal(await outcome(await attempt(node, headers(i))), TRIED)
}

describe('failed logins of an account at an address', () => {
  it('are 10 in 15 minutes, and then not even the right password is tried', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await failFrom(node, HERE, 'ana')
    const wait = await expectLimited(await loginFrom(node, HERE, 'ana'))
    assert.ok(wait <= 15 * MINUTE)
    await expectLimited(await loginFrom(node, HERE, ' ANA '))
    await expectStatus(await loginFrom(node, ELSEWHERE, 'ana'), 200)
    node.advance(wait)
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
  })

  it('last until Retry-After has passed, not less', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await failFrom(node, HERE, 'ana')
    node.advance(14 * MINUTE)
    const wait = await expectLimited(await loginFrom(node, HERE, 'ana'))
    assert.ok(wait <= MINUTE)
    node.advance(MINUTE)
    await failFrom(node, HERE, 'ana')
    await expectLimited(await loginFrom(node, HERE, 'ana'))
  })

  it('count alone: logins that succeed are as many as one likes', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await cheapen(node, 'ana')
    await failFrom(node, HERE, 'ana', 9)
    for (let i = 0; i < 30; i++) await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    await failFrom(node, HERE, 'ana', 1)
    await expectLimited(await loginFrom(node, HERE, 'ana'))
  })

  it('pass no further when many come at once than in a row', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const answers = await outcomes(
      Array.from({ length: 40 }, () => loginFrom(node, HERE, 'ana', WRONG)),
    )
    assert.equal(answers.filter((answer) => answer === '401 AUTH02').length, 10)
    assert.equal(answers.filter((answer) => answer === LIMITED).length, 30)
  })

  it('are counted for an unknown id in the same way', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await failFrom(node, HERE, 'ana')
    await failFrom(node, HERE, 'unknown')
    const [known, unknown] = [
      await refusalOf(await loginFrom(node, HERE, 'ana')),
      await refusalOf(await loginFrom(node, HERE, 'unknown')),
    ] as { status: number; body: string }[]
    assert.equal(known?.status, 429)
    assert.equal(unknown?.status, 429)
    assert.equal(known?.body, unknown?.body)
  })

  it('are not those that found the server too busy', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const { passwords } = node.running.deps
    const hashes = Array.from({ length: 18 }, () => passwords.hash(PASSWORD))
    const some = Array.from({ length: 10 })
    const answers = await outcomes(some.map(() => loginFrom(node, HERE, 'ana', WRONG)))
    await Promise.all(hashes)
    const busy = answers.filter((answer) => answer === '503 ERR05').length
    assert.equal(answers.filter((answer) => answer === '401 AUTH02').length, 10 - busy)
    await failFrom(node, HERE, 'ana', busy)
    await expectLimited(await loginFrom(node, HERE, 'ana'))
  })

  it('are wrong passwords in a change of the password too', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const change = (current: string): Promise<Response> =>
      ana.request('/password', {
        method: 'POST',
        body: JSON.stringify({ password: 'a new password', current }),
        headers: from(HERE),
      })
    await failFrom(node, HERE, 'ana', 5)
    for (let i = 0; i < 5; i++) await expectProblem(await change(WRONG), 'AUTH02', 401)
    await expectLimited(await change(PASSWORD))
    await expectLimited(await loginFrom(node, HERE, 'ana'))
    node.advance(15 * MINUTE)
    await expectStatus(await change(PASSWORD), 204)
  })
})

describe('failed logins at an address', () => {
  const names = (n: number): string[] => Array.from({ length: n }, (_, i) => `user ${i}`)

  it('are 100 in 15 minutes, whatever the accounts', async (t) => {
    const node = await startNode(t)
    const ids = names(11)
    await Promise.all(ids.map((id) => node.signUp(id)))
    await cheapen(node, ...ids)
    for (const id of ids.slice(0, 9)) await failFrom(node, HERE, id)
    await failFrom(node, HERE, 'user 9', 9)
    await expectStatus(await loginFrom(node, HERE, 'user 10'), 200)
    await failFrom(node, HERE, 'user 9', 1)
    const wait = await expectLimited(await loginFrom(node, HERE, 'user 10'))
    assert.ok(wait <= 15 * MINUTE)
    await expectLimited(await loginFrom(node, HERE, 'unknown'))
    await expectStatus(await loginFrom(node, ELSEWHERE, 'user 10'), 200)
    node.advance(wait)
    await expectStatus(await loginFrom(node, HERE, 'user 10'), 200)
  })

  it('that were refused for the account do not count for the address', async (t) => {
    const node = await startNode(t)
    await Promise.all([node.signUp('ana'), node.signUp('ben')])
    await failFrom(node, HERE, 'ana')
    for (let i = 0; i < 100; i++) await expectLimited(await loginFrom(node, HERE, 'ana', WRONG))
    await expectStatus(await loginFrom(node, HERE, 'ben'), 200)
  })
})

describe('failed logins of an account', () => {
  /** Ten failures at each of so many addresses. */
  async function failAround(node: TestNode, id: string, addresses: number, net = '203.0.113') {
    for (let i = 0; i < addresses; i++) await failFrom(node, `${net}.${i}`, id)
  }

  it('are 300 in an hour from anywhere; an address that logged in within 30 days passes', async (t) => {
    const node = await startNode(t)
    await Promise.all([node.signUp('ana'), node.signUp('ben')])
    await cheapen(node, 'ana')
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    await expectStatus(await loginFrom(node, ELSEWHERE, 'ben'), 200)
    await failAround(node, 'ana', 30)
    for (const address of [ELSEWHERE, '203.0.113.99']) {
      const wait = await expectLimited(await loginFrom(node, address, 'ana'))
      assert.ok(wait <= HOUR && wait > 15 * MINUTE)
    }
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    await expectStatus(await loginFrom(node, '203.0.113.99', 'ben'), 200)
    // There it is still limited as any other.
    await failFrom(node, HERE, 'ana')
    await expectLimited(await loginFrom(node, HERE, 'ana'))
    node.advance(HOUR)
    await expectStatus(await loginFrom(node, ELSEWHERE, 'ana'), 200)
  })

  it('let an address pass no longer than 30 days after it logged in', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await cheapen(node, 'ana')
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    node.advance(20 * DAY)
    await expectStatus(await loginFrom(node, ELSEWHERE, 'ana'), 200)
    node.advance(10 * DAY - 2 * HOUR)
    await failAround(node, 'ana', 30)
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    node.advance(20 * DAY + 3 * HOUR)
    await failAround(node, 'ana', 30)
    await expectLimited(await loginFrom(node, ELSEWHERE, 'ana'))
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
  })

  it('do not count where the address is known: its failures shut nobody out', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await cheapen(node, 'ana')
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    await failAround(node, 'ana', 29)
    await failFrom(node, HERE, 'ana')
    await failFrom(node, ELSEWHERE, 'ana', 9)
    await expectStatus(await loginFrom(node, '203.0.113.99', 'ana'), 200)
  })

  it('are counted for clients that a proxy hides too, and nothing else is', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await cheapen(node, 'ana')
    for (let i = 0; i < 30; i++) {
      const answers = await outcomes(Array.from({ length: 10 }, () => tryLogin(node, 'ana', WRONG)))
      assert.deepEqual([...new Set(answers)], ['401 AUTH02'])
    }
    await expectLimited(await tryLogin(node, 'ana'))
    await expectLimited(await loginFrom(node, HERE, 'ana'))
    node.advance(HOUR)
    await expectStatus(await tryLogin(node, 'ana'), 200)
  })
})

describe('attempts to register', () => {
  it('are 20 an hour and address, whatever comes of them', async (t) => {
    const node = await startNode(t)
    await expectStatus(
      await post(node, '/account', { id: 'ana', password: PASSWORD }, from(HERE)),
      200,
    )
    for (let i = 0; i < 10; i++) assert.equal(await outcome(await attempt(node, from(HERE))), TRIED)
    const taken = { id: 'ana', password: PASSWORD }
    for (let i = 0; i < 9; i++) {
      await expectProblem(await post(node, '/account', taken, from(HERE)), 'ACCT03', 409)
    }
    const ben = { id: 'ben', password: PASSWORD }
    const wait = await expectLimited(await post(node, '/account', ben, from(HERE)))
    assert.ok(wait <= HOUR)
    assert.equal(await count(node, 'sync_account'), 1)
    await expectStatus(await post(node, '/account', ben, from(ELSEWHERE)), 200)
    await expectStatus(await loginFrom(node, HERE, 'ana'), 200)
    node.advance(wait)
    const cem = { id: 'cem', password: PASSWORD }
    await expectStatus(await post(node, '/account', cem, from(HERE)), 200)
  })

  it('pass no further when many come at once', async (t) => {
    const node = await startNode(t)
    const answers = await outcomes(Array.from({ length: 50 }, () => attempt(node, from(HERE))))
    assert.equal(answers.filter((answer) => answer === TRIED).length, 20)
    assert.equal(answers.filter((answer) => answer === LIMITED).length, 30)
  })

  it('are limited for those without an invitation too, so that none is guessed', async (t) => {
    const node = await startNode(t, { REGISTRATION: 'invite' })
    const body = { id: 'ana', password: PASSWORD, invitation: 'guessed' }
    for (let i = 0; i < 20; i++) {
      await expectProblem(await post(node, '/account', body, from(HERE)), 'ACCT01', 403)
    }
    await expectLimited(await post(node, '/account', body, from(HERE)))
  })

  it('are not limited by address where a proxy hides the clients', async (t) => {
    const node = await startNode(t)
    const answers = await outcomes(Array.from({ length: 60 }, () => attempt(node)))
    assert.deepEqual([...new Set(answers)], [TRIED])
    for (const nothing of ['', ' ', ',', ' , ,']) {
      await exhaust(node, () => from(nothing))
      assert.equal(await outcome(await attempt(node, from(nothing))), TRIED)
    }
  })

  for (const [name, first, same, other] of [
    ['IPv6 by its /64', '2001:db8:1:2::1', '2001:DB8:1:2:ffff:0:0:9', '2001:db8:1:3::1'],
    ['IPv6 with a zone and in full', '2001:db8::1%eth0', '2001:0db8:0:0:1::', '2001:db8:0:1::1'],
    ['IPv4-mapped as IPv4', '::ffff:192.0.2.1', '192.0.2.1', '::ffff:192.0.2.2'],
    ['IPv4-mapped in hexadecimal', '::FFFF:C000:0201', '192.0.2.1', '::ffff:c000:0202'],
    ['an IPv4 with a port', '192.0.2.1:5000', '192.0.2.1:6000', '192.0.2.2:5000'],
    ['an IPv6 with a port', '[2001:db8::1]:5000', '2001:db8::2', '[2001:db8:0:1::1]:5000'],
  ] as const) {
    it(`are counted for ${name}`, async (t) => {
      const node = await startNode(t)
      await exhaust(node, () => from(first))
      await expectLimited(await attempt(node, from(same)))
      assert.equal(await outcome(await attempt(node, from(other))), TRIED)
    })
  }

  it('are counted for the last entry, however many are forged before it', async (t) => {
    const node = await startNode(t)
    await exhaust(node, (i) => from(`203.0.113.${i}, ::${i}, nonsense ${i}, ${HERE}`))
    await expectLimited(await attempt(node, from(`${ELSEWHERE}, ${HERE}`)))
    await expectLimited(await attempt(node, from(`127.0.0.1, ${HERE}`)))
    await expectLimited(await attempt(node, from(HERE)))
    assert.equal(await outcome(await attempt(node, from(`${HERE}, ${ELSEWHERE}`))), TRIED)
  })

  it('are counted for one client when its entry is no address', async (t) => {
    const node = await startNode(t)
    await exhaust(node, (i) => from(`unknown ${i}`))
    await expectLimited(await attempt(node, from('another name')))
  })

  it('are counted behind proxies that are trusted', async (t) => {
    const node = await startNode(t, { TRUSTED_PROXIES: '10.0.0.0/8, 2001:db8:ffff::/48' })
    const through = ['10.1.2.3', '10.9.9.9, 127.0.0.1', '2001:db8:ffff::1, 10.0.0.1', '::1']
    await exhaust(node, (i) => from(`203.0.113.${i}, ${HERE}, ${through[i % 4]}`))
    await expectLimited(await attempt(node, from(`${HERE}, ::ffff:10.0.0.1`)))
    assert.equal(await outcome(await attempt(node, from(`${HERE}, 11.0.0.1`))), TRIED)
    assert.equal(await outcome(await attempt(node, from(`${ELSEWHERE}, 10.0.0.1`))), TRIED)
  })

  it('are counted for a proxy that is not trusted', async (t) => {
    const node = await startNode(t)
    await exhaust(node, (i) => from(`203.0.113.${i}, 10.0.0.1`))
    await expectLimited(await attempt(node, from(`${HERE}, 10.0.0.1`)))
  })
})

describe('the address of a client', () => {
  const of = (peer: string, forwarded?: string, TRUSTED_PROXIES?: string): string | null =>
    clientAddress(
      {
        socket: { remoteAddress: peer },
        headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
      } as unknown as IncomingMessage,
      readConfig({ TRUSTED_PROXIES }).trustedProxies,
    )

  it('is the socket’s where that is no trusted proxy, whatever it claims', () => {
    for (const forwarded of [undefined, HERE, '127.0.0.1', '', '203.0.113.9, 127.0.0.1']) {
      assert.equal(of(ELSEWHERE, forwarded), ELSEWHERE)
      assert.equal(of(`::ffff:${ELSEWHERE}`, forwarded), ELSEWHERE)
      assert.equal(of(ELSEWHERE, forwarded, '10.0.0.0/8'), ELSEWHERE)
      assert.equal(of('2001:db8:1:2:3:4:5:6', forwarded), '2001:db8:1:2')
      assert.equal(of('fe80::1%eth0', forwarded), 'fe80:0:0:0')
    }
  })

  it('is what a proxy on loopback says, and hidden where it says nothing', () => {
    for (const peer of ['127.0.0.1', '127.1.2.3', '::1', '::ffff:127.0.0.1']) {
      assert.equal(of(peer, HERE), HERE)
      assert.equal(of(peer, `${ELSEWHERE}, ${HERE}`), HERE)
      assert.equal(of(peer), null)
      assert.equal(of(peer, undefined, HERE), null)
    }
  })

  it('is what a listed proxy says, and the proxy itself where it says nothing', () => {
    for (const [proxy, listed, itself] of [
      ['10.0.0.1', '10.0.0.1', '10.0.0.1'],
      ['10.0.0.1', '10.0.0.0/24 , 192.168.0.0/16', '10.0.0.1'],
      ['::ffff:10.0.0.1', '10.0.0.0/8', '10.0.0.1'],
      ['10.0.0.1', '::ffff:10.0.0.1', '10.0.0.1'],
      ['2001:db8::1', '2001:db8::/32', '2001:db8:0:0'],
    ] as const) {
      assert.equal(of(proxy, `203.0.113.9, ${HERE}`, listed), HERE, listed)
      assert.equal(of(proxy, undefined, listed), itself, listed)
    }
  })
})
