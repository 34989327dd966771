// Owns the route /changes: the feed as pages, held polls and event streams.
import * as v from 'valibot'
import * as change from '../../change.ts'
import type { Part } from '../../change.ts'
import * as cursor from '../../cursor.ts'
import { malformed } from '../../errors.ts'
import { jsonHeaders } from '../answer.ts'
import { streamChanges } from '../event-stream.ts'
import { route, type Call } from '../route.ts'
import { listedStore } from '../schemas.ts'
import { sendText } from '../stream.ts'

const DEFAULT_LIMIT = 500
const MAX_PAGE_CHARACTERS = 4 * 1024 * 1024

/** A parameter that stands at most once. */
const one = <T>(schema: v.GenericSchema<string, T>) =>
  v.optional(
    v.pipe(
      v.strictTuple([schema]),
      v.transform(([value]) => value),
    ),
  )

const whole = (least: number, most: number) =>
  v.pipe(v.string(), v.regex(/^\d{1,4}$/), v.transform(Number), v.minValue(least), v.maxValue(most))

const entry = v.union([
  v.object({
    ...listedStore.entries,
    data: v.optional(v.pipe(v.string(), v.description('The value, base64.'))),
  }),
  v.object({ key: v.string(), deleted: v.literal(true) }),
])

const query = v.strictObject({
  since: one(v.string()),
  limit: one(whole(1, 1000)),
  wait: one(whole(0, 50)),
  include: one(v.literal('data')),
})

type ChangesCall = Call<undefined, v.InferOutput<typeof query>>

export const changesRoutes = [
  route({
    method: 'GET',
    path: '/changes',
    summary: 'What changed since a cursor: own and shared stores, deletions, grants, revocations',
    description:
      'Without `since`: everything the account can read, in pages. With `Accept: text/event-stream` the same as server-sent events: `change` with `id` the cursor, `reset` when the cursor is not known.',
    session: true,
    query,
    requestHeaders: [
      { name: 'Accept', description: 'text/event-stream for server-sent events.' },
      { name: 'Last-Event-ID', description: 'Where an event stream goes on; before `since`.' },
    ],
    answers: {
      200: {
        description: 'A page; go on from `cursor`, at once while `more`.',
        schema: v.object({
          cursor: v.pipe(v.string(), v.regex(/^[0-9a-v]{1,64}$/)),
          more: v.boolean(),
          changes: v.array(entry),
        }),
        events: true,
      },
    },
    errors: ['FEED01', 'RATE01'],
    handle: (call: ChangesCall) =>
      (call.incoming.headers.accept ?? '').includes('text/event-stream')
        ? answerStream(call)
        : answerPage(call),
  }),
]

async function answerPage(call: ChangesCall): Promise<Response> {
  const { deps, self, query: asked, outgoing } = call
  const options = { limit: asked.limit ?? DEFAULT_LIMIT, withData: asked.include === 'data' }
  const since = await (asked.since === undefined
    ? change.beginning(deps)
    : cursor.read(deps, self, asked.since))
  const until = performance.now() + (asked.wait ?? 0) * 1000
  // Listens before it reads: what is written in between wakes it.
  const changed = new Signal()
  const stopListening = deps.listeners.add(self.account, () => changed.set())
  outgoing.once('close', () => changed.set())
  try {
    // Of a server that is far away one question is cheaper than two.
    let first = deps.config.database === null ? await change.nothing(deps, self, since) : undefined
    for (;;) {
      first ??= await change.part(deps, self, since, options)
      const left = until - performance.now()
      const isWorthIt = first.entries.length > 0 || first.more || left <= 0
      if (isWorthIt || outgoing.destroyed || deps.listeners.isOver())
        return await sendPage(call, options, first)
      await changed.wait(left)
      first = undefined
    }
  } finally {
    stopListening()
  }
}

interface PageOptions {
  limit: number
  withData: boolean
}

async function sendPage(call: ChangesCall, options: PageOptions, first: Part): Promise<Response> {
  if (call.incoming.method === 'HEAD') return new Response(null, { headers: jsonHeaders({}) })
  const parts = toText(call, options, first)
  const isLong = first.more && first.entries.length < options.limit
  if (isLong) return sendText(call.outgoing, jsonHeaders({}), parts)
  let body = ''
  for await (const part of parts) body += part
  return new Response(body, { headers: jsonHeaders({}) })
}

/** A page, read on as it is sent: a reader who takes nothing makes the server hold one part of it. */
async function* toText(
  { deps, self }: ChangesCall,
  { limit, withData }: PageOptions,
  first: Part,
): AsyncGenerator<string> {
  let [count, characters] = [0, 0]

  /** The entries of a part, and where a client stands then: the page may end within. */
  function take({ entries, position, more }: Part) {
    const texts: string[] = []
    for (const entry of entries) {
      const text = JSON.stringify(entry.change)
      texts.push(text)
      characters += text.length
      if (characters > MAX_PAGE_CHARACTERS && texts.length < entries.length) {
        return { texts, position: entry.position, more: true }
      }
    }
    return { texts, position, more }
  }

  let taken = take(first)
  yield `{"changes":[${taken.texts.join(',')}`
  for (;;) {
    count += taken.texts.length
    if (!taken.more || count >= limit || characters > MAX_PAGE_CHARACTERS) break
    const rest = { limit: limit - count, withData, end: first.end }
    taken = take(await change.part(deps, self, taken.position, rest))
    if (taken.texts.length > 0) yield (count > 0 ? ',' : '') + taken.texts.join(',')
  }
  yield `],"more":${taken.more},"cursor":"${cursor.sealer(deps, self)(taken.position)}"}`
}

function answerStream(call: ChangesCall): Promise<Response> {
  const { deps, self, query: asked, incoming } = call
  if (asked.wait !== undefined || asked.limit !== undefined) {
    throw malformed('An event stream takes neither wait nor limit.')
  }
  const last = incoming.headers['last-event-id']
  const since = typeof last === 'string' && last !== '' ? last : asked.since
  return streamChanges(call, {
    withData: asked.include === 'data',
    start: () => (since === undefined ? change.beginning(deps) : cursor.open(deps, self, since)),
  })
}

/** Something that happens, once or more, and is waited for. */
class Signal {
  #isSet = false
  #wake: (() => void) | undefined

  set(): void {
    this.#isSet = true
    this.#wake?.()
  }

  /** Resolves when it is set, or `ms` have passed; it is unset then. */
  async wait(ms: number): Promise<void> {
    if (!this.#isSet) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    this.#isSet = false
    this.#wake = undefined
  }
}
