// Owns the flood: many logins a second from many addresses, and what others notice of it.
import { setTimeout as pause } from 'node:timers/promises'
import {
  openLine,
  outcomeOf,
  PASSWORD,
  signUp,
  signUpAll,
  WRONG,
  type Answer,
  type Line,
} from './ask.ts'

const GETS_A_SECOND = 50
const PEOPLE_EVERY_MS = 1500
const VICTIMS = 40
const MOST_UNANSWERED = 300
const HOME = '198.51.100.1'
const VALUE = 'x'.repeat(4096)

export interface Flooded {
  logins: number
  /** How often each came. */
  outcomes: Record<string, number>
  /** Outcomes of reads that are not 200. */
  brokenReads: string[]
  quietMs: number[]
  floodedMs: number[]
  /** People who know their password, where they have logged in before, and where they never were. */
  home: People
  away: People
  /** Wrong passwords that were tried, of the address with the most. */
  mostTried: number
}

interface People {
  /** How long it took them to get in. */
  ms: number[]
  /** What refused them on the way. */
  refused: string[]
}

export interface FloodOptions {
  seconds: number
  quietSeconds: number
  rate: number
  addresses: number
}

/** Floods a server with logins, and reads from it before and meanwhile. */
export async function flood(url: string, options: FloodOptions): Promise<Flooded> {
  const [attack, people] = [openLine(url), openLine(url)]
  try {
    const victims = Array.from({ length: VICTIMS }, (_, i) => `victim ${i}`)
    await signUpAll(people, [...victims, 'rightful'])
    await logIn(people, HOME)
    const bearer = await signUp(people, 'reader')
    await people.ask({ method: 'PUT', path: '/store/read', body: VALUE, bearer })
    const read = readings(people, bearer)
    await read(GETS_A_SECOND, performance.now() + 1000)
    const quiet = await read(GETS_A_SECOND, performance.now() + options.quietSeconds * 1000)
    const until = performance.now() + options.seconds * 1000
    const [attacked, reads, home, away] = await Promise.all([
      attackUntil(until, attack, { ...options, victims }),
      read(GETS_A_SECOND, until),
      logInUntil(until, people, () => HOME),
      logInUntil(until, people, (turn) => `192.0.2.${turn}`),
    ])
    return {
      ...attacked,
      brokenReads: [...quiet.broken, ...reads.broken],
      quietMs: quiet.ms,
      floodedMs: reads.ms,
      home,
      away,
    }
  } finally {
    attack.close()
    people.close()
  }
}

/** Each attempt goes out in its time, whatever became of those before it, while the machine keeps up. */
async function attackUntil(
  until: number,
  line: Line,
  { rate, addresses, victims }: FloodOptions & { victims: string[] },
): Promise<Pick<Flooded, 'logins' | 'outcomes' | 'mostTried'>> {
  const outcomes: Record<string, number> = {}
  const tried = new Map<string, number>()
  const running = new Set<Promise<void>>()
  const began = performance.now()
  let logins = 0
  async function attempt(number: number): Promise<void> {
    const from = `203.0.113.${number % addresses}`
    // One in five is at an account that there is.
    const id = number % 5 === 0 ? victims[number % victims.length] : `nobody ${number}`
    const answer = await line.ask({ path: '/auth', body: { id, password: WRONG }, from })
    const outcome = outcomeOf(answer)
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    if (answer.status === 401) tried.set(from, (tried.get(from) ?? 0) + 1)
  }
  while (performance.now() < until) {
    const due = ((performance.now() - began) / 1000) * rate
    for (; logins < due && running.size < MOST_UNANSWERED; logins++) {
      const one = attempt(logins).finally(() => running.delete(one))
      running.add(one)
    }
    await pause(5)
  }
  await Promise.all(running)
  return { logins, outcomes, mostTried: Math.max(0, ...tried.values()) }
}

function readings(line: Line, bearer: string) {
  return async function read(rate: number, until: number) {
    const ms: number[] = []
    const broken: string[] = []
    for (let next = performance.now(); next < until; next += 1000 / rate) {
      await pause(Math.max(0, next - performance.now()))
      const answer = await line.ask({ method: 'GET', path: '/store/read', bearer })
      if (answer.status !== 200 || answer.body !== VALUE) broken.push(outcomeOf(answer))
      ms.push(answer.ms)
    }
    return { ms, broken }
  }
}

const logIn = (line: Line, from: string): Promise<Answer> =>
  line.ask({ path: '/auth', body: { id: 'rightful', password: PASSWORD }, from })

/** Logs in again and again; who is refused waits as long as the server says. */
async function logInUntil(
  until: number,
  line: Line,
  addressOf: (turn: number) => string,
): Promise<People> {
  const people: People = { ms: [], refused: [] }
  for (let turn = 0; performance.now() < until; turn++) {
    const began = performance.now()
    let answer = await logIn(line, addressOf(turn))
    while (answer.status !== 200) {
      people.refused.push(outcomeOf(answer))
      await pause(Number(answer.headers['retry-after'] ?? 1) * 1000)
      answer = await logIn(line, addressOf(turn))
    }
    people.ms.push(performance.now() - began)
    await pause(PEOPLE_EVERY_MS)
  }
  return people
}
