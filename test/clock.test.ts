import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { guardedClock, type Clock } from '../src/clock.ts'
import { issue } from '../src/invitation.ts'
import { DAY, HOUR, MINUTE, count, post, rows } from './helpers/ask.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'

const START = Date.UTC(2026, 5, 1)
const BUILT = Date.UTC(2026, 0, 1)

/** A machine whose clock a test sets; time goes on in both of its clocks. */
function machine(wall = START) {
  const time = { wall, uptime: 5 * MINUTE }
  return {
    source: { wall: () => time.wall, uptime: () => time.uptime },
    /** Lets time go on, looked at once an hour as a server would more often. */
    pass(ms: number, clock: Clock): void {
      for (let left = ms; left > 0; left -= HOUR) {
        const step = Math.min(left, HOUR)
        time.wall += step
        time.uptime += step
        clock.now()
      }
    },
    leap(ms: number): void {
      time.wall += ms
    },
    set(ms: number): void {
      time.wall = ms
    },
  }
}

describe('the guarded clock', () => {
  it('is the machine’s while that is right', () => {
    const { source, pass } = machine()
    const clock = guardedClock(source, BUILT, START - HOUR)
    assert.equal(clock.now(), START)
    pass(400 * DAY, clock)
    assert.equal(clock.now(), START + 400 * DAY)
    assert.equal(clock.wall(), START + 400 * DAY)
  })

  it('follows a small correction at once, and none that goes back', () => {
    const { source, pass, leap } = machine()
    const clock = guardedClock(source, BUILT, START)
    leap(DAY)
    assert.equal(clock.now(), START + DAY)
    leap(-HOUR)
    assert.equal(clock.now(), START + DAY)
    pass(2 * HOUR, clock)
    assert.equal(clock.now(), START + DAY + 2 * HOUR)
  })

  for (const [name, to] of [
    ['30 days back', START - 30 * DAY],
    ['back to 1970', 0],
  ] as const) {
    it(`goes on when the machine’s is set ${name}, and when it comes back`, () => {
      const { source, pass, set } = machine()
      const clock = guardedClock(source, BUILT, START)
      set(to)
      assert.equal(clock.now(), START)
      pass(3 * DAY, clock)
      assert.equal(clock.now(), START + 3 * DAY)
      set(START + 3 * DAY + MINUTE)
      assert.equal(clock.now(), START + 3 * DAY + MINUTE)
    })
  }

  it('follows a leap of 400 days when it has lasted for 24 hours, not before', () => {
    const { source, pass, leap } = machine()
    const clock = guardedClock(source, BUILT, START)
    leap(400 * DAY)
    assert.equal(clock.now(), START)
    pass(DAY - MINUTE, clock)
    assert.equal(clock.now(), START + DAY - MINUTE)
    pass(MINUTE, clock)
    assert.equal(clock.now(), START + 401 * DAY)
  })

  it('forgets a leap that was taken back, and waits anew for the next', () => {
    const { source, pass, leap } = machine()
    const clock = guardedClock(source, BUILT, START)
    leap(400 * DAY)
    assert.equal(clock.now(), START)
    pass(23 * HOUR, clock)
    leap(-400 * DAY)
    assert.equal(clock.now(), START + 23 * HOUR)
    pass(HOUR, clock)
    leap(400 * DAY)
    assert.equal(clock.now(), START + DAY)
    pass(23 * HOUR, clock)
    assert.equal(clock.now(), START + 47 * HOUR)
    pass(HOUR, clock)
    assert.equal(clock.now(), START + 402 * DAY)
  })

  it('waits anew when the machine’s leaps a second time', () => {
    const { source, pass, leap } = machine()
    const clock = guardedClock(source, BUILT, START)
    leap(400 * DAY)
    assert.equal(clock.now(), START)
    pass(23 * HOUR, clock)
    leap(4000 * DAY)
    pass(2 * HOUR, clock)
    assert.ok(clock.now() < START + 4000 * DAY)
  })

  it('keeps to the newest time that was seen before, wherever the machine’s begins', () => {
    for (const wall of [0, START - 30 * DAY, START + 400 * DAY]) {
      const { source, pass } = machine(wall)
      const clock = guardedClock(source, BUILT, START)
      assert.equal(clock.now(), START)
      pass(HOUR, clock)
      assert.equal(clock.now(), START + HOUR)
    }
  })

  it('is never before the program was made, to people neither', () => {
    const { source } = machine(0)
    const clock = guardedClock(source, BUILT, BUILT - 100 * DAY)
    assert.equal(clock.now(), BUILT)
    assert.equal(clock.wall(), BUILT)
    const first = guardedClock(source, BUILT)
    assert.equal(first.now(), BUILT)
  })

  it('never goes back, whatever the machine’s does', () => {
    const { source, pass, set } = machine()
    const clock = guardedClock(source, BUILT, START)
    let last = clock.now()
    for (const days of [1, -30, 400, -20_000, 2, 0.5, 5000, -3, 0, 900]) {
      set(START + days * DAY)
      for (const hours of [0, 1, 30]) {
        pass(hours * HOUR, clock)
        assert.ok(clock.now() >= last)
        last = clock.now()
      }
    }
  })
})

/** What a node holds that time alone could take away: two sessions, tokens, a value to be collected. */
async function withMuchToLose(node: TestNode) {
  const ana = await node.signUp('ana')
  await node.signUp('ben')
  await ana.save('a', 'x'.repeat(40_000))
  await ana.save('a', 'y'.repeat(40_000), { 'X-Sync-Token': '*' })
  await ana.save('b', 'gone')
  await expectStatus(await ana.delete('b', '*'), 204)
  await issue(node.running.deps)
  await expectStatus(await post(node, '/resetpassword', { id: 'ana' }), 204)
  await eventually(() => node.mails.length, 1)
  return ana
}

const TABLES = ['sync_session', 'password_reset_token', 'invitation', 'tombstone', 'blob_garbage']

async function counts(node: TestNode): Promise<number[]> {
  return Promise.all(TABLES.map((table) => count(node, table)))
}

describe('a node whose clock is set wrong', () => {
  for (const [name, toOffset] of [
    ['400 days ahead', () => 400 * DAY],
    ['to 1970', () => -Date.now()],
    ['30 days back', () => -30 * DAY],
  ] as const) {
    it(`keeps its sessions and deletes nothing (${name})`, async (t) => {
      const node = await startNode(t)
      const ana = await withMuchToLose(node)
      const before = await counts(node)
      assert.deepEqual(before, [2, 1, 1, 1, 1])
      node.setWall(toOffset())
      await node.running.housekeep()
      assert.deepEqual(await counts(node), before)
      assert.equal((await (await ana.get('a')).text())[0], 'y')
      await node.restart()
      await node.running.housekeep()
      assert.deepEqual(await counts(node), before)
      assert.equal((await (await ana.get('a')).text())[0], 'y')
      const token = node.mails[0]?.token
      const reset = await post(node, '/password', { password: 'a new password', token })
      await expectStatus(reset, 204)
      await expectStatus(await post(node, '/auth', { id: 'ben', password: PASSWORD }), 200)
    })
  }

  it('ends sessions by a leap when that has lasted for a day', async (t) => {
    const node = await startNode(t)
    const ana = await withMuchToLose(node)
    node.setWall(400 * DAY)
    await expectStatus(await ana.get('a'), 200)
    node.advance(23 * HOUR)
    await node.running.housekeep()
    assert.equal(await count(node, 'sync_session'), 2)
    node.advance(HOUR)
    await expectProblem(await ana.get('a'), 'AUTH01', 401)
    await node.running.housekeep()
    assert.equal(await count(node, 'sync_session'), 0)
  })

  it('does not wait for its day across a start', async (t) => {
    const node = await startNode(t)
    const ana = await withMuchToLose(node)
    node.setWall(400 * DAY)
    await expectStatus(await ana.get('a'), 200)
    node.advance(23 * HOUR)
    await node.running.housekeep()
    await node.restart()
    node.advance(2 * HOUR)
    await node.running.housekeep()
    await expectStatus(await ana.get('a'), 200)
    assert.equal(await count(node, 'sync_session'), 2)
  })

  it('does not write a time down that it does not believe', async (t) => {
    const node = await startNode(t)
    const newest = async (): Promise<number> =>
      Number((await rows(node, 'SELECT newest FROM node'))[0]?.['newest'])
    const before = await newest()
    node.setWall(400 * DAY)
    await node.running.housekeep()
    assert.ok((await newest()) < before + DAY)
    node.setWall(-800 * DAY)
    await node.running.housekeep()
    assert.ok((await newest()) >= before)
  })
})

describe('a node whose machine has no clock', () => {
  it('starts in 1970 and loses nothing when the time is set', async (t) => {
    const node = await startNode(t)
    node.setWall(-Date.now())
    await node.restart()
    const ana = await withMuchToLose(node)
    const before = await counts(node)
    node.setWall(Date.now())
    await node.running.housekeep()
    assert.deepEqual(await counts(node), before)
    await expectStatus(await ana.get('a'), 200)
  })
})
