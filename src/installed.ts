// Owns what Sync Node does as a service of the system: the settings in /etc/default, commands of root on
// the data of its user, and the notice to systemd that it serves.
import { execFile } from 'node:child_process'
import { existsSync, lchownSync, readFileSync, readdirSync, statSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { ConfigError, type Environment } from './config.ts'
import { parseEnvironmentFile } from './environment-file.ts'

// By the .deb, and by scripts/install.sh.
const EXECUTABLES = ['/usr/bin/sync-node', '/usr/local/bin/sync-node']
const SETTINGS = '/etc/default/sync-node'
const CREDENTIALS = '/run/credentials/sync-node.service'
const USERS = '/etc/passwd'
const NOTIFIER = 'systemd-notify'
const DEFAULTS: Environment = { STATIC_ROOT: '/var/lib/sync-node' }

/** The environment, and for the installed executable what the service has beside it. */
export function withSettings(
  environment: Environment,
  { executable = process.execPath, file = SETTINGS, credentials = CREDENTIALS } = {},
): Environment {
  if (!EXECUTABLES.includes(executable)) return environment
  // There while the service runs, for root alone.
  const given = existsSync(credentials) ? { CREDENTIALS_DIRECTORY: credentials } : {}
  return [parseEnvironmentFile(read(file, environment)), DEFAULTS, given].reduce(
    completed,
    environment,
  )
}

/** With the variables of `others` that are not set in either form, as NAME or as NAME_FILE. */
function completed(environment: Environment, others: Environment): Environment {
  const missing = Object.entries(others).filter(([name]) => {
    const plain = name.replace(/_FILE$/, '')
    return [plain, `${plain}_FILE`].every((form) => !environment[form]?.trim())
  })
  return { ...environment, ...Object.fromEntries(missing) }
}

/**
 * Nothing when there is no such file, or one for root alone whose settings somebody was given, as the
 * service is. Throws ConfigError: without them a command would work on other data.
 */
function read(file: string, environment: Environment): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return ''
    if (code !== 'EACCES') throw error
    if (environment['STATIC_ROOT']?.trim()) return ''
    throw new ConfigError(`${file} cannot be read: run this as root, or set STATIC_ROOT.`)
  }
}

/** Whom the installed service runs as. */
export function serviceUser({ executable = process.execPath, users = USERS } = {}) {
  if (!EXECUTABLES.includes(executable) || !existsSync(users)) return null
  const [, uid, gid] = /^sync-node:[^:]*:(\d+):(\d+):/m.exec(readFileSync(users, 'utf8')) ?? []
  return uid === undefined ? null : { uid: Number(uid), gid: Number(gid) }
}

/** A folder of data that root has made is of no use to the service, unless it gets it. */
export function giveToService(root: string, user = serviceUser()): void {
  if (user === null || process.geteuid?.() !== 0) return
  for (const name of ['', ...(readdirSync(root, { recursive: true }) as string[])]) {
    lchownSync(join(root, name), user.uid, user.gid)
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
