// Owns the ways around the limit of an address that people try: lies before the true address, and the
// many addresses of one IPv6 network.
import { WRONG, outcomeOf, type Line } from './ask.ts'

const ATTEMPTS = 120

/** For a server whose TRUSTED_PROXIES has 10.0.0.0/8: what each attempt says, and how many are tried. */
export const WAYS: { name: string; from: (i: number) => string; tried: number }[] = [
  { name: 'one address', from: () => '192.0.2.1', tried: 100 },
  { name: 'lies before the address', from: (i) => `203.0.113.${i}, 192.0.2.2`, tried: 100 },
  {
    name: 'the same, through a listed proxy',
    from: (i) => `203.0.113.${i}, ::${i}, 192.0.2.3, 10.${i}.2.3, 127.0.0.1`,
    tried: 100,
  },
  {
    name: 'addresses of one IPv6 /64',
    from: (i) => `2001:db8:1:2:${i.toString(16)}:${i}::${i}`,
    tried: 100,
  },
  { name: 'IPv6 /64s', from: (i) => `2001:db8:2:${i.toString(16)}::1`, tried: ATTEMPTS },
]

/** So many wrong passwords, at different ids: how often each answer came. */
export async function tryWay(
  line: Line,
  from: (i: number) => string,
  idOf: (i: number) => string,
): Promise<Record<string, number>> {
  const outcomes: Record<string, number> = {}
  for (let i = 0; i < ATTEMPTS; i += 8) {
    const some = Array.from({ length: Math.min(8, ATTEMPTS - i) }, (_, n) => i + n)
    const answers = await Promise.all(
      some.map((n) =>
        line.ask({ path: '/auth', body: { id: idOf(n), password: WRONG }, from: from(n) }),
      ),
    )
    for (const outcome of answers.map(outcomeOf)) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  }
  return outcomes
}

/** An address for each number, below 2^32. */
export const addressOf = (number: number): string =>
  [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.')

/** Attempts to register that cost no hash, each from an address of its own: how often each answer came. */
export async function fromEverywhere(
  line: Line,
  addresses: number,
): Promise<Record<string, number>> {
  const outcomes: Record<string, number> = {}
  let next = 0
  async function attempt(): Promise<void> {
    while (next < addresses) {
      const from = addressOf(0x20000000 + next++)
      const answer = await line.ask({
        path: '/account',
        body: { id: 'ana', password: 'short' },
        from,
      })
      const outcome = outcomeOf(answer)
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    }
  }
  await Promise.all(Array.from({ length: 32 }, attempt))
  return outcomes
}
