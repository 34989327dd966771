// Owns what Sync Node does as a service of the system: the settings in /etc/default, commands of root on
// the data of its user, and the notice to systemd that it serves.
import { execFile } from 'node:child_process'
import { readFileSync, statSync, type Stats } from 'node:fs'
import type { Environment } from './config.ts'
import { parseEnvironmentFile } from './environment-file.ts'

// By the .deb, and by scripts/install.sh.
const EXECUTABLES = ['/usr/bin/sync-node', '/usr/local/bin/sync-node']
const SETTINGS = '/etc/default/sync-node'
const NOTIFIER = 'systemd-notify'
const DEFAULTS: Environment = { STATIC_ROOT: '/var/lib/sync-node' }

/** The environment, and for the installed executable what the service has beside it. */
export function withSettings(
  environment: Environment,
  { executable = process.execPath, file = SETTINGS } = {},
): Environment {
  if (!EXECUTABLES.includes(executable)) return environment
  return [parseEnvironmentFile(read(file)), DEFAULTS].reduce(completed, environment)
}

/** With the variables of `others` that are not set in either form, as NAME or as NAME_FILE. */
function completed(environment: Environment, others: Environment): Environment {
  const missing = Object.entries(others).filter(([name]) => {
    const plain = name.replace(/_FILE$/, '')
    return [plain, `${plain}_FILE`].every((form) => !environment[form]?.trim())
  })
  return { ...environment, ...Object.fromEntries(missing) }
}

/** Nothing when there is no such file, or one for root alone: the service has been given what is in it. */
function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES') return ''
    throw error
  }
}

/**
 * When root runs it: goes on as the owner of the data, so that no file there is root's, which the server
 * could not use. What root alone may read has to be open before.
 */
export function becomeOwner(root: string): void {
  const owner = otherOwner(root)
  if (owner === null) return
  process.setgroups?.([owner.gid])
  process.setgid?.(owner.gid)
  process.setuid?.(owner.uid)
}

/** The same for `work` alone: afterwards root is root again, as where a backup goes may be root's. */
export async function asOwner<T>(root: string, work: () => Promise<T>): Promise<T> {
  const owner = otherOwner(root)
  if (owner === null) return work()
  const [group = 0, groups = []] = [process.getegid?.(), process.getgroups?.()]
  process.setgroups?.([owner.gid])
  process.setegid?.(owner.gid)
  process.seteuid?.(owner.uid)
  try {
    return await work()
  } finally {
    process.seteuid?.(0)
    process.setegid?.(group)
    process.setgroups?.(groups)
  }
}

/** Whose the folder is, when that is somebody else than root, who runs this. */
function otherOwner(root: string): Stats | null {
  if (process.geteuid?.() !== 0) return null
  const owner = statSync(root, { throwIfNoEntry: false })
  return owner === undefined || owner.uid === 0 ? null : owner
}

/** Where systemd waits for it (Type=notify). Only a program can tell it: Node has no such socket. */
export function reportReady(environment: Environment, onFailure: (error: Error) => void): void {
  if (!environment['NOTIFY_SOCKET']) return
  execFile(NOTIFIER, ['--ready'], (error) => {
    if (error !== null) onFailure(error)
  })
}
