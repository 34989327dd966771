// Owns a server on a disk that fails: how it is killed, cut off and started again, and what it has
// promised meanwhile.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import type { TestContext } from 'node:test'
import { client, type Client } from '../helpers/client.ts'
import { EXECUTABLE, FROM_SOURCE, install, type Ran, type Server } from '../helpers/executable.ts'
import { PASSWORD, type TestNode } from '../helpers/node.ts'
import { numbers } from '../helpers/random.ts'
import type { Opened } from '../helpers/remote.ts'
import { openDisk, type Disk } from './disk.ts'

export type Scope = Pick<TestContext, 'after'>

/** Runs `work` and then what it has asked to be done after it. */
export async function within<T>(work: (scope: Scope) => Promise<T>): Promise<T> {
  const after: (() => unknown)[] = []
  try {
    return await work({ after: (call: () => unknown) => void after.push(call) } as Scope)
  } finally {
    for (const call of after.toReversed()) await call()
  }
}

/** What the server does that nobody may see. */
export class Fault extends Error {
  readonly kind: 'wrong' | 'crashed' | 'contradicted' | 'lost'

  constructor(kind: Fault['kind'], message: string) {
    super(message)
    this.kind = kind
  }
}

export interface Place {
  disk: Disk
  root: string
  /** An account with values that have to stay. */
  keeper: Client
  request: TestNode['request']
  signUp(id: string, more?: object): Promise<Client>
  logIn(id: string, password?: string): Promise<Response>
  as(id: string, opened: Opened): Client
  run(args: string[]): Promise<Ran>
  /** Settings for the next start. */
  set(environment: Record<string, string>): void
  /** Answers false when it ends with one line that says why, where it may. */
  start(mayRefuse?: boolean): Promise<boolean>
  /** Ends it by kill -9, and then the power too, if wanted. */
  kill(end?: 'kill' | 'cut'): Promise<void>
  /** Ends it as a service manager does. Throws Fault when it ends in any other way than it should. */
  stop(): Promise<void>
  /** Answers what `work` does, or undefined when the server has stopped by itself, as it should. */
  unlessStopped<T>(work: () => Promise<T>): Promise<T | undefined>
  /** The end of what the server that was started last has said. */
  output(): string
  /** Waits for the stop that an unknown outcome has to be followed by. */
  expectStop(): Promise<void>
  /** Another write of the keeper, which from here on may not be lost; or the stop that it waits for. */
  promise(): Promise<void>
  /** All that was promised is there. */
  expectKept(): Promise<void>
}

// What the executable is made of, where it was not built: in a copy that has a seeded bug.
const PROGRAM = existsSync(EXECUTABLE[0] as string) ? EXECUTABLE : FROM_SOURCE
export const STOPS = /the server stops, so that nothing is promised that is not kept/
// As install() tells of a server that ended: the log's lines, then the one that says why.
const REFUSED = /^ended with 1: (?:\{.*\}\n)*sync-node: .*\n$/
const STOP_MS = 20_000
const LARGE = 100_000

/** Bytes that nothing else has. */
export function bytes(length: number, seed: number): Buffer {
  const below = numbers(seed)
  const made = Buffer.alloc(Math.ceil(length / 4) * 4)
  for (let at = 0; at < made.length; at += 4) made.writeUInt32LE(below(2 ** 32), at)
  return made.subarray(0, length)
}

export async function openPlace(scope: Scope, library: string): Promise<Place> {
  const place = newPlace(scope, library)
  await place.start()
  await fill(place)
  return place
}

/** Makes the keeper, and what it keeps. */
export async function fill(place: Place): Promise<void> {
  place.keeper = await place.signUp('keeper')
  const { keeper } = place
  await keeper.save('small', bytes(2000, 1))
  await keeper.save('large', bytes(LARGE, 2))
  await keeper.save('since', '0')
}

/** One whose server was not started yet. */
export function newPlace(scope: Scope, library: string): Place {
  const here = install(scope, PROGRAM)
  const { root } = here
  const disk = openDisk(library, { folder: here.folder, root })
  scope.after(() => disk.close())
  const settings = { ...disk.environment, HOST: '127.0.0.1', STATIC_ROOT: root, QUOTA: 'none' }
  let server: Server | undefined
  let addresses = 0
  const promised = { least: 0, most: 0 }

  const request: TestNode['request'] = (path, init = {}) => {
    addresses++
    // Nobody is limited: each request comes from another address.
    const address = `10.${(addresses >> 16) & 255}.${(addresses >> 8) & 255}.${addresses & 255}`
    return fetch(`${server?.url}${path}`, {
      ...init,
      headers: { 'X-Forwarded-For': address, ...(init.headers as object) },
      signal: AbortSignal.timeout(30_000),
    })
  }
  const as = (id: string, opened: Opened): Client => client({ request } as TestNode, id, opened)

  async function expectStop(): Promise<void> {
    const late = new Promise<undefined>((resolve) => {
      setTimeout(() => resolve(undefined), STOP_MS).unref()
    })
    const ended = await Promise.race([server?.ended, late])
    if (ended === undefined) throw new Fault('crashed', 'does not stop')
    const { code, signal } = ended
    const { stdout = '', stderr = '' } = server?.output() ?? {}
    if (code === 1 && STOPS.test(stdout) && stderr === '') return
    throw new Fault('crashed', `ended with ${code} ${signal}: ${stdout.slice(-600)} ${stderr}`)
  }

  const place: Place = {
    disk,
    root,
    keeper: {} as Client,
    request,
    as,
    async signUp(id, more = {}) {
      const body = JSON.stringify({ id, password: PASSWORD, ...more })
      const response = await request('/account', { method: 'POST', body })
      if (response.status !== 200) throw new Error(`sign-up: ${await response.text()}`)
      return as(id, (await response.json()) as Opened)
    },
    logIn: (id, password = PASSWORD) =>
      request('/auth', { method: 'POST', body: JSON.stringify({ id, password }) }),
    set: (environment) => void Object.assign(settings, environment),
    run: (args) => here.run(args, settings),
    async start(mayRefuse = false) {
      try {
        server = await here.serve(settings)
        return true
      } catch (error) {
        const { message } = error as Error
        if (mayRefuse && REFUSED.test(message)) return false
        throw new Fault('crashed', `does not start: ${message}`)
      }
    },
    async kill(end = 'kill') {
      await server?.stop('SIGKILL')
      disk.free()
      if (end === 'cut') disk.cutPower()
    },
    async stop() {
      const ended = await server?.stop()
      if (ended?.code !== 0) await expectStop()
    },
    async unlessStopped(work) {
      try {
        return await work()
      } catch (error) {
        if (!isCut(error)) throw error
        await expectStop()
        return undefined
      }
    },
    output: () => server?.output().stdout.slice(-500) ?? '',
    expectStop,
    async promise() {
      promised.most++
      const value = String(promised.most)
      const response = await place.keeper.put('since', value, { 'X-Sync-Token': '*' })
      // Refused because of what came before, which the server stops for.
      if (response.status === 503) return expectStop()
      if (!response.ok)
        throw new Fault('wrong', `later: ${response.status} ${await response.text()}`)
      promised.least = promised.most
    },
    async expectKept() {
      const since = await (await place.keeper.get('since')).text()
      const small = await place.keeper.get('small')
      const large = await place.keeper.get('large')
      const isWhole =
        bytes(2000, 1).equals(Buffer.from(await small.arrayBuffer())) &&
        bytes(LARGE, 2).equals(Buffer.from(await large.arrayBuffer()))
      if (!isWhole) throw new Fault('lost', `a value: ${small.status} ${large.status}`)
      if (Number(since) >= promised.least && Number(since) <= promised.most) return
      throw new Fault('lost', `${promised.least} was acknowledged, and is ${since} now`)
    },
  }
  return place
}

/** The connection went away, and no answer came. */
export function isCut(error: unknown): boolean {
  assert.ok(error instanceof Error)
  return error instanceof TypeError && /fetch failed|terminated/.test(error.message)
}
