// Owns the servers that are measured: started on the loopback, their memory, and their end.
import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const executable = join(import.meta.dirname, '../../dist/sync-node')
const running = new Set<ChildProcess>()

export interface Server {
  url: string
  port: number
  startMs: number
  /** Private memory, KiB. */
  rssAnonKib(): number
  stop(): Promise<void>
}

/** Starts a program that prints its URL or its port, and waits until it does. */
async function start(
  program: string,
  args: string[],
  environment: Record<string, string>,
): Promise<Server> {
  const started = performance.now()
  const child = spawn(program, args, {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  running.add(child)
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      running.delete(child)
      resolve()
    })
  })
  const port = await new Promise<number>((resolve, reject) => {
    let text = ''
    child.once('exit', () => reject(new Error(`${program} did not start: ${text}`)))
    child.stdout.on('data', (chunk) => {
      text += String(chunk)
      const found = /http:\/\/[^:]+:(\d+)/.exec(text)?.[1]
      if (found !== undefined) resolve(Number(found))
    })
  })
  const url = `http://127.0.0.1:${port}`
  await fetch(`${url}/health`)
  return {
    url,
    port,
    startMs: performance.now() - started,
    rssAnonKib: () =>
      Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]),
    stop() {
      child.kill()
      return ended
    },
  }
}

export const startSyncNode = (
  root: string,
  environment: Record<string, string> = {},
): Promise<Server> =>
  start(executable, [], {
    STATIC_ROOT: root,
    HOST: '127.0.0.1',
    PORT: '0',
    QUOTA: 'none',
    ...environment,
  })

/** A server of a few lines, which `code` is. */
export const startCode = (code: string): Promise<Server> =>
  start(process.execPath, ['-e', code], {})

export function killAll(): void {
  for (const child of running) child.kill('SIGKILL')
}

export const mib = (kib: number): string => `${(kib / 1024).toFixed(1)} MiB`

export const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number

/** A line of what is printed. */
export const row = (name: string, figure: string): string => `${name.padEnd(48)} ${figure}`
