// Owns the connections of a soak: requests that are answered whole, and those that a client breaks off.
import { Agent, request, type ClientRequest, type IncomingMessage } from 'node:http'
import { buffer } from 'node:stream/consumers'

export interface Ask {
  method: string
  path: string
  token?: string
  headers?: Record<string, string>
  body?: Buffer | object
}

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: Buffer
}

/** What came was not what had to come. */
export class Wrong extends Error {}

const MOST_MS = 60_000

export type Line = ReturnType<typeof openLine>

export function openLine(url: string, connections: number) {
  const newAgent = (): Agent => new Agent({ keepAlive: true, maxSockets: connections })
  let agent = newAgent()

  function start({ method, path, token, headers, body }: Ask): {
    asked: ClientRequest
    bytes: Buffer | undefined
  } {
    const bytes =
      body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
    const length = bytes === undefined ? {} : { 'Content-Length': String(bytes.length) }
    const asked = request(url + path, {
      method,
      agent,
      timeout: MOST_MS,
      headers: {
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...length,
        ...headers,
      },
    })
    asked.once('timeout', () => asked.destroy(new Error(`no answer to ${method} in time`)))
    return { asked, bytes }
  }

  /** Resolves with the head of the answer. */
  function open(ask: Ask): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const { asked, bytes } = start(ask)
      asked.once('error', reject)
      asked.once('response', resolve)
      asked.end(bytes)
    })
  }

  return {
    open,

    async send(ask: Ask): Promise<Answer> {
      const response = await open(ask)
      const { statusCode = 0, headers } = response
      return { status: statusCode, headers, body: await buffer(response) }
    },

    /** Sends half of the body, and goes away. */
    breakOff(ask: Ask & { body: Buffer }): Promise<void> {
      return new Promise((resolve) => {
        const { asked } = start(ask)
        asked.on('error', () => undefined)
        asked.once('close', resolve)
        asked.write(ask.body.subarray(0, ask.body.length / 2), () => asked.destroy())
      })
    },

    /** Claims a body that never comes; answers the status. */
    claim(ask: Ask): Promise<number> {
      return new Promise((resolve, reject) => {
        const { asked } = start(ask)
        asked.once('error', reject)
        asked.once('response', ({ statusCode = 0 }: IncomingMessage) => {
          asked.off('error', reject).on('error', () => undefined)
          asked.destroy()
          resolve(statusCode)
        })
        asked.flushHeaders()
      })
    },

    /** Ends every connection; those that follow are new. */
    hangUp(): void {
      agent.destroy()
      agent = newAgent()
    },
  }
}
