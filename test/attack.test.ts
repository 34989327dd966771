// Owns the short proof that guessing passwords neither gets in nor gets in the way; `make attack` is the
// long one, which judges times as well. That limits hold one by one is in limit.test.ts.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { limiter } from '../src/limit.ts'
import { openLine, signUpAll, WRONG } from './attack/ask.ts'
import { flood } from './attack/flood.ts'
import { compare, rankTest } from './attack/guess.ts'
import { addressOf, tryWay, WAYS } from './attack/limits.ts'
import { cheapen, HOUR } from './helpers/ask.ts'
import { eventually } from './helpers/eventually.ts'
import { install } from './helpers/executable.ts'
import { startNode } from './helpers/node.ts'

const MIB = 1024 * 1024

function privateMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]) / 1024
}

describe('A flood of logins', () => {
  it('is refused, costs little memory, and keeps nobody out who was there before', async (t) => {
    const server = await install(t).serve()
    const before = privateMib(server.pid)
    let peak = before
    const watch = setInterval(() => (peak = Math.max(peak, privateMib(server.pid))), 50)
    const found = await flood(server.url, { seconds: 6, quietSeconds: 1, rate: 300, addresses: 50 })
    clearInterval(watch)
    const { home, away, outcomes, logins, mostTried, brokenReads } = found
    t.diagnostic(`${logins} logins: ${JSON.stringify(outcomes)}`)
    t.diagnostic(
      `people at home ${home.ms.map(Math.round).join()} ms, away ${away.ms.map(Math.round).join()} ms`,
    )
    t.diagnostic(`${(peak - before).toFixed(0)} MiB more at the most`)
    const expected = ['401 AUTH02', '429 RATE01', '503 ERR05']
    assert.deepEqual(
      Object.keys(outcomes).filter((one) => !expected.includes(one)),
      [],
    )
    assert.deepEqual(brokenReads, [])
    assert.deepEqual(home.refused, [])
    assert.ok(home.ms.length > 0 && away.ms.length > 0)
    assert.ok(mostTried <= 100, `${mostTried}`)
    // A pool of threads that each keep the memory of a hash takes 300.
    assert.ok(peak - before < 150, `${peak - before} MiB more`)
  })
})

describe('Who asks which ids have an account', () => {
  it('is answered alike by a login, and by the request for a reset mail', async (t) => {
    const node = await startNode(t)
    const line = openLine(node.url)
    t.after(() => line.close())
    const pairs = Array.from({ length: 40 }, (_, i) => ({
      known: `known ${i}`,
      unknown: `other ${i}`,
    }))
    await signUpAll(
      line,
      pairs.map(({ known }) => known),
    )
    const login = await compare(line, pairs, {
      about: (id, from) => ({ path: '/auth', body: { id, password: WRONG }, from }),
    })
    const reset = await compare(line, pairs, {
      about: (id, from) => ({ path: '/resetpassword', body: { id }, from }),
    })
    t.diagnostic(`login p = ${login.p.toFixed(3)}, reset p = ${reset.p.toFixed(3)}`)
    assert.deepEqual([login.words.length, reset.words.length], [1, 1])
    await eventually(() => node.mails.length, pairs.length)
  })

  it('would be found out: the test of ranks tells times that differ, and only those', () => {
    const times = (n: number, more: number): number[] =>
      Array.from({ length: n }, (_, i) => ((i * 7919) % n) / n + more)
    assert.ok(rankTest(times(500, 0), times(499, 0)) > 0.9)
    assert.ok(rankTest(times(500, 0), times(500, 0.2)) < 1e-6)
    // By hand: z is 12.5 / 4.787.
    const p = rankTest([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert.ok(Math.abs(p - 0.00902) < 1e-4, `${p}`)
  })
})

describe('The limit of an address', () => {
  it('holds for logins, whatever is said before the address, and for an IPv6 network as a whole', async (t) => {
    const node = await startNode(t, { TRUSTED_PROXIES: '10.0.0.0/8' })
    const line = openLine(node.url)
    t.after(() => line.close())
    const ids = Array.from({ length: 15 }, (_, i) => `user ${i}`)
    await signUpAll(line, ids)
    await cheapen(node, ...ids)
    for (const { name, from, tried } of WAYS) {
      // Each id once more than one address may guess at it within its hour.
      const found = await tryWay(line, from, (i) => ids[i % ids.length] as string)
      const limited = tried === 120 ? {} : { '429 RATE01': 120 - tried }
      assert.deepEqual(found, { '401 AUTH02': tried, ...limited }, name)
      node.advance(HOUR)
    }
  })
})

describe('What the limiter remembers', () => {
  it('is bounded, by a million addresses too', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const used = (): number => {
      collect()
      return process.memoryUsage().heapUsed / MIB
    }
    const limit = { name: 'login address', count: 100, windowMs: HOUR }
    const limits = limiter({ now: () => 0 } as Parameters<typeof limiter>[0])
    const attempt = (from: number, to: number): void => {
      for (let i = from; i < to; i++) {
        limits.take(limit, addressOf(i))
        limits.remember(addressOf(i))
        limits.ask(addressOf(i))
      }
    }
    const empty = used()
    attempt(0, 100_000)
    const full = used()
    attempt(100_000, 1_000_000)
    const [filled, grown] = [full - empty, used() - full]
    console.log(`${filled.toFixed(1)} MiB full, ${grown.toFixed(1)} MiB more after a million`)
    assert.ok(filled < 40 && grown < 5, `${filled} ${grown}`)
  })
})
