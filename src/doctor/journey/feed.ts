// Owns the look at how news get through: event streams that are not held back, polls that are held.
import type { IncomingMessage } from 'node:http'
import { createGunzip } from 'node:zlib'
import { setTimeout as pause } from 'node:timers/promises'
import { ok, type Finding } from '../finding.ts'
import { create, faulty, type Traveller } from './traveller.ts'
import { NoAnswer, tell } from './way.ts'

const PATIENCE_MS = 5000
const HOLD_MS = 500
const WAIT_SECONDS = 10

/** An event comes while the stream is open, also to a browser, which takes compressed answers. */
export async function checkEvents(traveller: Traveller): Promise<Finding> {
  for (const [name, coding] of [
    ['events', 'identity'],
    ['events-gzip', 'gzip'],
  ] as const) {
    const failure = await follow(traveller, name, coding)
    if (failure === null) continue
    const text = `event streams ${failure}: people see changes late`
    return faulty(traveller, 'events', { fault: 'buffering', text })
  }
  return ok('events', 'they come at once')
}

/** Null when an event came in time. */
async function follow(traveller: Traveller, name: string, coding: string): Promise<string | null> {
  const { cursor } = await readChanges(traveller, '')
  const opening = traveller.way.open(`/changes?since=${cursor}`, {
    headers: { Accept: 'text/event-stream', 'Accept-Encoding': coding },
    patienceMs: PATIENCE_MS * 2,
  })
  // One that is held back altogether opens only when there is enough to send.
  const first = await Promise.race([
    opening.catch(toError),
    pause(PATIENCE_MS, null, { ref: false }),
  ])
  if (first === null) {
    void opening.then((stream) => stream.destroy()).catch(() => undefined)
    return 'do not open'
  }
  if (first instanceof Error) return `do not open (${first.message})`
  try {
    if (!(first.headers['content-type'] ?? '').startsWith('text/event-stream')) {
      return `do not open (${tell({ status: first.statusCode ?? 0, code: undefined })})`
    }
    await create(traveller, name)
    return (await hasEvent(first)) ? null : 'are held back'
  } finally {
    first.destroy()
  }
}

const toError = (error: unknown): Error => error as Error

function hasEvent(stream: IncomingMessage): Promise<boolean> {
  const source =
    stream.headers['content-encoding'] === 'gzip' ? stream.pipe(createGunzip()) : stream
  return new Promise((resolve) => {
    let text = ''
    const timer = setTimeout(() => resolve(false), PATIENCE_MS)
    const end = (isThere: boolean): void => {
      clearTimeout(timer)
      resolve(isThere)
    }
    source.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('event: change')) end(true)
    })
    for (const one of [stream, source]) {
      one.on('error', () => end(false))
      one.on('close', () => end(false))
    }
  })
}

interface Page {
  cursor: string
  changes: unknown[]
}

async function readChanges({ way }: Traveller, query: string): Promise<Page> {
  let since = query
  for (;;) {
    const patienceMs = WAIT_SECONDS * 1000 + PATIENCE_MS
    const answer = await way.ask('GET', `/changes${since}`, { patienceMs })
    if (answer.status !== 200) throw new NoAnswer(tell(answer))
    const page = JSON.parse(answer.body.toString()) as Page & { more: boolean }
    if (!page.more) return page
    since = `?since=${page.cursor}`
  }
}

/** A poll is held until something changes, and answered then. */
export async function checkPolls(traveller: Traveller): Promise<Finding> {
  const { cursor } = await readChanges(traveller, '')
  let isAnswered = false
  const poll = readChanges(traveller, `?since=${cursor}&wait=${WAIT_SECONDS}`).finally(() => {
    isAnswered = true
  })
  poll.catch(() => undefined)
  await pause(HOLD_MS)
  const isEarly = isAnswered
  await create(traveller, 'poll')
  const how = await poll.then(
    ({ changes }) =>
      changes.length > 0 ? null : isEarly ? 'is answered early' : 'is answered late',
    (error: Error) => `is cut off (${error.message})`,
  )
  if (how === null) return ok('polls', 'they are held, and answered at once')
  const text = `GET /changes?wait=${WAIT_SECONDS} ${how}: people see changes late`
  return faulty(traveller, 'polls', { fault: 'buffering', text })
}
