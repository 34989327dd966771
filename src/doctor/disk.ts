// Owns the look at what STATIC_ROOT lies on: its kind, its room, and how long a sync takes.
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  openSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { openSpace } from '../space.ts'
import { toSize } from '../units.ts'
import { ok, problem, warning, type Finding } from './finding.ts'

// https://man7.org/linux/man-pages/man2/statfs.2.html
const IN_MEMORY: Record<number, string> = { 0x01021994: 'tmpfs', 0x858458f6: 'ramfs' }
const ON_NETWORK: Record<number, string> = {
  0x6969: 'NFS',
  0xff534d42: 'CIFS',
  0xfe534d42: 'SMB',
  0x517b: 'SMB',
  0x01021997: '9p',
  0x65735546: 'FUSE',
}
const OVERLAY = 0x794c7630

const SYNCS = 50
const SYNC_BYTES = 4096
const MOST_MS = 3000
const TOO_FAST_MS = 0.05
const TOO_SLOW_MS = 100
const LEAST_INODES = 1000

const kindOf = (root: string): number => statfsSync(root).type >>> 0

export function checkFileSystem(root: string): Finding {
  const kind = kindOf(root)
  const memory = IN_MEMORY[kind]
  if (memory !== undefined) {
    const text = `the data is on a memory disk (${memory}) and gone with the power: move it to a real one`
    return problem('file system', text)
  }
  const network = ON_NETWORK[kind]
  if (network !== undefined) {
    const text = `the data is on ${network}, whose locks and syncs may not hold what SQLite needs: use a local disk`
    return warning('file system', text)
  }
  if (kind === OVERLAY) {
    const text =
      "the data is in a container's own layer and gone with the container: mount a volume"
    return warning('file system', text)
  }
  return ok('file system', 'a local disk')
}

export function checkSpace(root: string): Finding[] {
  const space = openSpace(root, () => performance.now())
  const { files, ffree } = statfsSync(root)
  const free = toSize(space.free())
  const found: Finding[] = []
  if (space.isLow()) {
    found.push(problem('space', `${free} free is below the floor: writes are refused; make room`))
  }
  if (files > 0 && ffree < LEAST_INODES) {
    found.push(problem('space', `only ${ffree} inodes are free: remove files from this disk`))
  }
  if (found.length > 0) return found
  const reserve = existsSync(join(root, 'reserve'))
    ? 'the reserve is there'
    : 'the server makes its reserve within a minute'
  return [ok('space', `${free} free, ${reserve}`)]
}

/** Appends to a small file and syncs it, as the database does with its log. */
export function checkSyncs(root: string): Finding {
  if (IN_MEMORY[kindOf(root)] !== undefined) return ok('syncs', 'not timed on a memory disk')
  const median = medianOf(timeSyncs(join(root, `probe-${process.pid}`)))
  const text = `a sync takes ${median < 1 ? `${Math.round(median * 1000)} µs` : `${median.toFixed(1)} ms`}`
  if (median < TOO_FAST_MS) {
    const why = 'no disk is that fast, unless its cache survives a power cut'
    return warning('syncs', `${text}: ${why}; a disk or hypervisor that lies loses writes`)
  }
  if (median > TOO_SLOW_MS) {
    return warning('syncs', `${text}: each write waits that long; use a faster disk`)
  }
  return ok('syncs', text)
}

function timeSyncs(path: string): number[] {
  const chunk = Buffer.alloc(SYNC_BYTES, 1)
  const times: number[] = []
  const startMs = performance.now()
  const file = openSync(path, 'wx', 0o600)
  try {
    while (times.length < SYNCS && performance.now() - startMs < MOST_MS) {
      writeSync(file, chunk)
      const beforeMs = performance.now()
      fdatasyncSync(file)
      times.push(performance.now() - beforeMs)
    }
  } finally {
    closeSync(file)
    unlinkSync(path)
  }
  return times
}

const medianOf = (times: number[]): number =>
  times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0
