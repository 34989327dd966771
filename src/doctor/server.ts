// Owns the look at the server that runs on this data: which process it is, and how it answers.
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { ask } from '../local.ts'
import { version } from '../packed.ts'
import { ok, problem, warning, type Finding } from './finding.ts'

/** The process that holds the lock, where the kernel says so. */
export function holderOf(root: string): number | undefined {
  try {
    const { ino, dev } = statSync(join(root, 'lock'))
    const hex = (number: number): string => number.toString(16).padStart(2, '0')
    const device = `${hex((dev >> 8) & 0xfff)}:${hex((dev & 0xff) | ((dev >> 12) & 0xfff00))}`
    const [, pid] =
      new RegExp(` WRITE +(\\d+) ${device}:${ino} `).exec(readFileSync('/proc/locks', 'utf8')) ?? []
    return pid === undefined ? undefined : Number(pid)
  } catch {
    return undefined
  }
}

export async function checkServer(config: Config): Promise<Finding[]> {
  if (config.port === 0) return [ok('server', 'runs, on a port of its own choice')]
  const health = await ask(config, '/health')
  if (!('status' in health)) {
    const text = `the data is in use, but nothing answers at ${health.url} (${health.reason}): run this with the settings of the server, or restart that`
    return [problem('server', text)]
  }
  if (health.status !== 200) {
    const text = `runs but is not well (${health.url}): the lines below say why, or its log`
    return [problem('server', text)]
  }
  return [await checkVersion(config)]
}

async function checkVersion(config: Config): Promise<Finding> {
  const info = await ask(config, '/info')
  const running = 'body' in info ? versionIn(info.body) : undefined
  if (running === version) return ok('server', `runs and is well: sync-node ${version}`)
  const text = `runs and is well, but is ${running ?? 'no sync-node'}, and this program is ${version}: restart it`
  return warning('server', text)
}

function versionIn(body: string): string | undefined {
  try {
    return String((JSON.parse(body) as { version: unknown }).version)
  } catch {
    return undefined
  }
}
