// Owns the way between a node and its database server, for a test that counts what goes over it, loses
// answers, or cuts it.
import { createServer, request as httpRequest, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { TestContext } from 'node:test'

export interface DatabaseProxy {
  url: string
  /** What was asked of the database, but for each node's own questions, twice a second and more. */
  asked: string[]
  /** The server does what is asked for the next time that this is true, and its answer gets lost. */
  loseAnswer: ((body: string) => boolean) | null
  /** What this is true of is kept waiting for as long as it is. */
  holds: ((body: string) => boolean) | null
  cut(): Promise<void>
  mend(): Promise<void>
  /** From now on another server is behind it; what was connected has to connect again. */
  lead(to: string): void
}

export async function startDatabaseProxy(t: TestContext, target: string): Promise<DatabaseProxy> {
  let behindIt = target
  const server = createServer((incoming, outgoing) => {
    buffer(incoming).then(
      (body) => void pass(incoming.url ?? '', body, outgoing),
      () => outgoing.destroy(),
    )
  })
  const listen = (port: number): Promise<void> =>
    new Promise((resolve) => server.listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo

  const self: DatabaseProxy = {
    url: `http://127.0.0.1:${port}`,
    asked: [],
    loseAnswer: null,
    holds: null,
    cut: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
    mend: () => listen(port),
    lead(to) {
      behindIt = to
      server.closeAllConnections()
    },
  }

  async function pass(path: string, body: Buffer, outgoing: ServerResponse): Promise<void> {
    const text = body.toString()
    if (!text.includes("name = 'touched'")) self.asked.push(text)
    if (self.holds?.(text) === true) return
    const isLost = self.loseAnswer?.(text) === true
    if (isLost) self.loseAnswer = null
    const headers = { 'content-type': 'application/json', 'content-length': body.length }
    const behind = httpRequest(behindIt + path, { method: 'POST', headers, agent: false })
    behind.on('error', () => outgoing.destroy())
    behind.on('response', (answer) => {
      buffer(answer).then(
        (bytes) => {
          if (isLost) return void outgoing.destroy()
          outgoing.writeHead(answer.statusCode ?? 0, { 'content-type': 'application/json' })
          outgoing.end(bytes)
        },
        () => outgoing.destroy(),
      )
    })
    behind.end(body)
  }

  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return self
}
