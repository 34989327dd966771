// Owns the proof that all clients see one order of what happens to a store, whatever happens to the
// server and to connections. `make linearizable` plays more of it.
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { EXECUTABLE, FROM_SOURCE, endBy, install } from './helpers/executable.ts'
import { numbers } from './helpers/random.ts'
import { signUp } from './helpers/remote.ts'
import { explain, findOrder } from './linear/checker.ts'
import { watch } from './linear/feeds.ts'
import { absent, step, type Operation, type State } from './linear/model.ts'
import { play } from './linear/play.ts'

const { OPERATIONS = '50000', KILLS = '5', SEED = '1' } = process.env
const CLIENTS = 16
const PEOPLE = ['ana', 'ben', 'cleo']
const MUCH = 3

describe('What many clients see of the same few stores', () => {
  it('has one order, by the executable, killed and started again', async (t) => {
    await expectOneOrder(t, EXECUTABLE, { operations: Number(OPERATIONS), kills: Number(KILLS) })
  })

  it('has one order, from source', async (t) => {
    await expectOneOrder(t, FROM_SOURCE, { operations: 6000, kills: 1 })
  })
})

async function expectOneOrder(
  t: TestContext,
  command: string[],
  { operations, kills }: { operations: number; kills: number },
): Promise<void> {
  const here = install(t, command)
  let server = await here.serve()
  const { url } = server
  const people = await Promise.all(PEOPLE.map((id) => signUp(url, { id })))
  const feeds = people.map((person, i) => watch(url, person, i === 0))
  const died: (string | null)[] = []
  const played = await play({
    url,
    people,
    operations,
    clients: CLIENTS,
    seed: Number(SEED),
    kills,
    async kill() {
      died.push(await endBy(server, 'SIGKILL'))
      server = await here.serve({ PORT: new URL(url).port })
    },
  })
  const { histories, faults, unknown } = played
  for (const feed of feeds) {
    faults.push(...(await feed.end(played).catch((error: Error) => [`a feed: ${error.message}`])))
  }
  died.push(await endBy(server, 'SIGTERM'))
  faults.push(...died.filter((problem) => problem !== null))
  const all = [...histories.values()]
  const disorders = all.flatMap((history) => explain(history, PEOPLE.length))
  const count = all.reduce((sum, history) => sum + history.length, 0)
  t.diagnostic(
    `${count} operations on ${all.length} stores, ${unknown} without an answer, ${kills} kills: ` +
      `${disorders.length} without an order, ${faults.length} other faults (SEED=${SEED})`,
  )
  assert.deepEqual([...disorders.slice(0, MUCH), ...faults.slice(-MUCH)], [])
  assert.ok(count > operations / 2, 'most of it is answered')
}

describe('The search for an order', () => {
  it('says the same as one that tries all orders', () => {
    let orderly = 0
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const history = randomHistory(numbers(seed))
        const verdict = findOrder(history, 2)
        const isOrderly = hasOrder(history, absent(2))
        if (isOrderly) orderly++
        assert.equal(verdict.order !== null, isOrderly)
        if (verdict.order !== null) expectOrder(history, verdict.order)
      }),
      { numRuns: 5000, seed: Number(SEED) },
    )
    // Both kinds come up.
    assert.ok(orderly > 1000 && orderly < 4000, String(orderly))
  })
})

const KINDS = ['read', 'read', 'read', 'write', 'write', 'delete', 'grant', 'revoke'] as const
const STATUSES = [200, 201, 204, 403, 404, 412, 428]

/** Operations at random times, answered as if one after the other, or nearly so. */
function randomHistory(below: (n: number) => number): Operation[] {
  let state = absent(2)
  const values = ['', '*']
  const history = Array.from({ length: 8 }, (_, i): Operation => {
    const operation: Operation = {
      by: i > 0 && below(3) === 0 ? 1 : 0,
      kind: i === 0 ? 'write' : (KINDS[below(KINDS.length)] as Operation['kind']),
      call: 10 * i - below(20),
      answered: 10 * i + 1 + below(20),
      expects: i === 0 ? '' : (values.at(-1 - below(2)) as string),
      writes: `value ${i}`,
      whose: 1,
      permission: below(2) === 0 ? 'READ' : 'WRITE',
    }
    const shows = state.value ?? undefined
    for (const status of STATUSES) {
      const after = step(state, { ...operation, status, shows })
      if (after === null) continue
      if (after.value !== state.value) values.push(operation.writes as string)
      state = after
      if (below(8) === 0) return { ...operation, answered: Infinity }
      return { ...operation, status, shows }
    }
    return operation
  })
  // Some have the answer of another.
  for (const one of history) {
    if (below(8) > 0 || one.status === undefined) continue
    const { status = one.status, shows } = history[below(8)] as Operation
    Object.assign(one, { status, shows })
  }
  return history.toSorted((a, b) => a.call - b.call)
}

/** Tries whatever may come next, everywhere. */
function hasOrder(left: Operation[], state: State): boolean {
  if (left.every(({ answered }) => answered === Infinity)) return true
  const first = Math.min(...left.map(({ answered }) => answered))
  return left.some((operation) => {
    if (operation.call > first) return false
    const after = step(state, operation)
    return (
      after !== null &&
      hasOrder(
        left.filter((one) => one !== operation),
        after,
      )
    )
  })
}

function expectOrder(history: Operation[], order: number[]): void {
  let state: State | null = absent(2)
  let now = -Infinity
  for (const index of order) {
    const operation = history[index] as Operation
    assert.ok(operation.answered >= now)
    now = Math.max(now, operation.call)
    state = step(state, operation)
    assert.ok(state !== null)
  }
}
