// Owns where the Node of each architecture comes from: npm's package, exactly the one in package-lock.json.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

export type Architecture = 'x64' | 'arm64'

/** The words before a command that make it run where it does not by itself, by Debian's qemu-user-static. */
export const EMULATORS: Record<Architecture, [string, ...string[]]> = {
  x64: ['qemu-x86_64-static', '-L', '/usr/x86_64-linux-gnu'],
  arm64: ['qemu-aarch64-static', '-L', '/usr/aarch64-linux-gnu'],
}

/** The path of its binary. npm installs this machine's own alone; another's is fetched once. */
export function nodeFor(architecture: Architecture): string {
  const name = `node-linux-${architecture}`
  const installed = `node_modules/${name}/bin/node`
  return existsSync(installed) ? installed : fetched(name)
}

function fetched(name: string): string {
  const { version, integrity } = locked(name)
  const cache = 'node_modules/.cache/sync-node'
  const file = `${name}-${version}.tgz`
  const folder = join(cache, `${name}-${version}`)
  mkdirSync(cache, { recursive: true })
  if (!existsSync(join(cache, file))) {
    execFileSync('npm', ['pack', `${name}@${version}`, '--silent', '--pack-destination', cache], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  }
  // Also one that was fetched earlier: what is released is what is locked.
  verify(join(cache, file), integrity)
  mkdirSync(folder, { recursive: true })
  const taken = ['--strip-components=1', 'package/bin/node']
  execFileSync('tar', ['-xzf', join(cache, file), '-C', folder, ...taken])
  return join(folder, 'bin/node')
}

function locked(name: string): { version: string; integrity: string } {
  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    packages: Record<string, { version: string; integrity: string }>
  }
  const entry = lock.packages[`node_modules/${name}`]
  if (entry === undefined) throw new Error(`package-lock.json has no ${name}`)
  return entry
}

/** Throws, and removes the file, unless it has this integrity (`sha512-…`). */
export function verify(path: string, integrity: string): void {
  const [algorithm = '', expected] = integrity.split(/-(.*)/)
  const found = createHash(algorithm).update(readFileSync(path)).digest('base64')
  if (found === expected) return
  rmSync(path)
  throw new Error(`${path} is not what package-lock.json has: its ${algorithm} is ${found}`)
}
