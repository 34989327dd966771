// Owns an installation for a test: the program as an operator has it, in an empty folder and a clean
// environment, with every process that is started there.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
}

export interface Ran extends Ended {
  stdout: string
  stderr: string
}

export interface Server {
  pid: number
  url: string
  /** What it has said so far. */
  output(): Pick<Ran, 'stdout' | 'stderr'>
  /** Sends a signal, and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<Ended>
  signal(signal: NodeJS.Signals): void
  ended: Promise<Ended>
}

type Child = ReturnType<typeof start>

export interface Installation {
  /** Where everything is started. */
  folder: string
  /** The default STATIC_ROOT. */
  root: string
  /** Starts `serve` and waits until it says where it listens. */
  serve(environment?: Environment): Promise<Server>
  /** Starts a command; `says` waits for what it prints. */
  launch(args: string[], environment?: Environment): Child
  /** Runs a command to its end. */
  run(args: string[], environment?: Environment): Promise<Ran>
}

type Environment = Record<string, string>

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url))

export const EXECUTABLE = [path('dist/sync-node')]
export const FROM_SOURCE = [process.execPath, path('src/main.ts')]
export const IN_BUN = [
  path('node_modules/@oven/bun-linux-x64-baseline/bin/bun'),
  path('src/main.ts'),
]

// Generous: one of the programs is run by an emulator.
const MOST_MS = 90_000

/** An empty folder to start `command` in; when the test ends, what still runs is killed. */
export function install(
  t: Pick<TestContext, 'after'>,
  command: string[] = EXECUTABLE,
): Installation {
  const folder = mkdtempSync(join(tmpdir(), 'sync-node-'))
  const running = new Set<Child>()
  t.after(async () => {
    await Promise.all([...running].map((child) => child.stop('SIGKILL')))
    rmSync(folder, { recursive: true, force: true })
  })

  function launch(args: string[], environment: Environment = {}): Child {
    const child = start([...command, ...args], { folder, environment })
    running.add(child)
    void child.ended.then(() => running.delete(child))
    return child
  }

  return {
    folder,
    root: join(folder, 'data'),
    launch,
    async serve(environment = {}) {
      const child = launch(['serve'], environment)
      const url = await child.says(/listens on (http:\/\/[^\s",]+)/)
      return { ...child, url }
    },
    async run(args, environment = {}) {
      const child = launch(args, environment)
      const ended = await bounded(child.ended, () => `${args.join(' ')} does not end`)
      return { ...ended, ...child.output() }
    },
  }
}

function start(
  [program = '', ...args]: string[],
  { folder, environment }: { folder: string; environment: Environment },
) {
  const child = spawn(program, args, {
    cwd: folder,
    env: { PATH: process.env['PATH'], HOST: 'localhost', PORT: '0', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (said[name] += text))
  }
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code, signal }))
  })

  /** The first group of `pattern`, as soon as stdout has it. */
  async function says(pattern: RegExp): Promise<string> {
    const found = new Promise<string>((resolve) => {
      child.stdout.on('data', () => {
        const match = pattern.exec(said.stdout)
        if (match !== null) resolve(match[1] as string)
      })
    })
    const early = ended.then(({ code }) => {
      throw new Error(`ended with ${code}: ${said.stdout}${said.stderr}`)
    })
    early.catch(() => undefined)
    return bounded(Promise.race([found, early]), () => `says no ${pattern}: ${said.stdout}`)
  }

  return {
    pid: child.pid as number,
    ended,
    says,
    output: () => ({ ...said }),
    signal: (signal: NodeJS.Signals) => void child.kill(signal),
    stop(signal: NodeJS.Signals = 'SIGTERM') {
      child.kill(signal)
      return bounded(ended, () => `does not end by ${signal}: ${said.stdout}${said.stderr}`)
    },
  }
}

/** Ends a server by a signal. Answers what it did of itself before, or said in doing so; null for nothing. */
export async function endBy(
  { stop, output }: Pick<Server, 'stop' | 'output'>,
  by: 'SIGTERM' | 'SIGKILL',
): Promise<string | null> {
  const { code, signal } = await stop(by)
  const { stdout, stderr } = output()
  const isOurs = by === 'SIGKILL' ? signal === by : code === 0
  if (isOurs && stderr === '') return null
  return `the server ended with ${signal ?? code} before ${by}: ${stdout.slice(-600)} ${stderr}`
}

/** The same promise, but no wait without an end. */
async function bounded<T>(promise: Promise<T>, explain: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(explain())), MOST_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
