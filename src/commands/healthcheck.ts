// Owns `sync-node healthcheck`.
import { isIPv6 } from 'node:net'
import { readConfig } from '../config.ts'
import { CommandError, print, type Command } from './command.ts'

const PATIENCE_MS = 5000
const LOOPBACK: Record<string, string> = { '::': '::1', '0.0.0.0': '127.0.0.1' }

export const healthcheck: Command = {
  name: 'healthcheck',
  takes: [],
  summary: 'ask the server that runs here whether it is well; exit code 1 when not',
  details: 'It asks GET /health of HOST and PORT, as they are set for the server, for 5 seconds.',
  async run(_, environment) {
    const { host, port } = readConfig(environment)
    const asked = LOOPBACK[host] ?? host
    const url = `http://${isIPv6(asked) ? `[${asked}]` : asked}:${port}/health`
    const { ok, body } = await ask(url)
    if (!ok) throw new CommandError(`The server is not well: ${body}`)
    print(body)
  },
}

async function ask(url: string): Promise<{ ok: boolean; body: string }> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(PATIENCE_MS) })
    return { ok: answer.ok, body: (await answer.text()).trim() }
  } catch (error) {
    const { cause, message } = error as Error
    const why = cause instanceof Error ? cause.message : message
    throw new CommandError(`No answer from ${url}: ${why || 'refused'}.`)
  }
}
