// Owns event streams: the feed written to a socket as fast as it takes it, and kept alive. A stream
// keeps no backlog, only a position: the feed is a table.
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { ServerResponse } from 'node:http'
import * as change from '../change.ts'
import { UNREACHABLE } from '../database/database.ts'
import { sealer, type Position } from '../cursor.ts'
import type { Deps } from '../deps.ts'
import { SyncError } from '../errors.ts'
import type { Session } from '../session.ts'
import * as session from '../session.ts'
import { eventStreamHeaders } from './answer.ts'
import { measureStream } from './metrics.ts'
import type { Call } from './route.ts'

const PLACES = { name: 'event stream', count: 32 }
const STUCK_MS = 60_000
const HEARTBEAT_MS = 20_000

interface Stream {
  deps: Deps
  self: Session
  outgoing: ServerResponse
  withData: boolean
  position: Position
  /** A run is under way; what happens meanwhile makes it run again. */
  isRunning: boolean
  isDue: boolean
  /** Heartbeats in a row that found the socket full, with nothing taken since the one before. */
  missedBeats: number
  bytesAtBeat: number
}

/** Answers with an event stream. Throws AUTH01, RATE01. */
export async function streamChanges(
  call: Pick<Call, 'deps' | 'self' | 'outgoing' | 'incoming'>,
  { withData, start }: { withData: boolean; start: () => Promise<Position> },
): Promise<Response> {
  const { deps, self, outgoing } = call
  await session.check(deps, self)
  const headers = eventStreamHeaders()
  if (call.incoming.method === 'HEAD') return new Response(null, { headers })
  const position = await startOrReset(start)
  if (position === null) {
    outgoing.writeHead(200, headers)
    // The empty id makes a browser's EventSource forget the cursor that is not known.
    outgoing.end('event: reset\nid\ndata: {}\n\n')
    return RESPONSE_ALREADY_SENT
  }
  // Gone while the database was asked: nothing would tell again that it is.
  if (outgoing.destroyed) return RESPONSE_ALREADY_SENT
  const leave = deps.limiter.enter(PLACES, String(self.account))
  outgoing.writeHead(200, headers)
  if (deps.metrics !== null) measureStream(deps.metrics, outgoing)
  outgoing.write('retry: 3000\n\n')
  const stream: Stream = {
    deps,
    self,
    outgoing,
    withData,
    position,
    isRunning: false,
    isDue: false,
    missedBeats: 0,
    bytesAtBeat: 0,
  }
  const wake = (): void => run(stream)
  const stopListening = deps.listeners.add(self.account, wake)
  const heartbeat = setInterval(() => beat(stream), HEARTBEAT_MS)
  outgoing.once('close', () => {
    clearInterval(heartbeat)
    stopListening()
    leave()
  })
  // An idle stream has traffic by its heartbeats alone: the socket's own time limit is for others.
  outgoing.setTimeout(0)
  wake()
  return RESPONSE_ALREADY_SENT
}

async function startOrReset(start: () => Promise<Position>): Promise<Position | null> {
  try {
    return await start()
  } catch (error) {
    if (error instanceof SyncError && error.code === 'FEED01') return null
    throw error
  }
}

function run(stream: Stream): void {
  stream.isDue = true
  if (stream.isRunning) return
  stream.isRunning = true
  drain(stream)
    .catch((error: unknown) => {
      // Whoever hears that the database is back wakes everybody.
      if ((error as { code?: string }).code === UNREACHABLE) return
      // The session ended, or the database failed: the client comes back, and is told then.
      if (!(error instanceof SyncError))
        stream.deps.log.error({ err: error }, 'an event stream failed')
      stream.outgoing.end()
    })
    .finally(() => {
      stream.isRunning = false
    })
}

/** Writes all that there is to the socket. Throws AUTH01 when the session has ended. */
async function drain(stream: Stream): Promise<void> {
  const { deps, self, outgoing, withData } = stream
  const seal = sealer(deps, self)
  const options = { limit: Number.MAX_SAFE_INTEGER, withData }
  while (stream.isDue && !outgoing.destroyed) {
    stream.isDue = false
    for (let more = true; more && !outgoing.destroyed;) {
      if (deps.listeners.isOver()) return void outgoing.end()
      const part = await change.part(deps, self, stream.position, options)
      for (const entry of part.entries) {
        const text = `event: change\nid: ${seal(entry.position)}\ndata: ${JSON.stringify(entry.change)}\n\n`
        if (!outgoing.write(text)) await drained(outgoing)
        if (outgoing.destroyed) return
      }
      stream.position = part.position
      ;({ more } = part)
    }
  }
}

/** Resolves when the socket takes more, or is gone. */
function drained(outgoing: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      outgoing.off('drain', done)
      outgoing.off('close', done)
      resolve()
    }
    outgoing.on('drain', done)
    outgoing.on('close', done)
  })
}

/**
 * A comment, so that proxies keep the line open; and a look whether the session still lives. A reader
 * that is stuck is cut: what it does not take is neither written on nor kept for long.
 */
function beat(stream: Stream): void {
  const { outgoing } = stream
  if (outgoing.writableLength === 0) {
    stream.missedBeats = 0
    outgoing.write(':\n\n')
    return run(stream)
  }
  // The next piece is written when the socket has taken the one before: a slow reader goes on.
  const { bytesWritten } = outgoing.req.socket
  stream.missedBeats = bytesWritten === stream.bytesAtBeat ? stream.missedBeats + 1 : 0
  stream.bytesAtBeat = bytesWritten
  if (stream.missedBeats * HEARTBEAT_MS >= STUCK_MS) outgoing.destroy()
}
