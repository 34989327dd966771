// Owns `make fuzz`: hostile traffic against the executable. REQUESTS= raw requests, SEED= for others, AT=
// for one batch of them that failed; uploads that break off; and slow clients, CONNECTIONS= of each kind.
// Prints a table; exit code 1 when anything is leaked, wrong or uncaught, or stays in memory, or when others
// are twice as slow beside slow clients.
import { MOST_MIB_MORE, run, slowedBy, toTable } from '../test/fuzz/fuzz.ts'
import { skip, WAYS, type Way } from '../test/fuzz/slow.ts'

const { REQUESTS = '1000000', SEED = '1', AT, CONNECTIONS = '2000' } = process.env
const connections = Number(CONNECTIONS)

if (skip !== false) console.error(skip)
const figures = await run({
  seed: Number(SEED),
  requests: Number(REQUESTS),
  ...(AT !== undefined && { at: Number(AT) }),
  uploads: Math.max(300, Math.min(5000, Number(REQUESTS) / 100)),
  slow:
    skip === false && connections > 0
      ? { connections, seconds: 240, ways: Object.keys(WAYS) as Way[] }
      : null,
  quietSeconds: 20,
  pipelined: 20_000,
  restMs: 120_000,
  mostMs: 24 * 3_600_000,
  tell: (line) => console.error(line),
})
const [{ mib: before } = { mib: 0 }, ...parts] = figures.memory
for (const { after, mib } of parts) {
  if (mib > before + MOST_MIB_MORE) {
    figures.problems.push(`LEAKED: ${(mib - before).toFixed(1)} MiB more after ${after}`)
  }
}
for (const { way, isEnded } of figures.slow) {
  if (!isEnded) figures.problems.push(`slow ${way} are not ended`)
}
figures.problems.push(...slowedBy(figures))
for (const problem of figures.problems) console.log(problem)
console.log(toTable(figures))
process.exitCode = figures.problems.length === 0 ? 0 : 1
