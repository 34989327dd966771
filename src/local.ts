// Owns asking the server that runs on this machine.
import { isIPv6 } from 'node:net'
import type { Config } from './config.ts'

type Answered = { url: string; status: number; body: string }
type Unanswered = { url: string; reason: string }

const PATIENCE_MS = 5000
const LOOPBACK: Record<string, string> = { '::': '::1', '0.0.0.0': '127.0.0.1' }

/** What it answers at HOST and PORT, or why it does not. */
export async function ask(
  { host, port }: Pick<Config, 'host' | 'port'>,
  path: string,
  init: RequestInit = {},
): Promise<Answered | Unanswered> {
  const asked = LOOPBACK[host] ?? host
  const url = `http://${isIPv6(asked) ? `[${asked}]` : asked}:${port}${path}`
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(PATIENCE_MS), ...init })
    return { url, status: answer.status, body: (await answer.text()).trim() }
  } catch (error) {
    const { cause, message } = error as Error
    const why = cause instanceof Error ? cause.message : message
    return { url, reason: why || 'refused' }
  }
}
