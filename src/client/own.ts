// Owns telling own stores from those that others shared: by the name, which only the server can tell.
import type { Failure } from './errors.ts'
import type { Client } from './types.ts'

/** The store keys of those names under which this account has a store; of store keys, of those it has. */
export async function ownKeysOf(
  client: Client,
  names: Iterable<string>,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const asked = [...new Set(names)]
  if (asked.length === 0) return new Map()
  try {
    const checks = asked.map((check) => ({ check, token: '*' }))
    const results = await client.batch(checks, { signal })
    return new Map(asked.map((name, i) => [name, results[i]?.key ?? '']))
  } catch (thrown) {
    const { code = '', problem } = thrown as Failure
    if (['SIZE01', 'REQ01'].includes(code)) {
      // Together they have too many members; or one can be no name, after all.
      if (asked.length === 1) return new Map()
      const half = asked.length >> 1
      const first = await ownKeysOf(client, asked.slice(0, half), signal)
      return new Map([...first, ...(await ownKeysOf(client, asked.slice(half), signal))])
    }
    const missing = new Set(problem?.failed?.map(({ index }) => index))
    if (!['ERR01', 'KEY01'].includes(code) || missing.size === 0) throw thrown
    const left = asked.filter((_, i) => !missing.has(i))
    return ownKeysOf(client, left, signal)
  }
}
