// Owns one who asks many thousand times on one connection, behind an answer that is long in coming, and
// reads nothing.
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

const MOST_MS = 20_000
const LOOK_MS = 20

/** What is wrong; empty when the server hung up in time. */
export async function pipeline(
  { url, bearer }: { url: string; bearer: string },
  requests: number,
): Promise<string[]> {
  const headers = { Authorization: `Bearer ${bearer}` }
  const answer = await fetch(`${url}/changes`, { headers })
  const { cursor } = (await answer.json()) as { cursor: string }
  const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1' })
  let isEnded = false
  for (const event of ['error', 'close'] as const) socket.on(event, () => (isEnded = true))
  socket.pause()
  socket.write(
    `GET /changes?wait=50&since=${cursor} HTTP/1.1\r\nHost: a\r\nAuthorization: ${headers.Authorization}\r\n\r\n`,
  )
  socket.write('GET /info HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(requests))
  // One that reads nothing hears of an end only by writing on.
  for (const until = performance.now() + MOST_MS; !isEnded && performance.now() < until;) {
    await pause(LOOK_MS)
    socket.write('GET /info HTTP/1.1\r\nHost: a\r\n\r\n')
  }
  socket.destroy()
  return isEnded ? [] : [`${requests} requests in a row wait, and the server does not hang up`]
}
