// Owns the disk that fails under a program: compiles disk.c, and says through its control file which
// call fails, and how.
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, cpSync, openSync, mkdirSync, readSync, rmSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

const OPS = {
  open: 1,
  create: 2,
  read: 4,
  write: 8,
  sync: 16,
  truncate: 32,
  rename: 64,
  unlink: 128,
  mkdir: 256,
} as const

export type Op = keyof typeof OPS

export interface Fault {
  name: string
  error: keyof typeof constants.errno
  /** The call does half of its work and succeeds; what `later` names fails after it. */
  isHalf?: boolean
  /** The calls that fail from then on; by default none. */
  later?: Op[]
}

/** A call on a file below the root. */
export interface Call {
  op: Op
  /** Relative to the root. */
  path: string
  isFaulty: boolean
}

export interface Disk {
  /** What a program is started with. */
  environment: Record<string, string>
  /** From here on, calls are counted. */
  watch(): void
  /** Makes the `at`-th call of that kind from here on fail. */
  arm(op: Op, at: number, fault: Fault): void
  /** Nothing fails any more. */
  calm(): void
  /** Resolves when no more of the calls come that are counted. */
  settled(): Promise<void>
  /** Resolves when a program that was just started does nothing more of itself. */
  quiet(): Promise<void>
  /** All calls that were counted. */
  calls(): Call[]
  /** To be called when a program was killed, which may have held the lock of the control file. */
  free(): void
  /** Leaves of the folder what was synced. Its programs have to be dead. */
  cutPower(): void
}

const WORD = 8
// As the library's `struct control` has them.
const FIELDS = [
  'at',
  'ops',
  'error',
  'half',
  'later',
  'writeUs',
  'syncUs',
  'isOver',
  'calls',
  'dirty',
  'lock',
] as const
const HEADER_BYTES = FIELDS.length * WORD
const CALL_BYTES = 128
const MOST_CALLS = 16_384
const DIRTY_BYTES = 65536 * 3 * WORD
// A checkpoint makes thousands of calls in that time.
const QUIET_MS = 15
// What a start does besides comes in pieces.
const STARTED_MS = 100
const ALL = Object.values(OPS).reduce((sum, op) => sum + op, 0)

/** False, or why there is nothing to test with. In CI that is a failure. */
export const skip: string | false =
  process.env['CI'] === undefined && spawnSync('cc', ['--version']).status !== 0
    ? 'NOT TESTED: what happens when the disk fails. Install gcc.'
    : false

/** Makes the library in `folder`; answers its path. */
export function compile(folder: string): string {
  const library = join(folder, 'disk.so')
  const source = join(import.meta.dirname, 'disk.c')
  execFileSync('cc', ['-shared', '-fPIC', '-O2', '-Wall', '-Werror', '-o', library, source, '-ldl'])
  return library
}

/** The environment of a program whose writes and syncs below `root` take so long. */
export function slowed(
  library: string,
  {
    folder,
    root,
    writeMs,
    syncMs,
  }: { folder: string; root: string; writeMs: number; syncMs: number },
): Record<string, string> {
  const file = join(folder, 'slow')
  setFields(createControl(file), { writeUs: writeMs * 1000, syncUs: syncMs * 1000 })
  return { LD_PRELOAD: library, DISK_ROOT: root, DISK_CONTROL: file }
}

function createControl(path: string): number {
  const control = openSync(path, 'w+')
  const bytes = HEADER_BYTES + MOST_CALLS * CALL_BYTES + DIRTY_BYTES
  writeSync(control, Buffer.alloc(bytes), 0, bytes, 0)
  return control
}

type Fields = Partial<Record<(typeof FIELDS)[number], number>>

function setFields(control: number, fields: Fields): void {
  for (const [name, value] of Object.entries(fields)) {
    const bytes = Buffer.alloc(WORD)
    bytes.writeBigInt64LE(BigInt(value))
    writeSync(control, bytes, 0, WORD, FIELDS.indexOf(name as (typeof FIELDS)[number]) * WORD)
  }
}

/** A disk for the programs that are started on `root`, which does not exist yet. */
export function openDisk(
  library: string,
  { folder, root }: { folder: string; root: string },
): Disk & { close(): void } {
  const file = join(folder, 'control')
  const shadow = join(folder, 'shadow')
  mkdirSync(shadow, { mode: 0o700 })
  const control = createControl(file)

  function counted(): number {
    const word = Buffer.alloc(WORD)
    readSync(control, word, 0, WORD, FIELDS.indexOf('calls') * WORD)
    return Number(word.readBigInt64LE())
  }

  const watch = (): void => setFields(control, { at: 0, isOver: 0, later: 0, calls: 0, ops: ALL })

  async function settledFor(ms: number): Promise<void> {
    for (let before = -1; before !== counted();) {
      before = counted()
      await pause(ms)
    }
  }

  return {
    environment: {
      LD_PRELOAD: library,
      DISK_ROOT: root,
      DISK_SHADOW: shadow,
      DISK_CONTROL: file,
    },
    watch,
    settled: () => settledFor(QUIET_MS),
    async quiet() {
      watch()
      await settledFor(STARTED_MS)
    },
    arm(op, at, { error, isHalf = false, later = [] }) {
      setFields(control, { ops: 0, isOver: 0, calls: 0 })
      setFields(control, {
        at,
        error: constants.errno[error],
        half: isHalf ? 1 : 0,
        later: later.reduce((sum, one) => sum + OPS[one], 0),
        ops: OPS[op],
      })
    },
    calm: () => setFields(control, { ops: 0, at: 0, later: 0 }),
    calls() {
      const count = Math.min(counted(), MOST_CALLS)
      const bytes = Buffer.alloc(count * CALL_BYTES)
      readSync(control, bytes, 0, bytes.length, HEADER_BYTES)
      return Array.from({ length: count }, (_, index) => toCall(bytes, index * CALL_BYTES))
    },
    free: () => setFields(control, { lock: 0 }),
    cutPower() {
      rmSync(root, { recursive: true, force: true })
      cpSync(shadow, root, { recursive: true })
      setFields(control, { dirty: 0 })
    },
    close: () => closeSync(control),
  }
}

function toCall(bytes: Buffer, at: number): Call {
  const op = bytes.readInt32LE(at)
  const path = bytes.subarray(at + 2 * 4, at + CALL_BYTES)
  const found = Object.entries(OPS).find(([, value]) => value === op)
  return {
    op: found?.[0] as Op,
    path: path.subarray(0, path.indexOf(0)).toString().slice(1),
    isFaulty: bytes.readInt32LE(at + 4) !== 0,
  }
}
