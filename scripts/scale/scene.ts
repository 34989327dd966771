// Owns what is measured: nodes on one database, people who have accounts there, and their event streams.
import { Agent, get, type IncomingMessage } from 'node:http'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { startBucket } from '../../test/helpers/bucket.ts'
import { freePort, startSqld, startSyncNode, type Server } from '../bench/process.ts'

export interface Scene {
  nodes: Server[]
  /** Its address, where there is a server. */
  database?: string
  /** Milliseconds of the processor so far: of the nodes, of the database; and what that was asked. */
  spent(): Promise<Spent>
  stop(): Promise<void>
}

export interface Spent {
  node: number
  database: number
  statements: number
}

export interface Person {
  user: string
  headers: Record<string, string>
}

export const minus = (one: Spent, other: Spent): Spent => ({
  node: one.node - other.node,
  database: one.database - other.database,
  statements: one.statements - other.statements,
})

/** One node on its file. */
export async function openFile(folder: string): Promise<Scene> {
  mkdirSync(folder)
  const node = await startSyncNode(join(folder, 'data'))
  return {
    nodes: [node],
    spent: () => Promise.resolve({ node: node.cpuMs(), database: 0, statements: 0 }),
    stop: () => node.stop(),
  }
}

export async function openNodes(folder: string, count: number): Promise<Scene> {
  mkdirSync(folder)
  const afters: (() => unknown)[] = []
  const bucket = await startBucket({ after: (undo) => void afters.push(undo as () => unknown) })
  const admin = await freePort()
  const database = await startSqld(join(folder, 'database'), [
    '--admin-listen-addr',
    `127.0.0.1:${admin}`,
  ])
  const env = {
    ...bucket.environment,
    DATABASE_URL: database.url,
    SECRET_KEY: 'of a measurement, which all nodes share',
  }
  const nodes: Server[] = []
  for (let nth = 0; nth < count; nth++) {
    nodes.push(await startSyncNode(join(folder, `node-${nth}`), env, await freePort()))
  }
  return {
    nodes,
    database: database.url,
    async spent() {
      const stats = await fetch(`http://127.0.0.1:${admin}/v1/namespaces/default/stats`)
      const { query_count: statements } = (await stats.json()) as { query_count: number }
      const node = nodes.reduce((sum, { cpuMs }) => sum + cpuMs(), 0)
      return { node, database: database.cpuMs(), statements }
    },
    async stop() {
      for (const one of [...nodes, database]) await one.stop()
      for (const after of afters) await after()
    },
  }
}

export async function signUp({ url }: Server, id: string): Promise<Person> {
  const body = JSON.stringify({ id, password: 'correct horse battery' })
  const answer = await fetch(`${url}/account`, { method: 'POST', body })
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
  const { token, user } = (await answer.json()) as { token: string; user: string }
  return { user, headers: { Authorization: `Bearer ${token}` } }
}

/** Answers the store's key and its new token. */
export async function write(
  { url }: Server,
  { headers }: Person,
  { name, token, value }: { name: string; token?: string; value: Buffer },
): Promise<{ key: string; token: string }> {
  const answer = await fetch(`${url}/store/${name}`, {
    method: 'PUT',
    headers: { ...headers, ...(token !== undefined && { 'X-Sync-Token': token }) },
    body: value,
  })
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
  const [key, next] = ['X-Sync-Key', 'X-Sync-Token'].map((one) => answer.headers.get(one) ?? '')
  return { key: key as string, token: next as string }
}

export async function share(
  { url }: Server,
  { headers }: Person,
  { name, members }: { name: string; members: Person[] },
): Promise<void> {
  const body = JSON.stringify(members.map(({ user }) => ({ user, permission: 'READ' })))
  const answer = await fetch(`${url}/permission/${name}`, { method: 'PUT', headers, body })
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
}

/** Streams that count what they are told from now on. */
export function listen() {
  const agent = new Agent({ maxSockets: Infinity })
  let count = 0
  return {
    count: () => count,
    async open({ port }: Server, person: Person): Promise<void> {
      const headers = { ...person.headers, Accept: 'text/event-stream' }
      const options = { host: '127.0.0.1', port, path: '/changes', headers, agent }
      const stream = await new Promise<IncomingMessage>((resolve, reject) => {
        get(options, resolve).on('error', reject)
      })
      stream.on('error', () => undefined)
      stream.on(
        'data',
        (chunk: Buffer) => (count += chunk.toString().split('event: change').length - 1),
      )
    },
    close: () => agent.destroy(),
  }
}
