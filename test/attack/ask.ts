// Owns the requests of an attack: over connections that are kept, each from an address of its own, as a
// reverse proxy on this machine would pass it on, and with the time that the answer took.
import { Agent, request, type IncomingHttpHeaders } from 'node:http'

export const PASSWORD = 'correct horse battery'
export const WRONG = 'a wrong password'

export interface Answer {
  /** 0 when there is none: `body` says why. */
  status: number
  headers: IncomingHttpHeaders
  body: string
  ms: number
}

export interface Asked {
  method?: 'GET' | 'POST' | 'PUT'
  path: string
  body?: object | string
  /** What X-Forwarded-For says. */
  from?: string
  bearer?: string
}

export interface Line {
  ask(asked: Asked): Promise<Answer>
  close(): void
}

/** Connections to a server, as many at once as are asked for. */
export function openLine(url: string): Line {
  const agent = new Agent({ keepAlive: true })
  return {
    close: () => agent.destroy(),
    ask: ({ method = 'POST', path, body, from, bearer }) =>
      new Promise((resolve) => {
        const content = typeof body === 'object' ? JSON.stringify(body) : body
        const began = performance.now()
        const outgoing = request(url + path, {
          agent,
          method,
          headers: {
            ...(from === undefined ? {} : { 'X-Forwarded-For': from }),
            ...(bearer === undefined ? {} : { Authorization: `Bearer ${bearer}` }),
            ...(content === undefined ? {} : { 'Content-Length': Buffer.byteLength(content) }),
          },
        })
        const fail = ({ message }: Error): void =>
          resolve({ status: 0, headers: {}, body: message, ms: performance.now() - began })
        outgoing.once('error', fail)
        outgoing.once('response', (incoming) => {
          const parts: Buffer[] = []
          incoming.on('data', (part: Buffer) => parts.push(part))
          incoming.once('error', fail)
          incoming.once('end', () => {
            resolve({
              status: incoming.statusCode ?? 0,
              headers: incoming.headers,
              body: Buffer.concat(parts).toString(),
              ms: performance.now() - began,
            })
          })
        })
        outgoing.end(content)
      }),
  }
}

/** The status, and the code of a problem. */
export function outcomeOf({ status, body }: Answer): string {
  if (status === 0) return body
  const code = /"code":"(\w+)"/.exec(status < 400 ? '' : body)?.[1]
  return code === undefined ? String(status) : `${status} ${code}`
}

/** All that an answer says, without what differs from one to the next. */
export function wordsOf({ status, headers, body }: Answer): string {
  const { date: _date, 'x-request-id': _id, ...same } = headers
  return JSON.stringify({ status, headers: same, body })
}

export async function signUp(line: Line, id: string): Promise<string> {
  for (;;) {
    const answer = await line.ask({ path: '/account', body: { id, password: PASSWORD } })
    if (answer.status === 200) return (JSON.parse(answer.body) as { token: string }).token
    if (answer.status !== 503) throw new Error(`sign-up: ${answer.body}`)
  }
}

/** Makes accounts, a few at a time. */
export async function signUpAll(line: Line, ids: string[]): Promise<void> {
  const left = [...ids]
  const next = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) await signUp(line, id)
  }
  await Promise.all(Array.from({ length: 4 }, next))
}
