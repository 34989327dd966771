// Owns the service on the machine where the year is played: packages, systemd, commands of root, its disk.
import { execFile } from 'node:child_process'
import { closeSync, openSync, readFileSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { eventually } from '../helpers/eventually.ts'
import type { Ran } from '../helpers/executable.ts'

const run = promisify(execFile)
const UNIT = 'sync-node'
const MOST_MS = 60_000

export const ADDRESS = 'http://localhost:8080'

/** Runs a program as root; throws unless it ends with 0. */
export async function root(program: string, ...args: string[]): Promise<string> {
  return (await run(program, args, { timeout: MOST_MS })).stdout
}

/** Installs a package. Triggers are the machine's own business, and slow. */
export const installPackage = (path: string): Promise<string> =>
  root('dpkg', '--no-triggers', '--install', path)

/** A command of Sync Node, as root. */
export function command(args: string[], environment: Record<string, string> = {}): Promise<Ran> {
  const env = { PATH: process.env['PATH'] ?? '', ...environment }
  return run('sync-node', args, { env, timeout: MOST_MS }).then(
    (said) => ({ code: 0, signal: null, ...said }),
    (error: Ran) => error,
  )
}

export const start = (): Promise<string> => root('systemctl', 'start', UNIT)
export const stop = (): Promise<string> => root('systemctl', 'stop', UNIT)

export async function mainPid(): Promise<string> {
  return (await root('systemctl', 'show', '--property=MainPID', '--value', UNIT)).trim()
}

/** As when the power goes; resolves when systemd has started it again. */
export async function powerOff(): Promise<void> {
  const before = await mainPid()
  await root('kill', '-KILL', before)
  await eventually(async () => {
    const pid = await mainPid()
    return pid !== '0' && pid !== before && (await answers())
  }, true)
}

const answers = (): Promise<boolean> =>
  fetch(`${ADDRESS}/info`).then(
    ({ ok }) => ok,
    () => false,
  )

/** Settings of the service, as its operator writes them. */
export async function configure(folder: string): Promise<void> {
  await root('sh', '-c', `echo STATIC_ROOT=${folder} >>/etc/default/sync-node`)
  const dropIn = '/etc/systemd/system/sync-node.service.d'
  const lines = `[Service]\\nReadWritePaths=${folder}\\n`
  await root('sh', '-c', `mkdir ${dropIn} && printf '${lines}' >${dropIn}/data.conf`)
  await root('systemctl', 'daemon-reload')
}

/** What the kernel says of the service's process. */
export async function processOf(): Promise<{ command: string[]; user: string }> {
  const pid = await mainPid()
  const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  return { command, user: (await root('ps', '-o', 'user:32=', '-p', pid)).trim() }
}

/** Fills the disk of a folder to its last block; answers how to free it again. */
export async function fill(folder: string): Promise<() => void> {
  const path = join(folder, 'filler')
  const { bavail, bsize } = statfsSync(folder)
  await root('fallocate', '--length', String(bavail * bsize), path)
  return () => rmSync(path)
}

/** As a disk that gives back something else than was written. */
export function corrupt(path: string): void {
  const file = openSync(path, 'r+')
  writeSync(file, 'rust', 100)
  closeSync(file)
}
