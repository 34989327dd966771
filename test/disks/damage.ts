// Owns the trial of damaged files: bytes that flipped, pages that are gone, files that end early. What is
// served is what was stored, and a start serves it or ends with one line.
import {
  cpSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { client, type Client } from '../helpers/client.ts'
import { EXECUTABLE, install, type Installation, type Server } from '../helpers/executable.ts'
import type { TestNode } from '../helpers/node.ts'
import { numbers } from '../helpers/random.ts'
import { remoteClient, signUp, type Opened } from '../helpers/remote.ts'
import { STOPS, bytes, type Scope } from './place.ts'

type Below = (below: number) => number

/** How often what came out. */
export type Counts = Map<string, number>

const count = (counts: Counts, name: string): void =>
  void counts.set(name, (counts.get(name) ?? 0) + 1)

const PAGE = 4096

/** Changes a file by chance; answers how. */
function damage(path: string, below: Below): string {
  const size = statSync(path).size
  const way = below(8)
  if (way === 0) {
    truncateSync(path, below(size))
    return 'truncated'
  }
  const content = readFileSync(path)
  if (way === 1) {
    const at = below(Math.ceil(size / PAGE)) * PAGE
    content.fill(0, at, Math.min(size, at + PAGE))
  } else if (way === 2 && size > 2 * PAGE) {
    const [from, to] = [
      below(Math.floor(size / PAGE)) * PAGE,
      below(Math.floor(size / PAGE)) * PAGE,
    ]
    content.copy(content, to, from, from + PAGE)
  } else {
    for (let flips = 1 + below(way === 3 ? 20 : 1); flips > 0; flips--) {
      const at = below(size)
      content[at] = (content[at] as number) ^ (1 << below(8))
    }
  }
  writeFileSync(path, content)
  return way === 1 ? 'a page zeroed' : way === 2 ? 'a page of elsewhere' : 'flipped'
}

async function outcomeOf(ana: Client, key: string, value: Buffer): Promise<string> {
  try {
    const response = await ana.get(key)
    const found = Buffer.from(await response.arrayBuffer())
    if (response.status !== 200) return String(response.status)
    return value.equals(found) ? 'right' : 'WRONG'
  } catch (error) {
    if (error instanceof TypeError) return 'cut short'
    throw error
  }
}

/** Damages so many values that are files, each of a server that runs. */
export async function damageValues(scope: Scope, times: number, seed: number): Promise<Counts> {
  const below = numbers(seed)
  const here = install(scope, EXECUTABLE)
  const { url } = await here.serve({ QUOTA: 'none' })
  const ana = remoteClient(url, await signUp(url, { id: 'ana' }))
  const folder = join(here.root, 'blobs')
  const counts: Counts = new Map()
  const seen = new Set<string>()
  for (let turn = 0; turn < times; turn++) {
    const value = bytes(17_000 + below(300_000), turn)
    await ana.save('a', value, turn === 0 ? {} : { 'X-Sync-Token': '*' })
    const name = readdirSync(folder).find((one) => !seen.has(one)) as string
    seen.add(name)
    damage(join(folder, name), below)
    const isSame = value.equals(readFileSync(join(folder, name)))
    const outcome = await outcomeOf(ana, 'a', value)
    count(counts, isSame ? `unchanged, ${outcome}` : outcome)
  }
  return counts
}

interface Template {
  folder: string
  /** Account by account, with what it keeps. */
  people: { opened: Opened; values: Map<string, Buffer> }[]
}

const PEOPLE = ['ana', 'ben', 'eve']

/** A folder whose server was killed, with some of its data in the log still. */
async function makeTemplate(here: Installation, below: Below): Promise<Template> {
  const people: Template['people'] = []
  for (const isLate of [false, true]) {
    const server = await here.serve()
    for (const [one, id] of PEOPLE.entries()) {
      if (!isLate) people.push({ opened: await signUp(server.url, { id }), values: new Map() })
      const { opened, values } = people[one] as Template['people'][number]
      const self = remoteClient(server.url, opened)
      for (let index = 0; index < 8; index++) {
        const key = `${isLate ? 'late' : 'early'} ${index}`
        const value = bytes(index === 0 ? 40_000 : below(12_000), below(1e6))
        values.set(key, value)
        await self.save(key, value, { 'X-Sync-Meta': key })
      }
    }
    if (isLate) await server.stop('SIGKILL')
    else await server.stop()
  }
  const folder = join(here.folder, 'template')
  cpSync(here.root, folder, { recursive: true })
  return { folder, people }
}

/** Damages the database so many times, and starts a server on each. */
export async function damageDatabases(scope: Scope, times: number, seed: number): Promise<Counts> {
  const below = numbers(seed)
  const here = install(scope, EXECUTABLE)
  const template = await makeTemplate(here, below)
  const counts: Counts = new Map()
  for (let turn = 0; turn < times; turn++) {
    rmSync(here.root, { recursive: true, force: true })
    cpSync(template.folder, here.root, { recursive: true })
    const file = below(3) === 0 ? 'sync-node.db-wal' : 'sync-node.db'
    const way = damage(join(here.root, file), below)
    try {
      await tryDatabase(here, template, counts)
    } catch (error) {
      throw new Error(`SEED=${seed}, turn ${turn}, ${file} ${way}: ${(error as Error).message}`, {
        cause: error,
      })
    }
  }
  return counts
}

async function tryDatabase(here: Installation, template: Template, counts: Counts): Promise<void> {
  const server = await start(here, counts)
  if (server === undefined) return
  await look(server, template, counts)
  // One that stops at a write must not stop at it again and again.
  for (let stops = 0; ; stops++) {
    const running = stops === 0 ? server : await start(here, counts)
    if (running === undefined) return
    const isStopped = await writeAll(running, template, counts)
    if (!isStopped) {
      await running.stop('SIGKILL')
      return
    }
    count(counts, 'stopped at a write')
    if (stops === 2)
      throw new Error(`a write stops it each time: ${running.output().stdout.slice(-400)}`)
  }
}

/** Undefined when it ended with one line. */
async function start(here: Installation, counts: Counts): Promise<Server | undefined> {
  try {
    const server = await here.serve()
    count(counts, 'starts that served')
    return server
  } catch (error) {
    const { message } = error as Error
    if (!/^ended with 1: (?:\{.*\}\n)*sync-node: .*\n$/.test(message)) throw error
    count(counts, 'starts that ended with one line')
    return undefined
  }
}

const as = (url: string, opened: Opened): Client =>
  client(
    { request: (path: string, init?: RequestInit) => fetch(url + path, init) } as TestNode,
    '',
    opened,
  )

async function look({ url }: Server, { people }: Template, counts: Counts): Promise<void> {
  let isEmpty = true
  for (const { opened, values } of people) {
    for (const [key, value] of values) {
      const outcome = await outcomeOf(as(url, opened), key, value)
      if (outcome === 'WRONG') throw new Error(`GET answers other bytes`)
      if (outcome !== '401') isEmpty = false
      count(counts, `GET ${outcome}`)
    }
  }
  if (isEmpty) throw new Error('the start is empty')
}

/** True when the server has stopped at one of them. */
async function writeAll(server: Server, { people }: Template, counts: Counts): Promise<boolean> {
  try {
    for (const { opened } of people) {
      const self = as(server.url, opened)
      for (const key of ['early 0', 'early 1', 'late 2', 'another']) {
        const { status } = await self.put(key, 'value', { 'X-Sync-Token': '*' })
        count(counts, `PUT ${status}`)
        if (key === 'another') await self.put(key, 'value')
      }
    }
    return false
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    const { code } = await server.ended
    const { stdout, stderr } = server.output()
    if (code !== 1 || !STOPS.test(stdout) || stderr !== '')
      throw new Error(`crashed: ${code} ${stdout.slice(-500)} ${stderr}`, { cause: error })
    return true
  }
}
