// Owns the question which store a name of this account's is: asked for many names at once, as a first
// sync has hundreds of them.
import type { Failure } from './reconciler.ts'
import type { Client } from './types.ts'

interface Asked {
  signal: AbortSignal
  resolve(key: string | null): void
  reject(error: unknown): void
}

const MOST = 500

/** Answers the store key of what this account has under its own name; null for nothing. */
export type OwnKeys = (name: string, signal: AbortSignal) => Promise<string | null>

export function ownKeys(client: Client): OwnKeys {
  let waiting: [string, Asked][] = []
  let isAsking = false

  async function askAll(): Promise<void> {
    isAsking = true
    // Those that come with the first are asked for together with it.
    await new Promise((resolve) => setTimeout(resolve))
    while (waiting.length > 0) {
      const asked = waiting.slice(0, MOST)
      waiting = waiting.slice(MOST)
      await answer(client, asked)
    }
    isAsking = false
  }

  return (name, signal) =>
    new Promise((resolve, reject) => {
      waiting.push([name, { signal, resolve, reject }])
      if (!isAsking) void askAll()
    })
}

async function answer(client: Client, asked: [string, Asked][]): Promise<void> {
  const [[, { signal }]] = asked as [[string, Asked]]
  try {
    const keys = await look(client, [...new Set(asked.map(([name]) => name))], signal)
    for (const [name, { resolve }] of asked) resolve(keys.get(name) ?? null)
  } catch (error) {
    for (const [, { reject }] of asked) reject(error)
  }
}

/** The names that there are, with their keys. */
async function look(
  client: Client,
  names: string[],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  if (names.length === 0) return new Map()
  try {
    const checks = names.map((check) => ({ check, token: '*' }))
    const results = await client.batch(checks, { signal })
    return new Map(names.map((name, i) => [name, results[i]?.key ?? '']))
  } catch (thrown) {
    const { code = '', problem } = thrown as Failure
    const isRefused = ['SIZE01', 'REQ01'].includes(code)
    // Too many, or one that can be no key: meta can say anything.
    if (isRefused && names.length === 1) return new Map()
    if (isRefused) {
      const [one, other] = [names.slice(0, names.length / 2), names.slice(names.length / 2)]
      return new Map([...(await look(client, one, signal)), ...(await look(client, other, signal))])
    }
    const missing = new Set(problem?.failed?.map(({ index }) => index))
    if (!['ERR01', 'KEY01'].includes(code) || missing.size === 0) throw thrown
    // All or nothing: without those that there are not, it answers for the others.
    const rest = names.filter((_, i) => !missing.has(i))
    return look(client, rest, signal)
  }
}
