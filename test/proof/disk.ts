// Owns a disk whose writes are recorded in their order, a real file system on it, and what stands for it
// in memory. Needs root, /dev/fuse, loop devices and Debian's qemu-utils, xfsprogs and btrfs-progs.
import { spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'

export const FILE_SYSTEMS = ['ext4', 'xfs', 'btrfs'] as const
export type FileSystem = (typeof FILE_SYSTEMS)[number]

// The server keeps 256 MiB free.
const DISK_BYTES = 1024 ** 3
const LOG_BYTES = 64 * 1024 ** 3
const MEMORY = '/dev/shm'
const CLOSE_ATTEMPTS = 50

const MAKE: Record<FileSystem, string[]> = {
  ext4: ['mkfs.ext4', '-q', '-F', '-J', 'size=4', '-E', 'nodiscard,lazy_itable_init=1'],
  xfs: ['mkfs.xfs', '-q', '-f', '-K'],
  btrfs: ['mkfs.btrfs', '-q', '-f', '-K', '-m', 'single'],
}
// Copies of one file system have one id.
const OPTIONS: Record<FileSystem, string> = {
  ext4: 'loop,noinit_itable',
  xfs: 'loop,nouuid',
  btrfs: 'loop',
}

function isThere(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined
}

const NEEDED = ['qemu-storage-daemon', 'mkfs.xfs', 'mkfs.btrfs', 'mkfs.ext4']

/** False, or why there is nothing to test with. In CI that is a failure. */
export const skip: string | false =
  process.env['CI'] === undefined &&
  (process.getuid?.() !== 0 || !existsSync('/dev/fuse') || !NEEDED.every(isThere))
    ? `NOT TESTED: power cuts. Run as root with /dev/fuse and /dev/loop-control, and install ${NEEDED.join(', ')}.`
    : false

function run([program = '', ...args]: string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? stderr}`)
}

const mounting = (fileSystem: FileSystem, image: string, at: string): string[] => [
  'mount',
  '-t',
  fileSystem,
  '-o',
  OPTIONS[fileSystem],
  image,
  at,
]

/** Mounts and unmounts through a shell of its own: a large process takes long to make another. */
export function openMounter() {
  const shell = spawn('sh', { stdio: ['pipe', 'pipe', 'ignore'] })
  const answers = createInterface(shell.stdout)[Symbol.asyncIterator]()
  async function isDone(...commands: string[][]): Promise<boolean> {
    const line = commands.map((words) => words.join(' ')).join(' && ')
    shell.stdin.write(`${line} && echo done || echo failed\n`)
    return (await answers.next()).value === 'done'
  }
  return {
    /** False when the file system is too damaged. */
    mount: (fileSystem: FileSystem, image: string, at: string): Promise<boolean> =>
      isDone(mounting(fileSystem, image, at)),
    async unmount(fileSystem: FileSystem, at: string): Promise<void> {
      // btrfs remembers the newest copy, and would refuse an older one.
      const forgetting = fileSystem === 'btrfs' ? [['btrfs', 'device', 'scan', '--forget']] : []
      if (!(await isDone(['umount', at], ...forgetting))) throw new Error(`${at} stays mounted`)
    },
    close: (): void => void shell.stdin.end(),
  }
}

/** A folder in memory, and what has to be taken down with it, last made first. */
export interface Place {
  folder: string
  onClose(undo: () => void): void
  close(): void
}

/** Takes down what is mounted there, and removes it; false while that cannot be done. */
function isRemoved(folder: string): boolean {
  for (const [, at = ''] of readFileSync('/proc/mounts', 'utf8').matchAll(/^\S+ (\S+)/gm)) {
    if (at.startsWith(`${folder}/`)) spawnSync('umount', ['-l', at], { stdio: 'ignore' })
  }
  try {
    rmSync(folder, { recursive: true, force: true })
    return true
  } catch {
    return false
  }
}

export function openPlace(): Place {
  const folder = mkdtempSync(join(MEMORY, 'sync-node-powercut-'))
  const undos: (() => void)[] = []
  let isClosed = false
  const place: Place = {
    folder,
    onClose: (undo) => undos.push(undo),
    close() {
      if (isClosed) return
      isClosed = true
      process.off('exit', place.close)
      for (const undo of undos.reverse()) undo()
      // What was killed just now may still mount something.
      for (let attempt = 1; !isRemoved(folder) && attempt < CLOSE_ATTEMPTS; attempt++) {
        spawnSync('sleep', ['0.1'])
      }
    },
  }
  process.on('exit', place.close)
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1))
  return place
}

export interface RecordedDisk {
  /** Where it is mounted. */
  at: string
  log: string
  image: string
  /** How many writes and flushes there were so far. */
  mark(): number
  /** Ends the recording. */
  close(): Promise<void>
}

/** Makes the file system, mounts it, and records from the first byte on. */
export async function openDisk(
  place: Place,
  name: string,
  fileSystem: FileSystem,
): Promise<RecordedDisk> {
  const folder = join(place.folder, name)
  const [image, log, exported, at] = ['disk.img', 'log.img', 'exported.img', 'mnt'].map((file) =>
    join(folder, file),
  ) as [string, string, string, string]
  mkdirSync(at, { recursive: true })
  for (const [path, bytes] of [
    [image, DISK_BYTES],
    [log, LOG_BYTES],
    [exported, 0],
  ] as const) {
    writeFileSync(path, '')
    truncateSync(path, bytes)
  }
  const daemon = spawn('qemu-storage-daemon', options({ image, log, exported }), {
    stdio: 'ignore',
  })
  const ended = new Promise<void>((resolve) => daemon.once('close', () => resolve()))
  place.onClose(() => void daemon.kill('SIGKILL'))
  while (statSync(exported).size === 0) {
    if (daemon.exitCode !== null) throw new Error('qemu-storage-daemon does not run')
    await pause(10)
  }
  run([...MAKE[fileSystem], exported])
  run(mounting(fileSystem, exported, at))
  run(['sync', '-f', at])
  const file = openSync(log, 'r')
  const count = Buffer.alloc(8)
  return {
    at,
    log,
    image,
    mark() {
      readSync(file, count, 0, 8, 16)
      return Number(count.readBigUInt64LE())
    },
    async close() {
      run(['umount', at])
      closeSync(file)
      daemon.kill('SIGTERM')
      await ended
    },
  }
}

const options = ({ image, log, exported }: Record<'image' | 'log' | 'exported', string>) => [
  '--blockdev',
  `driver=file,node-name=disk,filename=${image}`,
  '--blockdev',
  `driver=file,node-name=log,filename=${log}`,
  '--blockdev',
  // The count of entries is written with each of them: an acknowledgement is marked by it.
  'driver=blklogwrites,node-name=recorded,file=disk,log=log,log-sector-size=512,log-super-update-interval=1',
  '--export',
  `type=fuse,id=export,node-name=recorded,mountpoint=${exported},writable=on,growable=off`,
]
