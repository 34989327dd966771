// Owns what tests of accounts ask again and again: posts from some address, and rows of the
// database.
import { argon2Sync, createHash, randomBytes } from 'node:crypto'
import type { InValue, Row } from '@libsql/client'
import { toHandle } from '../../src/handle.ts'
import { PASSWORD, type TestNode } from './node.ts'

export const MINUTE = 60_000
export const HOUR = 60 * MINUTE
export const DAY = 24 * HOUR

/** Posts JSON, or a string as it is. */
export const post = (
  node: TestNode,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> =>
  node.request(path, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers,
  })

/** The headers of a client at `address`, as a reverse proxy on this machine writes them. */
export const from = (address: string): Record<string, string> => ({ 'X-Forwarded-For': address })

export const tryLogin = (
  node: TestNode,
  id: string,
  password = PASSWORD,
  headers: Record<string, string> = {},
): Promise<Response> => post(node, '/auth', { id, password }, headers)

export async function rows(node: TestNode, text: string, args: InValue[] = []): Promise<Row[]> {
  return (await node.running.deps.database.execute({ sql: text, args })).rows
}

export async function count(node: TestNode, from: string, args: InValue[] = []): Promise<number> {
  return Number((await rows(node, `SELECT count(*) AS n FROM ${from}`, args))[0]?.['n'])
}

/** What the problem says, without what differs from answer to answer. */
export async function refusalOf(response: Response): Promise<unknown> {
  const headers = Object.fromEntries(response.headers)
  for (const name of ['date', 'x-request-id']) delete headers[name]
  return { status: response.status, headers, body: await response.text() }
}

/** The status, and the code of a problem. */
export async function outcome(response: Response): Promise<string> {
  const text = await response.text()
  const code = text === '' ? undefined : (JSON.parse(text) as { code?: string }).code
  return code === undefined ? String(response.status) : `${response.status} ${code}`
}

export async function outcomes(responses: Promise<Response>[]): Promise<string[]> {
  return Promise.all(responses.map(async (response) => outcome(await response)))
}

export const sha256 = (secret: string): string =>
  createHash('sha256').update(secret).digest('base64url')

/** Waits until all writes that were asked for so far are done: the writer takes them in order. */
export async function settled(node: TestNode): Promise<void> {
  await node.running.deps.database.execute('UPDATE node SET one = 1')
}

/** Stores the usual password at the least cost Argon2id has, for tests that need hundreds of logins. */
export async function cheapen(node: TestNode, ...ids: string[]): Promise<void> {
  const nonce = randomBytes(16)
  const cost = { memory: 8, passes: 1, parallelism: 1, tagLength: 32 }
  const tag = argon2Sync('argon2id', { message: PASSWORD, nonce, ...cost })
  const text = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '')
  const phc = `$argon2id$v=19$m=8,t=1,p=1$${text(nonce)}$${text(tag)}`
  for (const id of ids) {
    await rows(node, 'UPDATE sync_account SET password = ? WHERE id = ?', [
      phc,
      toHandle(node.running.deps, id),
    ])
  }
}
