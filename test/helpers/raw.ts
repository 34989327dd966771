// Owns one request that no HTTP client would send, and its answer as any other.
import type { TestContext } from 'node:test'
import type { TestNode } from './node.ts'
import { openWire } from './wire.ts'

/** The first answer to a request with these lines; one in 1xx too. */
export async function raw(t: TestContext, { port }: TestNode, lines: string[]): Promise<Response> {
  const wire = await openWire(t, port)
  wire.send([...lines, 'Host: localhost', 'Connection: close', '', ''].join('\r\n'))
  const answer = await wire.answer({ toHead: lines[0]?.startsWith('HEAD ') === true })
  wire.socket.destroy() // else the node waits for the rest of the request when it stops
  if (answer === null) throw new Error(`no answer to ${lines[0]}`)
  const { status, headers, body } = answer
  const hasBody = status >= 200 && ![204, 304].includes(status)
  if (status < 200) throw new Error(`the server asks for the body: ${status}`)
  return new Response(hasBody ? body : null, { status, headers })
}
