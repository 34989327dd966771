// Owns the trial of calls that fail while the server starts, stops or reads.
import { isDeepStrictEqual } from 'node:util'
import type { Client } from '../helpers/client.ts'
import type { Call, Fault as DiskFault, Op } from './disk.ts'
import { NOT_REACHED } from './faults.ts'
import { Fault, fill, isCut, newPlace, type Place, type Scope } from './place.ts'

export interface Step {
  name: string
  /** Begins where nothing is. */
  isFirst?: boolean
  /** Does it; what it answers is told in the table. */
  run(place: Place): Promise<string>
}

const startStep: Step['run'] = async (place) => ((await place.start(true)) ? 'served' : 'one line')

export const steps: Step[] = [
  { name: 'the first start', isFirst: true, run: startStep },
  { name: 'a start after kill -9', run: startStep },
  {
    name: 'a stop',
    async run(place) {
      await place.stop()
      return 'stopped'
    },
  },
]

interface Failing {
  op: Op
  at: number
  fault: DiskFault
  end: 'kill' | 'cut'
}

/** Makes one call of a step fail; what was there before is there after, and the next start serves it. */
export async function tryStep(
  place: Place,
  step: Step,
  { op, at, fault, end }: Failing,
): Promise<string> {
  if (step.isFirst !== true && step.run === startStep) await place.kill()
  place.disk.arm(op, at, fault)
  const outcome = await step.run(place)
  await place.disk.settled()
  const isReached = place.disk.calls()[at - 1] !== undefined
  if (outcome === 'served' && step.isFirst === true) {
    place.disk.calm()
    await place.unlessStopped(() => fill(place))
  }
  place.disk.calm()
  await place.kill(end)
  await place.start()
  if (step.isFirst === true && outcome !== 'served') await fill(place)
  await place.expectKept()
  await comeBack(place)
  return isReached ? outcome : NOT_REACHED
}

/** One more promise, kept through a cut. What a step does next depends on what was left. */
async function comeBack(place: Place): Promise<void> {
  await place.promise()
  await place.kill('cut')
  await place.start()
  await place.expectKept()
}

/** The calls of a step, in a place of its own when it is the first start. */
export async function callsOfStep(place: Place, step: Step): Promise<Call[]> {
  if (step.isFirst !== true) await comeBack(place)
  if (step.isFirst !== true && step.run === startStep) await place.kill()
  place.disk.watch()
  await step.run(place)
  await place.disk.settled()
  const calls = place.disk.calls()
  place.disk.calm()
  await place.kill()
  await place.start()
  return calls
}

export interface Reading {
  name: string
  path: string
  headers?: Record<string, string>
  /** What of the answer has to be the same each time. */
  part(response: Response): Promise<unknown>
}

const body = async (response: Response): Promise<unknown> =>
  Buffer.from(await response.arrayBuffer())
const headersOf = async ({ headers }: Response): Promise<unknown> =>
  ['etag', 'repr-digest', 'x-sync-key', 'content-length'].map((name) => headers.get(name))
const changes = async (response: Response): Promise<unknown> =>
  ((await response.json()) as { changes: unknown }).changes

export const readings: Reading[] = [
  { name: 'GET', path: '/store/small', part: body },
  { name: 'GET, file', path: '/store/large', part: body },
  {
    name: 'GET, a range',
    path: '/store/large',
    headers: { Range: 'bytes=70000-99000' },
    part: body,
  },
  { name: 'HEAD', path: '/store/large', part: headersOf },
  { name: 'GET /store', path: '/store', part: body },
  { name: 'GET /changes', path: '/changes', part: changes },
  { name: 'GET /changes, data', path: '/changes?include=data', part: changes },
  { name: 'GET /permission', path: '/permission/small', part: body },
  { name: 'GET /account', path: '/account', part: body },
]

const ask = (
  { keeper }: { keeper: Client },
  { name, path, headers = {} }: Reading,
): Promise<Response> => keeper.request(path, { method: name === 'HEAD' ? 'HEAD' : 'GET', headers })

/** What is right to answer, and the calls that it takes of a server that was just started. */
export async function callsOfReading(
  place: Place,
  reading: Reading,
): Promise<{ calls: Call[]; right: unknown }> {
  await place.kill()
  await place.start()
  await place.disk.quiet()
  place.disk.watch()
  const response = await ask(place, reading)
  const right = await reading.part(response)
  await place.disk.settled()
  const calls = place.disk.calls()
  place.disk.calm()
  if (!response.ok) throw new Error(`${reading.name} answers ${response.status}`)
  return { calls, right }
}

/** Makes one call of a read fail: never wrong bytes, and never the end of the server. */
export async function tryReading(
  place: Place,
  { reading, right }: { reading: Reading; right: unknown },
  { op, at, fault }: Failing,
): Promise<string> {
  await place.kill()
  await place.start()
  await place.disk.quiet()
  place.disk.arm(op, at, fault)
  const outcome = await outcomeOf(place, reading, right)
  const isReached = place.disk.calls()[at - 1] !== undefined
  place.disk.calm()
  const again = await outcomeOf(place, reading, right)
  if (again !== 'right') throw new Fault('wrong', `${outcome}, and then ${again}`)
  await place.expectKept()
  return isReached ? outcome : NOT_REACHED
}

async function outcomeOf(place: Place, reading: Reading, right: unknown): Promise<string> {
  try {
    const response = await ask(place, reading)
    if (response.ok) {
      if (isDeepStrictEqual(await reading.part(response), right)) return 'right'
      throw new Fault('wrong', `answered ${response.status}, and not what is stored`)
    }
    const text = await response.text()
    if (response.status === 500 || response.status === 503) return String(response.status)
    throw new Fault('wrong', `answered ${response.status} ${text}`)
  } catch (error) {
    if (error instanceof Fault || !isCut(error)) throw error
    return 'cut short'
  }
}

export const openStep = async (scope: Scope, library: string, step: Step): Promise<Place> => {
  const place = newPlace(scope, library)
  if (step.isFirst === true) return place
  await place.start()
  await fill(place)
  return place
}
