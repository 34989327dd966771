// Owns the proof that the arithmetic of many accounts counts what the nodes do: whom each write concerns, once
// for each look, and everybody where too many are concerned.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { simulate, type Crowd } from '../scripts/scale/fan-out.ts'

const CROWD: Crowd = {
  accounts: 1000,
  devices: 3,
  connected: 1,
  members: 10,
  shared: 1,
  stores: 1_000_000,
  nodes: 4,
  writes: 2.5,
}

describe('The simulation of the fan-out', () => {
  it('tells each write to every stream of every member, at a cost per node of one question', () => {
    const found = simulate(CROWD, { seed: 1, seconds: 400 })
    // One write a look: no two of them meet.
    assert.equal(found.streams, 3000)
    assert.equal(found.looks, 10)
    assert.equal(found.rows, 2.5 * 10 * 4)
    assert.equal(found.wakes, 2.5 * 10 * 3)
    assert.equal(found.events, found.wakes)
    assert.equal(found.beats, 150)
    assert.equal(found.alarms, 0)
  })

  it('tells what nobody shares to its own account alone', () => {
    const found = simulate({ ...CROWD, shared: 0 }, { seed: 1, seconds: 400 })
    assert.equal(found.wakes, 2.5 * 3)
    assert.equal(found.rows, 2.5 * 4)
  })

  it('wakes a stream once for what came between two looks, and tells it a store once', () => {
    const one = { ...CROWD, accounts: 10, writes: 25 }
    const many = simulate(one, { seed: 1, seconds: 4 })
    assert.equal(many.wakes, 2.5 * 30)
    assert.equal(many.events, 25 * 30)
    const same = simulate({ ...one, stores: 1 }, { seed: 1, seconds: 4 })
    assert.equal(same.events, 2.5 * 30)
  })

  it('wakes everybody when a look finds more than 5,000 accounts', () => {
    const crowd = { ...CROWD, accounts: 100_000, members: 1000, writes: 25 }
    const found = simulate(crowd, { seed: 1, seconds: 4 })
    assert.equal(found.alarms, 2.5)
    assert.equal(found.wakes, 2.5 * found.streams)
    assert.ok(found.events < found.wakes)
  })

  it('says the same for the same seed, and spreads the streams over the nodes', () => {
    const [one, again] = [1, 1].map((seed) => simulate(CROWD, { seed, seconds: 400 }))
    assert.deepEqual(one, again)
    assert.ok((one?.busiest ?? 1) < 0.35)
  })
})
