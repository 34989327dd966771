// Owns several nodes in this process that look like one to a test: behind nginx, with one clock, one database
// server and one bucket.
import type { TestContext } from 'node:test'
import { post } from '../helpers/ask.ts'
import { startBucket } from '../helpers/bucket.ts'
import { client, type Client } from '../helpers/client.ts'
import { expectStatus } from '../helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from '../helpers/node.ts'
import { startBalancer } from '../helpers/proxy.ts'
import type { Opened } from '../helpers/remote.ts'
import { startSqld } from '../helpers/sqld.ts'

const NODES = 3

export async function startAsOne(t: TestContext): Promise<TestNode> {
  const sqld = await startSqld()
  t.after(() => sqld.remove())
  const { environment } = await startBucket(t)
  const nodes: TestNode[] = []
  for (let i = 0; i < NODES; i++) {
    nodes.push(await startNode(t, environment, { databaseUrl: sqld.url }))
  }
  const [first] = nodes as [TestNode]
  const proxy = await startBalancer(
    t,
    nodes.map(({ port }) => port),
  )
  const all = (work: (node: TestNode) => Promise<unknown>) => Promise.all(nodes.map(work))

  const node: TestNode = {
    ...first,
    ...proxy,
    running: {
      ...first.running,
      housekeep: async () => void (await all(({ running }) => running.housekeep())),
    },
    advance: (ms) => nodes.forEach((one) => one.advance(ms)),
    // nginx would compress the answers, and say so in their tags.
    request: (path, init = {}) =>
      fetch(proxy.url + path, {
        ...init,
        headers: { 'Accept-Encoding': 'identity', ...(init.headers as object) },
      }),
    async logIn(id, { password = PASSWORD, device } = {}): Promise<Client> {
      const answer = await post(node, '/auth', { id, password, device })
      return client(node, id, (await (await expectStatus(answer, 200)).json()) as Opened)
    },
    async restart() {
      await all((one) => one.stop())
      await sqld.kill()
      await sqld.start()
      await all((one) => one.restart({ ...environment, PORT: String(one.port) }))
      node.running.deps = first.running.deps
    },
  }
  return node
}
