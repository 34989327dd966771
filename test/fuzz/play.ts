// Owns the play of requests: over a few connections that last and many that do not, in batches, each of
// which the seed and its number bring about again.
import type { Answer } from './answers.ts'
import { NotHttp } from './answers.ts'
import { dial, Late, type Connection } from './connection.ts'
import { dice, type Dice } from './dice.ts'
import { breakFraming, frame, mutate } from './framing.ts'
import { grammarOf, type Made } from './grammar.ts'
import { Fault, type Judge } from './judge.ts'
import { learn, type Scene } from './people.ts'
import type { Openapi } from '../helpers/openapi.ts'

export interface Played {
  requests: number
  /** Of these: answered one by one, broken or mutated, and behind one that ended the connection. */
  answered: number
  loose: number
  cutOff: number
  connections: number
  answers: Map<string, number>
  problems: string[]
}

export const nothingPlayed = (): Played => ({
  requests: 0,
  answered: 0,
  loose: 0,
  cutOff: 0,
  connections: 0,
  answers: new Map(),
  problems: [],
})

export interface Playing {
  port: number
  scene: Scene
  openapi: Openapi
  judge: Judge
  seed: number
  played: Played
}

const AT_ONCE = 128
const MOST_IN_BATCH = 24
const SHOWN_BYTES = 4000
const MOST_PROBLEMS = 20

/** Plays batches, from this number on, until so many requests were sent; answers the next number. */
export async function play(playing: Playing, first: number, requests: number): Promise<number> {
  const draft = grammarOf(playing.openapi.document)
  const { played } = playing
  const until = played.requests + requests
  let number = first
  async function worker(): Promise<void> {
    let line: Connection | undefined
    while (played.requests < until && played.problems.length < MOST_PROBLEMS) {
      const one = number++
      const luck = dice(playing.seed * 1_000_003 + one)
      const batch = batchOf(draft, luck, playing.scene)
      played.requests += batch.length
      if (line?.isOpen() !== true) {
        line = await dial(playing.port)
        played.connections++
      }
      const isOver = await sendBatch(playing, { line, batch, luck, number: one })
      if (isOver || luck.once(4)) {
        line.destroy()
        line = undefined
      }
    }
    line?.destroy()
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return number
}

type Drafting = ReturnType<typeof grammarOf>

/** Requests that each have their answer, and often one at the end of which nobody knows. */
function batchOf(draft: Drafting, luck: Dice, scene: Scene): Made[] {
  const batch: Made[] = []
  const length = luck.once(3) ? 1 : 1 + luck.below(MOST_IN_BATCH)
  for (let i = 0; i < length; i++) {
    const one = draft(luck, scene)
    const made = frame(one, luck)
    if (luck.once(5)) made.kind = 'last'
    if (made.kind === 'whole') batch.push(made)
    else {
      // The end of a batch: as it is, with other bytes, or broken on purpose.
      const end = luck.below(4)
      batch.push(end === 0 ? made : end === 1 ? breakFraming(one, luck) : mutate(made, luck))
      break
    }
  }
  return batch
}

interface Sending {
  line: Connection
  batch: Made[]
  luck: Dice
  number: number
}

/** True when the connection is of no more use. */
async function sendBatch(playing: Playing, sending: Sending): Promise<boolean> {
  const { played, seed } = playing
  const { line, batch, luck, number } = sending
  let current: Made | undefined
  try {
    const clear = batch.filter(({ kind }) => kind !== 'loose')
    if (clear.length > 0) line.send(Buffer.concat(clear.map(({ bytes }) => bytes)))
    for (const [i, made] of clear.entries()) {
      current = made
      const answer = await line.next(made.method === 'HEAD')
      if (answer === null) throw new Fault('the connection ended without an answer')
      await take(playing, answer, made)
      played.answered++
      if (answer.headers.get('connection') === 'close') {
        played.cutOff += batch.length - i - 1
        return true
      }
    }
    current = batch.at(-1) as Made
    if (current.kind !== 'loose') return current.kind === 'last'
    played.loose++
    const ending = { isReset: luck.once(3), waitMs: luck.once(3) ? luck.below(40) : 0 }
    for (const answer of await line.finish(current.bytes, ending)) {
      playing.judge.any(answer, answer.body.length === 0)
      count(played, answer)
    }
    return true
  } catch (error) {
    const isOurs = [Fault, NotHttp, Late].some((kind) => error instanceof kind)
    const { message, stack } = error as Error
    played.problems.push(
      `SEED=${seed} AT=${number}: ${isOurs ? message : stack}\n${shown(batch, current)}`,
    )
    return true
  }
}

async function take({ judge, scene, played }: Playing, answer: Answer, made: Made): Promise<void> {
  const { headers } = answer
  count(played, answer)
  judge.any(answer, made.method === 'HEAD')
  await judge.one(answer, made)
  learn(scene.tokens, headers.get('x-sync-token'))
  learn(scene.keys, headers.get('x-sync-key'))
  if (made.path !== '/changes' || answer.status !== 200) return
  const [, cursor] = /"cursor":"(\w+)"\}$/.exec(answer.body.toString('latin1')) ?? []
  learn(scene.cursors, cursor)
}

function count({ answers }: Played, { status, body, headers }: Answer): void {
  const isProblem = headers.get('content-type') === 'application/problem+json'
  const [, code] = (isProblem && /"code":"(\w+)"/.exec(body.toString('latin1'))) || []
  const name = code === undefined ? String(status) : `${status} ${code}`
  answers.set(name, (answers.get(name) ?? 0) + 1)
}

/** The bytes that something came of, and what was asked before on the connection. */
function shown(batch: Made[], current: Made | undefined): string {
  const before = batch.slice(0, batch.indexOf(current as Made))
  const asked = before.map(({ method, path }) => `  ${method} ${path.slice(0, 100)}\n`)
  const bytes = current?.bytes.toString('latin1').slice(0, SHOWN_BYTES) ?? ''
  return `${asked.join('')}  ${JSON.stringify(bytes)}`
}
