// Owns `make attack`: attacks on logins, against the executable in a temporary folder, as long as it
// takes for figures. Prints a table; exit code 1 when one is not as it should be.
//
//   node scripts/attack.ts [share]    a share of the full length, such as 0.1
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SMTPServer } from 'smtp-server'
import { openLine, signUpAll, WRONG, type Line } from '../test/attack/ask.ts'
import { flood } from '../test/attack/flood.ts'
import { compare, type Compared } from '../test/attack/guess.ts'
import { fromEverywhere, tryWay, WAYS } from '../test/attack/limits.ts'
import { at, median } from '../test/helpers/figures.ts'
import { killAll, startSyncNode, type Server } from './bench/process.ts'

const share = Number(process.argv[2] ?? 1)
const FLOOD = { seconds: 60 * share, quietSeconds: 20 * share, rate: 500, addresses: 50 }
const SAMPLES = 500 * share
const ADDRESSES = 1_000_000 * share
const P = 0.01

const row = (name: string, figure: string): string => `${name.padEnd(48)} ${figure}`

// Takes every mail, and throws it away.
const mails = new SMTPServer({
  disabledCommands: ['STARTTLS', 'AUTH'],
  onData(stream, _, done) {
    stream.resume().once('end', done)
  },
})

async function mailServer(): Promise<Record<string, string>> {
  await new Promise<void>((resolve) => mails.listen(0, '127.0.0.1', resolve))
  const { port } = mails.server.address() as AddressInfo
  return { SMTP_URL: `smtp://127.0.0.1:${port}`, MAIL_FROM: 'sync@example.org' }
}

const folder = mkdtempSync(join(tmpdir(), 'sync-node-attack-'))
let failed = 0

function print(name: string, figure: string, isGood: boolean): void {
  if (!isGood) failed++
  console.log(`${row(name, figure)}${isGood ? '' : '   FAILED'}`)
}

try {
  await attackWith(floodIt)
  await attackWith(guessAt, await mailServer())
  await attackWith(lie, { TRUSTED_PROXIES: '10.0.0.0/8' })
  await attackWith(comeFromEverywhere)
} finally {
  killAll()
  mails.close()
  rmSync(folder, { recursive: true, force: true })
}
process.exitCode = failed === 0 ? 0 : 1

async function attackWith(
  attack: (server: Server, line: Line) => Promise<void>,
  environment: Record<string, string> = {},
): Promise<void> {
  const server = await startSyncNode(join(folder, attack.name), environment)
  const line = openLine(server.url)
  await attack(server, line)
  line.close()
  await server.stop()
}

async function floodIt(server: Server): Promise<void> {
  const memory = watchMemory(server)
  const found = await flood(server.url, FLOOD)
  const { logins, outcomes, brokenReads, home, away } = found
  const [quiet, flooded] = [at(found.quietMs, 0.99), at(found.floodedMs, 0.99)]
  const more = memory.most()
  const isExpected = (one: string): boolean => /^(401 AUTH02|429 RATE01|503 ERR05)$/.test(one)
  print(
    `${logins} logins in ${FLOOD.seconds} s from ${FLOOD.addresses} addresses`,
    counts(outcomes),
    Object.keys(outcomes).every(isExpected),
  )
  print('  most passwords tried from one address', `${found.mostTried}`, found.mostTried <= 100)
  print(
    `  ${found.floodedMs.length} reads meanwhile, p50 and p99`,
    `${at(found.floodedMs, 0.5).toFixed(1)} and ${flooded.toFixed(1)} ms; before, ${at(found.quietMs, 0.5).toFixed(1)} and ${quiet.toFixed(1)} ms`,
    brokenReads.length === 0 && flooded <= 2 * quiet,
  )
  for (const [name, people] of [
    ['known', home],
    ['new', away],
  ] as const) {
    const [middle, most] = [median(people.ms), Math.max(...people.ms)]
    print(
      `  ${people.ms.length} rightful logins from ${name === 'known' ? 'a known address' : 'new addresses'}`,
      `median ${middle.toFixed(0)} ms, at most ${most.toFixed(0)} ms, refused ${people.refused.length}`,
      most <= 2000,
    )
  }
  print('  private memory', `at most ${more.toFixed(1)} MiB more`, more <= 64)
}

async function guessAt(_: Server, line: Line): Promise<void> {
  const pairs = Array.from({ length: 2 * SAMPLES }, (_, i) => ({
    known: `known-${i}@example.org`,
    unknown: `other-${i}@example.org`,
  }))
  await signUpAll(
    line,
    pairs.map(({ known }) => known),
  )
  const tell = (name: string, found: Compared, isJudged = true): void => {
    const { words, knownMs, unknownMs, p } = found
    const [known, unknown] = [median(knownMs), median(unknownMs)]
    const figure = `${words.length} answer; ${known.toFixed(2)} and ${unknown.toFixed(2)} ms, p = ${p.toFixed(3)}`
    print(
      `${name}, ${knownMs.length} known ids and as many unknown`,
      figure,
      words.length === 1 && (p > P || !isJudged),
    )
  }
  const reset = (id: string, from: string) => ({ path: '/resetpassword', body: { id }, from })
  tell(
    'wrong logins',
    await compare(line, pairs.slice(0, SAMPLES), {
      about: (id, from) => ({ path: '/auth', body: { id, password: WRONG }, from }),
    }),
  )
  const [some, others] = [pairs.slice(0, SAMPLES), pairs.slice(SAMPLES)]
  tell('reset mails', await compare(line, some, { about: reset }))
  const after = { method: 'GET', path: '/info' } as const
  // What a mail costs whoever comes next, some 0.05 ms on the loopback: shown, to keep an eye on it.
  tell('requests after a reset mail', await compare(line, others, { about: reset, after }), false)
}

async function lie(_: Server, line: Line): Promise<void> {
  for (const [number, { name, from, tried }] of WAYS.entries()) {
    const outcomes = await tryWay(line, from, (i) => `nobody ${number} ${i}`)
    print(`120 passwords from ${name}`, counts(outcomes), outcomes['401 AUTH02'] === tried)
  }
}

async function comeFromEverywhere(server: Server, line: Line): Promise<void> {
  const before = server.rssAnonKib()
  const tenth = watchMemory(server, before)
  await fromEverywhere(line, ADDRESSES / 10)
  const tenthMib = tenth.most()
  const all = watchMemory(server, before)
  const outcomes = await fromEverywhere(line, ADDRESSES)
  const more = all.most() - tenthMib
  print(
    `${ADDRESSES} addresses, after a tenth of them`,
    `${counts(outcomes)}; at most ${more.toFixed(1)} MiB more than those took, ${tenthMib.toFixed(1)} MiB`,
    // What V8 has not collected yet; unbounded, it would be 300.
    more <= 32,
  )
}

function watchMemory(server: Server, before = server.rssAnonKib()): { most(): number } {
  let peak = before
  const watch = setInterval(() => (peak = Math.max(peak, server.rssAnonKib())), 100)
  return {
    most() {
      clearInterval(watch)
      return (peak - before) / 1024
    },
  }
}

function counts(outcomes: Record<string, number>): string {
  return Object.entries(outcomes)
    .map(([outcome, count]) => `${count} × ${outcome}`)
    .join(', ')
}
