// Owns clients of a server that runs in a process of its own, reached by its address alone.
import { client, type Client } from './client.ts'
import { expectStatus } from './expect.ts'
import { PASSWORD, type TestNode } from './node.ts'

/** What a registration or login answers. */
export interface Opened {
  token: string
  user: string
}

export const remoteClient = (url: string, opened: Opened): Client =>
  client(
    { request: (path: string, init?: RequestInit) => fetch(url + path, init) } as TestNode,
    opened.user,
    opened,
  )

/** Posts JSON, as if from `address` when there is one. */
export const post = (
  url: string,
  path: string,
  body: object,
  address?: string,
): Promise<Response> =>
  fetch(url + path, {
    method: 'POST',
    headers: address === undefined ? {} : { 'X-Forwarded-For': address },
    body: JSON.stringify(body),
  })

export async function signUp(
  url: string,
  { id, password = PASSWORD }: { id: string; password?: string },
): Promise<Opened> {
  const response = await expectStatus(await post(url, '/account', { id, password }), 200)
  return (await response.json()) as Opened
}
