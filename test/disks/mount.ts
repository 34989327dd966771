// Owns file systems of their own for a test: an image that is mounted, on a disk that may be slow.
import { execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually } from '../helpers/eventually.ts'
import { compile, slowed } from './disk.ts'
import type { Scope } from './place.ts'

const MIB = 1024 * 1024

const run = (...[program, ...args]: [string, ...string[]]): string =>
  execFileSync(program, args, { stdio: 'pipe' }).toString().trim()

/** False, or why nothing can be mounted here. In CI that is a failure. */
export function cannotMount(...tools: string[]): string | false {
  if (process.env['CI'] !== undefined) return false
  if (process.getuid?.() !== 0 || !existsSync('/dev/loop-control')) {
    return 'NOT TESTED: disks of their own. Be root, where loop devices are.'
  }
  for (const tool of tools) {
    try {
      run('sh', '-c', `command -v ${tool}`)
    } catch {
      return `NOT TESTED: a slow disk. Install ${tools.join(', ')}.`
    }
  }
  return false
}

export interface Mounted {
  /** Where it is. */
  point: string
  /** From here on it takes no writes, as after an error of the disk. */
  abort(): void
  /** Mounts it anew. Nobody may have it open. */
  again(): void
}

/** An ext4 of so many MiB. */
export function mountExt4(scope: Scope, mib: number): Mounted {
  const { folder, image } = newImage(mib)
  const point = join(folder, 'disk')
  mkdirSync(point)
  run('mkfs.ext4', '-q', '-F', '-m', '0', image)
  const mount = (): string => run('mount', '-o', 'loop', image, point)
  mount()
  scope.after(() => {
    run('umount', '-l', point)
    rmSync(folder, { recursive: true })
  })
  return {
    point,
    // `remount,ro` is refused while files are open for writing.
    abort: () => void run('mount', '-o', 'remount,abort', point),
    again() {
      run('umount', point)
      mount()
    },
  }
}

function newImage(mib: number): { folder: string; image: string } {
  const folder = mkdtempSync(join(tmpdir(), 'sync-node-disk-'))
  const image = join(folder, 'image')
  closeSync(openSync(image, 'w'))
  truncateSync(image, mib * MIB)
  return { folder, image }
}

/**
 * The same on a disk where each write and each flush takes so long: nbdkit delays the writes, and the
 * library under it the flushes, for which its filter has no delay.
 */
export async function mountSlow(
  scope: Scope,
  { mib, writeMs, syncMs }: { mib: number; writeMs: number; syncMs: number },
): Promise<string> {
  const { folder, image } = newImage(mib)
  const socket = join(folder, 'socket')
  const block = join(folder, 'block')
  const point = join(folder, 'disk')
  const ends: (() => unknown)[] = [() => rmSync(folder, { recursive: true })]
  scope.after(async () => {
    for (const end of ends.toReversed()) await end()
  })
  closeSync(openSync(block, 'w'))
  mkdirSync(point)
  const library = compile(folder)
  const environment = slowed(library, { folder, root: image, writeMs: 0, syncMs })
  const nbdkit = ['-f', '-U', socket, '--filter=delay', 'file', image, `wdelay=${writeMs}ms`]
  ends.push(launch('nbdkit', nbdkit, environment))
  await eventually(() => existsSync(socket), true)
  const storage = [
    '--blockdev',
    `driver=nbd,node-name=n,server.type=unix,server.path=${socket}`,
    '--export',
    `type=fuse,id=e,node-name=n,mountpoint=${block},writable=on,growable=off`,
  ]
  ends.push(launch('qemu-storage-daemon', storage, {}))
  await eventually(() => statSync(block).size, mib * MIB)
  const loop = run('losetup', '-f', '--show', block)
  ends.push(() => run('losetup', '-d', loop))
  run('mkfs.ext4', '-q', '-F', '-m', '0', '-E', 'nodiscard', loop)
  run('mount', loop, point)
  ends.push(() => run('umount', '-l', point))
  const took = flushMs(join(point, 'probe'))
  if (took < syncMs) throw new Error(`a flush takes ${took} ms, not ${syncMs}`)
  return point
}

function flushMs(path: string): number {
  const file = openSync(path, 'w')
  writeSync(file, 'x')
  const started = performance.now()
  fsyncSync(file)
  const took = performance.now() - started
  closeSync(file)
  rmSync(path)
  return took
}

/** Starts a program; answers what ends it. */
function launch(
  program: string,
  args: string[],
  environment: Record<string, string>,
): () => Promise<void> {
  const child = spawn(program, args, { env: { ...process.env, ...environment }, stdio: 'ignore' })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  return () => {
    child.kill()
    return ended
  }
}
