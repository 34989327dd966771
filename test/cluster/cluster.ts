// Owns a cluster for a proof: three nodes behind nginx, each by a way of its own to one database server,
// and all by one to a bucket.
import type { TestContext } from 'node:test'
import { EXECUTABLE, install, type Server } from '../helpers/executable.ts'
import { startBucket } from '../helpers/bucket.ts'
import { startLink, type Link } from '../helpers/link.ts'
import { SECRET_KEY } from '../helpers/node.ts'
import { skipOf, startBalancer } from '../helpers/proxy.ts'
import { hasSqld, startSqld, type Sqld } from '../helpers/sqld.ts'
import { startSwift } from '../helpers/swift.ts'

export interface Node {
  /** Past nginx. */
  url: string
  /** Its way to the database. */
  link: Link
  kill(): Promise<void>
  start(): Promise<void>
}

export interface Cluster {
  /** Of nginx. */
  url: string
  nodes: Node[]
  sqld: Sqld
  bucketLink: Link
}

export interface Make {
  command?: string[]
  bucket?: 'fake' | 'swift'
}

type Context = Pick<TestContext, 'after'>

const NODES = 3
const ENDPOINT = /(?<=endpoint=http:\/\/127\.0\.0\.1:)\d+/

export const skip = hasSqld ? skipOf('nginx') : 'there is no sqld for this machine'

export async function openCluster(t: Context, make: Make): Promise<Cluster> {
  const sqld = await startSqld()
  t.after(() => sqld.remove())
  const { environment } = make.bucket === 'swift' ? await startSwift(t) : await startBucket(t)
  const url = environment['BLOB_URL'] as string
  const bucketLink = await startLink(t, Number(ENDPOINT.exec(url)?.[0]))
  const values = { ...environment, BLOB_URL: url.replace(ENDPOINT, String(bucketLink.port)) }
  const command = make.command ?? EXECUTABLE
  const nodes: Node[] = []
  for (let i = 0; i < NODES; i++) {
    const link = await startLink(t, sqld.port)
    nodes.push(await openNode(t, command, { link, values }))
  }
  const ports = nodes.map((node) => Number(new URL(node.url).port))
  const proxy = await startBalancer(t, ports)
  return { url: proxy.url, nodes, sqld, bucketLink }
}

async function openNode(
  t: Context,
  command: string[],
  { link, values }: { link: Link; values: Record<string, string> },
): Promise<Node> {
  const here = install(t, command)
  const environment = {
    ...values,
    HOST: '127.0.0.1',
    DATABASE_URL: `http://127.0.0.1:${link.port}`,
    SECRET_KEY,
  }
  let server: Server = await here.serve(environment)
  const { url } = server
  return {
    url,
    link,
    async kill() {
      await server.stop('SIGKILL')
    },
    async start() {
      server = await here.serve({ ...environment, PORT: new URL(url).port })
    },
  }
}
