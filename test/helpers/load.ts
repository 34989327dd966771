// Owns a load: a few clients that write and write, and what was acknowledged to them.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Client } from './client.ts'

export interface Load {
  /** By key, the number that its last acknowledged value begins with. */
  acknowledged: ReadonlyMap<string, number>
  /** Answers that were neither 2xx nor a connection that broke. */
  failures: string[]
  count(): number
  /** Of each writer, how many of its steps were acknowledged. */
  steps(): number[]
  /** Resolves when so many writes were acknowledged. */
  reached(count: number): Promise<void>
  /** Ends it, when it did not end with its server; answers what was acknowledged. */
  stop(): Promise<ReadonlyMap<string, number>>
}

const WRITERS = 4
const KEYS_EACH = 5
const MOST_WRITES = 20_000

/** What is written to one of a writer's keys: so many bytes, and nothing every other time. */
interface Kind {
  bytes: number
  isDeleted?: boolean
}

const SMALL: Kind[] = Array.from({ length: KEYS_EACH }, () => ({ bytes: 1000 }))

/** Small values, files, and one that comes and goes. */
export const MIXED: Kind[] = [
  { bytes: 1000 },
  { bytes: 20_000 },
  { bytes: 0 },
  { bytes: 40_000 },
  { bytes: 1000, isDeleted: true },
]

const keyOf = (writer: number, one: number): string => `key ${writer} ${one}`

/** Starts writing to 20 keys, small values unless told otherwise. A server that goes away ends it. */
export function busyWriters(
  connect: () => Client,
  { kinds = SMALL, most = MOST_WRITES }: { kinds?: Kind[]; most?: number } = {},
): Load {
  const acknowledged = new Map<string, number>()
  const failures: string[] = []
  const steps = Array.from({ length: WRITERS }, () => 0)
  let count = 0
  let isOver = false

  async function write(writer: number): Promise<void> {
    const self = connect()
    for (let version = 1; !isOver && count < most; version++) {
      for (const [one, { bytes, isDeleted = false }] of kinds.entries()) {
        const key = keyOf(writer, one)
        const isNew = version === 1 || isDeleted
        const response =
          isDeleted && version % 2 === 0
            ? await self.delete(key, '*')
            : await self.put(key, `${version} ${'x'.repeat(bytes)}`, isNew ? {} : ANY)
        if (response.ok) {
          acknowledged.set(key, version)
          steps[writer] = (version - 1) * kinds.length + one + 1
        } else failures.push(`${response.status} ${await response.text()}`)
        count++
      }
    }
  }

  const writers = Array.from({ length: WRITERS }, (_, writer) => write(writer))
  const ended = Promise.allSettled(writers).then(() => (isOver = true))
  return {
    acknowledged,
    failures,
    count: () => count,
    steps: () => [...steps],
    async reached(wanted) {
      while (count < wanted && !isOver) await pause(5)
      if (count < wanted) throw new Error(`the load ended at ${count}: ${failures.join()}`)
    },
    async stop() {
      isOver = true
      await ended
      return acknowledged
    },
  }
}

const ANY = { 'X-Sync-Token': '*' }

/**
 * Fails unless each writer's keys are as after one and the same of its steps, which is none before
 * `least` and at most one after `most` (that one was on its way).
 */
export async function expectCut(
  client: Client,
  kinds: Kind[],
  { least, most }: { least: number[]; most: number[] },
): Promise<void> {
  for (const [writer, first] of least.entries()) {
    const found = await Promise.all(
      kinds.map(async ({ bytes }, one) => {
        const response = await client.get(keyOf(writer, one))
        if (response.status === 404) return null
        const [version = '', padding = ''] = (await response.text()).split(' ')
        assert.equal(padding.length, bytes, `${response.status}: ${version}`)
        return Number(version)
      }),
    )
    const last = (most[writer] ?? 0) + 1
    const cuts = Array.from({ length: last - first + 1 }, (_, index) => first + index)
    assert.ok(
      cuts.some((step) => isDeepStrictEqual(found, stateAfter(step, kinds))),
      `writer ${writer} is at ${found.join()}, after none of its steps ${first} to ${last}`,
    )
  }
}

const stateAfter = (step: number, kinds: Kind[]): (number | null)[] =>
  kinds.map(({ isDeleted = false }, one) => {
    const version = Math.floor((step - one - 1) / kinds.length) + 1
    return version === 0 || (isDeleted && version % 2 === 0) ? null : version
  })
