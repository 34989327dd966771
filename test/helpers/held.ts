// Owns an upload that the test holds back: the server has looked at everything but the body, and waits.
import { request, type IncomingHttpHeaders } from 'node:http'
import { text } from 'node:stream/consumers'
import { encodeKey, type Client } from './client.ts'

export interface Held {
  /** Sends the body's end; answers what came of it. */
  finish(): Promise<HeldAnswer>
}

interface HeldAnswer {
  status: number
  headers: IncomingHttpHeaders
  code: string | undefined
}

/**
 * Begins a PUT of `value` in chunks. Resolves when the server asks for the body, which it does after
 * it has looked at session, permission, token and quota for the first time.
 */
export async function holdBack(
  url: string,
  { headers: session }: Pick<Client, 'headers'>,
  { key, value, headers = {} }: { key: string; value: string; headers?: Record<string, string> },
): Promise<Held> {
  const upload = request(`${url}/store/${encodeKey(key)}`, {
    method: 'PUT',
    agent: false,
    headers: { ...session, ...headers, Expect: '100-continue', 'Transfer-Encoding': 'chunked' },
  })
  const answer = new Promise<HeldAnswer>((resolve, reject) => {
    upload.once('error', reject)
    upload.once('response', (incoming) => {
      const { statusCode: status = 0, headers } = incoming
      text(incoming).then((body) => {
        const code = body === '' ? undefined : (JSON.parse(body) as { code: string }).code
        resolve({ status, headers, code })
      }, reject)
    })
  })
  answer.catch(() => undefined) // looked at by finish()
  const wanted = new Promise<'wanted'>((resolve) => {
    upload.once('continue', () => resolve('wanted'))
  })
  upload.flushHeaders()
  const first = await Promise.race([wanted, answer])
  if (first !== 'wanted') throw new Error(`refused at once: ${first.status} ${first.code}`)
  const half = Math.floor(value.length / 2)
  upload.write(value.slice(0, half))
  return {
    finish() {
      upload.end(value.slice(half))
      return answer
    },
  }
}
