// Owns what strace saw of a server: its calls on files and sockets, in the order in which they began
// and ended.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Installation, Server } from './executable.ts'

const STRACE = 'strace'

export interface Call {
  /** The thread's id; of the one that runs the event loop, the process's. */
  thread: number
  name: string
  /** The path that the call is on, or `from -> to`; of a socket, its number. */
  target: string
  args: string
  /** What it answered: -1 for a failure. */
  result: number
  /** Line numbers: every call of every thread that ended before another began has the smaller ones. */
  start: number
  end: number
}

const CALLS =
  'openat,write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,renameat2'
// Whole pages of the database: what is looked for may stand anywhere in one.
const TEXT = '5000'
// A sync takes as long as on a slow disk: what does not wait for it is seen to be earlier.
const SLOW_SYNCS = 'inject=fsync,fdatasync:delay_enter=20000'

/** False, or why there is nothing to test with. In CI that is a failure. */
export const skip: string | false =
  process.env['CI'] === undefined && spawnSync(STRACE, ['-o', '/dev/null', 'true']).status !== 0
    ? 'NOT TESTED: the order of syncs and answers. Install strace, and allow ptrace.'
    : false

const options = (file: string): string[] => [
  '-f',
  '-y',
  '-s',
  TEXT,
  '-o',
  file,
  '-e',
  `trace=${CALLS}`,
]

/** A command line that runs `command` under strace from its first call on. */
export const traced = (file: string, command: string[]): string[] => [
  STRACE,
  '-D', // the server is the child, and gets the signals
  ...options(file),
  ...command,
]

/** Attaches to a running server; answers how to end that, and all calls until then. */
export async function attach(
  t: TestContext,
  { folder }: Pick<Installation, 'folder'>,
  { pid, url }: Pick<Server, 'pid' | 'url'>,
): Promise<() => Promise<Call[]>> {
  const file = join(folder, 'trace')
  const end = await watch(t, pid, [...options(file), '-e', SLOW_SYNCS])
  return async () => {
    // When this is answered, the answers before it are written down.
    await (await fetch(`${url}/info`)).arrayBuffer()
    await end()
    return parse(readFileSync(file, 'utf8'))
  }
}

/** Attaches to all threads of a running server; answers how to end that, and how often each call came. */
export async function count(
  t: TestContext,
  { folder }: Pick<Installation, 'folder'>,
  { pid, more = [] }: { pid: number; more?: string[] },
): Promise<() => Promise<Map<string, number>>> {
  const file = join(folder, 'counts')
  const end = await watch(t, pid, ['-f', '-c', '-o', file, ...more])
  return async () => {
    await end()
    const lines = readFileSync(file, 'utf8').matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) .*?(\w+)$/gm)
    return new Map([...lines].map(([, calls, name]) => [name as string, Number(calls)]))
  }
}

async function watch(t: TestContext, pid: number, args: string[]): Promise<() => Promise<void>> {
  const strace = spawn(STRACE, [...args, '-p', String(pid)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const ended = new Promise<void>((resolve) => strace.once('close', () => resolve()))
  t.after(async () => {
    strace.kill('SIGKILL')
    await ended
  })
  let said = ''
  await new Promise<void>((resolve, reject) => {
    strace.once('error', reject)
    strace.once('close', () => reject(new Error(`strace ended: ${said}`)))
    strace.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (/Process \d+ attached/.test(said)) resolve()
    })
  })
  return () => {
    strace.kill('SIGINT')
    return ended
  }
}

/** The calls of a server that was started by `traced` and has ended. */
export async function readTrace(file: string, { pid }: Pick<Server, 'pid'>): Promise<Call[]> {
  const end = new RegExp(`^${pid} +\\+\\+\\+`, 'm')
  for (let tries = 0; tries < 3000; tries++) {
    const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
    if (end.test(text)) return parse(text)
    await pause(20)
  }
  assert.fail('strace did not write down the end of the server')
}

function parse(text: string): Call[] {
  const calls: Call[] = []
  const running = new Map<string, Call>()
  for (const [line, entry] of text.split('\n').entries()) {
    const [, thread = '', what = ''] = /^(\d+) +(.*)$/.exec(entry) ?? []
    const begun = /^(\w+)\((.*)$/.exec(what)
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(what)
    let call = running.get(thread)
    if (begun !== null) {
      const [, name = '', args = ''] = begun
      call = {
        thread: Number(thread),
        name,
        args,
        target: '',
        result: Number.NaN,
        start: line,
        end: line,
      }
      calls.push(call)
    } else if (resumed !== null && call !== undefined) call.args += resumed[1]
    else continue
    if (call.args.endsWith('<unfinished ...>')) {
      call.args = call.args.replace(/ *<unfinished \.\.\.>$/, '')
      call.end = Number.POSITIVE_INFINITY
      running.set(thread, call)
      continue
    }
    running.delete(thread)
    call.end = line
    call.result = Number(/\) += (-?\d+)[^)]*(?:\(.*\))?$/.exec(call.args)?.[1])
  }
  for (const call of calls) call.target = targetOf(call)
  return calls
}

function targetOf({ name, args }: Call): string {
  if (/^(?:openat|unlink|rename)/.test(name)) {
    return [...args.matchAll(/"([^"]*)"/g)].map(([, path]) => path).join(' -> ')
  }
  return /^\d+<([^>]*)>/.exec(args)?.[1] ?? ''
}
