// Owns a raw connection: bytes out, answers in, and an end to every wait.
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { readAnswer, type Answer } from './answers.ts'

export interface Connection {
  send(bytes: Buffer): void
  /** The next answer, 100 Continue left out; null when the connection ended instead. */
  next(toHead: boolean): Promise<Answer | null>
  /** Sends what nobody can foretell, and hangs up, politely or not; all that was answered. */
  finish(bytes: Buffer, ending: Ending): Promise<Answer[]>
  isOpen(): boolean
  destroy(): void
}

interface Ending {
  isReset: boolean
  /** Before it hangs up. */
  waitMs: number
}

// The server waits 30 s for a body that stopped.
const MOST_MS = 40_000

export class Late extends Error {}

export async function dial(port: number): Promise<Connection> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  let received: Buffer = Buffer.alloc(0)
  let parts: Buffer[] = []
  let isEnded = false
  let wake = (): void => undefined
  socket.on('data', (part: Buffer) => {
    parts.push(part)
    wake()
  })
  for (const event of ['end', 'close', 'error'] as const) {
    socket.on(event, () => {
      isEnded = true
      wake()
    })
  }
  await ready(socket)

  const take = (): Buffer => {
    if (parts.length > 0) received = Buffer.concat([received, ...parts])
    parts = []
    return received
  }

  async function changed(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Late('neither an answer nor an end')), MOST_MS)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    wake = () => undefined
  }

  return {
    send: (bytes) => void socket.write(bytes),
    isOpen: () => !isEnded,
    destroy: () => void socket.destroy(),
    async next(toHead) {
      for (;;) {
        const read = readAnswer(take(), toHead)
        if (read !== null) {
          received = received.subarray(read.length)
          if (read.answer.status >= 200) return read.answer
          continue
        }
        if (isEnded) return null
        await changed()
      }
    },
    async finish(bytes, { isReset, waitMs }) {
      socket.write(bytes)
      if (waitMs > 0) await pause(waitMs)
      if (isReset) socket.resetAndDestroy()
      else socket.end()
      // One that still sends, and does not end, is as bad as one that does nothing.
      const until = performance.now() + MOST_MS
      while (!isEnded) {
        if (performance.now() > until) throw new Late('it goes on after its client hung up')
        await changed()
      }
      socket.destroy()
      return readAll(take())
    },
  }
}

/** All answers that stand in the bytes; the last one may be cut. */
function readAll(bytes: Buffer): Answer[] {
  const answers: Answer[] = []
  for (let rest = bytes; rest.length > 0;) {
    const read = readAnswer(rest, 'unknown')
    if (read === null) break
    answers.push(read.answer)
    rest = rest.subarray(read.length)
  }
  return answers
}

async function ready(socket: Socket): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
}
