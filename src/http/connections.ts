// Owns what a connection may make the server hold: requests that wait for their turn, and headers that
// have not all come.
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

type Taking = (incoming: IncomingMessage, outgoing: ServerResponse) => void

const LAST = Symbol('the last answer of a connection')
const WAITING = Symbol('how many requests of a connection wait for it')
const ANSWERED = Symbol('bytes that had come when the last answer was done')
type Connection = Socket & {
  [LAST]?: ServerResponse | undefined
  [WAITING]?: number
  [ANSWERED]?: number
}

// Node reads on while an answer is due: each request that waits behind it takes memory.
const MOST_WAITING = 100
// A key takes up to 96 KiB of headers, and anybody can begin some.
const MOST_UNFINISHED_BYTES = 32 * 1024 * 1024
const FEW_BYTES = 4096
const LOOK_MS = 250

/**
 * One answer at a time on a connection, as it is read: who sends many requests in a row and reads
 * nothing would have the server make, and hold, the answers to them all. With too many he is hung up on.
 */
export function inOrder(take: Taking): Taking {
  return (incoming, outgoing) => {
    const socket = incoming.socket as Connection
    const before = socket[LAST]
    socket[LAST] = outgoing
    outgoing.once('close', () => {
      if (socket[LAST] !== outgoing) return
      socket[LAST] = undefined
      socket[ANSWERED] = socket.bytesRead
    })
    if (before === undefined) return take(incoming, outgoing)
    const waiting = (socket[WAITING] ?? 0) + 1
    socket[WAITING] = waiting
    if (waiting > MOST_WAITING) {
      socket.destroy()
      return
    }
    before.once('close', () => {
      socket[WAITING] = (socket[WAITING] ?? 1) - 1
      if (!socket.destroyed) take(incoming, outgoing)
    })
  }
}

/** Ends the connections that have sent the most headers, while all have sent too much together. */
export function limitUnfinished(server: Server): void {
  const open = new Set<Connection>()
  server.on('connection', (socket: Connection) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  const bytesOf = (socket: Connection): number => socket.bytesRead - (socket[ANSWERED] ?? 0)
  const timer = setInterval(() => {
    const many = [...open].filter((one) => one[LAST] === undefined && bytesOf(one) > FEW_BYTES)
    let sum = many.reduce((bytes, one) => bytes + bytesOf(one), 0)
    for (const one of many.sort((a, b) => bytesOf(b) - bytesOf(a))) {
      if (sum <= MOST_UNFINISHED_BYTES) break
      sum -= bytesOf(one)
      one.destroy()
    }
  }, LOOK_MS).unref()
  server.once('close', () => clearInterval(timer))
}
