// Owns a load: a few clients that write and write, and what was acknowledged to them.
import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from './client.ts'

export interface Load {
  /** By key, the number that its last acknowledged value begins with. */
  acknowledged: ReadonlyMap<string, number>
  /** Answers that were neither 2xx nor a connection that broke. */
  failures: string[]
  count(): number
  /** Resolves when so many writes were acknowledged. */
  reached(count: number): Promise<void>
  /** Ends it, when it did not end with its server; answers what was acknowledged. */
  stop(): Promise<ReadonlyMap<string, number>>
}

const WRITERS = 4
const KEYS_EACH = 5
const MOST_WRITES = 20_000
const PADDING = 'x'.repeat(1000)

/** Starts writing small values to 20 keys. A server that goes away ends it. */
export function busyWriters(connect: () => Client): Load {
  const acknowledged = new Map<string, number>()
  const failures: string[] = []
  let count = 0
  let isOver = false

  async function write(writer: number): Promise<void> {
    const self = connect()
    for (let version = 1; !isOver && count < MOST_WRITES; version++) {
      for (let one = 0; one < KEYS_EACH; one++) {
        const key = `key ${writer} ${one}`
        const response = await self.put(key, `${version} ${PADDING}`, version === 1 ? {} : ANY)
        if (response.ok) acknowledged.set(key, version)
        else failures.push(`${response.status} ${await response.text()}`)
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
