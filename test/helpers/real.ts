// Owns a node for the few tests that need its real mail, or read its log.
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { pino } from 'pino'
import { readConfig, type Environment } from '../../src/config.ts'
import { start, type RunningNode } from '../../src/node.ts'
import { PASSWORD, temporaryFolder } from './node.ts'

export interface RealNode {
  root: string
  url: string
  running: RunningNode
  /** All that it logged. */
  log: string[]
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>
  signUp(id: string): Promise<{ token: string; user: string }>
  stop(): Promise<void>
}

export async function startReal(t: TestContext, environment: Environment = {}): Promise<RealNode> {
  const root = join(temporaryFolder(t), 'data')
  const log: string[] = []
  const running = await start(
    readConfig({ STATIC_ROOT: root, HOST: '127.0.0.1', PORT: '0', ...environment }),
    { log: pino({ level: 'trace' }, { write: (line) => void log.push(line) }), floorBytes: 1 },
  )
  const url = `http://127.0.0.1:${running.port}`
  let stopped: Promise<void> | undefined
  const stop = (): Promise<void> => (stopped ??= running.stop())
  t.after(stop)
  const node: RealNode = {
    root,
    url,
    running,
    log,
    post: (path, body, headers = {}) =>
      fetch(url + path, { method: 'POST', body: JSON.stringify(body), headers }),
    async signUp(id) {
      const response = await node.post('/account', { id, password: PASSWORD })
      if (response.status !== 200) throw new Error(`sign-up: ${await response.text()}`)
      return (await response.json()) as { token: string; user: string }
    },
    stop,
  }
  return node
}
