import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'
import { numbers } from './helpers/random.ts'
import { openWire } from './helpers/wire.ts'

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const MUTANTS = 400
const AT_ONCE = 8

const PIECES = [
  '\r\n',
  '\n',
  '\0',
  ' ',
  ':',
  '%',
  '%00',
  '..',
  '/',
  '\xff',
  '0',
  'chunked',
  ',',
  '?',
  '"',
  '*',
]

function mutate(request: string, below: (n: number) => number): string {
  let changed = request
  for (let i = 0; i <= below(3); i++) {
    const at = below(changed.length)
    const piece = PIECES[below(PIECES.length)] as string
    const ways = [
      changed.slice(0, at) + piece + changed.slice(at),
      changed.slice(0, at) + changed.slice(at + 1 + below(8)),
      changed.slice(0, at) + String.fromCharCode(below(256)) + changed.slice(at + 1),
      changed.slice(0, at),
    ]
    changed = ways[below(ways.length)] as string
  }
  return changed
}

const requestsOf = (token: string): string[] => {
  const lines = `Host: localhost\r\nAuthorization: Bearer ${token}\r\n`
  const login = '{"id":"ana","password":"long wrong"}'
  return [
    `PUT /store/a/b HTTP/1.1\r\n${lines}X-Sync-Token: *\r\nX-Sync-Meta: m\r\nContent-Length: 5\r\n\r\nvalue`,
    `PUT /store/a HTTP/1.1\r\n${lines}Transfer-Encoding: chunked\r\n\r\n5\r\nvalue\r\n0\r\n\r\n`,
    `GET /store/a?x=y HTTP/1.1\r\n${lines}Range: bytes=0-1\r\nIf-None-Match: "a", W/"b"\r\n\r\n`,
    `POST /auth HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.2.3, ::1\r\nContent-Length: ${login.length}\r\n\r\n${login}`,
    `DELETE /permission/a?users=b&users=c HTTP/1.1\r\n${lines}\r\n`,
  ]
}

/** Sends one request after the other, until none is left. */
async function sendAll(t: TestContext, port: number, mutants: string[]): Promise<void> {
  for (let mutant; (mutant = mutants.pop()) !== undefined;) {
    const wire = await openWire(t, port)
    wire.send(mutant)
    wire.socket.end()
    const status = (await wire.answer())?.status ?? 0
    assert.ok(status < 500, `${status} to ${JSON.stringify(mutant)}`)
    wire.socket.destroy()
  }
}

describe('requests with some bytes changed', () => {
  it(`never make the server fail (SEED=${SEED})`, async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const requests = requestsOf(ana.token)
    const below = numbers(SEED)
    const mutants = Array.from({ length: MUTANTS }, () =>
      mutate(requests[below(requests.length)] as string, below),
    )
    await Promise.all(Array.from({ length: AT_ONCE }, () => sendAll(t, node.port, mutants)))
    await expectStatus(await node.request('/health'), 200)
    await expectStatus(await ana.put('afterwards', 'value'), 201)
    assert.deepEqual(node.fatal, [])
  })
})
