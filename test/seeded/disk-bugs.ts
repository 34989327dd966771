// Owns the seeded bugs of a disk that fails.
import type { SeededBug } from './bug.ts'

const WRITER = 'src/database/writer.ts'
const DISK = 'src/blobs/disk.ts'
const STORE = 'src/store.ts'

export const diskBugs: SeededBug[] = [
  {
    name: 'faults: an unknown outcome takes the file of its value with it',
    edits: [
      {
        file: STORE,
        find: "error.code === 'ERR04') received.release()",
        replace: "error.code === 'ERR02') received.release()",
      },
    ],
    test: 'faults',
    notices: 'at the sync of a commit is told as unknown',
    isAlways: true,
  },
  {
    name: 'faults: a failed commit is told as refused, and the server goes on',
    edits: [
      {
        file: WRITER,
        find: 'code: code ?? UNKNOWN_OUTCOME',
        replace: "code: code ?? 'SQLITE_BUSY'",
      },
    ],
    test: 'faults',
    notices: 'at the sync of a commit is told as unknown',
  },
  {
    name: 'faults: a start after a failed sync serves what is not on the disk',
    edits: [
      {
        file: WRITER,
        find: 'if (checkpointFirst && checkpoint',
        replace: 'if (false && checkpoint',
      },
    ],
    test: 'faults',
    notices: 'at the sync of a commit is told as unknown',
  },
  {
    name: 'faults: a reset is mailed before it is kept',
    edits: [
      {
        file: 'src/reset-token.ts',
        find: '  limiter.take(MAILS, handle)\n',
        replace:
          '  limiter.take(MAILS, handle)\n  await mailer.sendReset(normalizeId(id), secret)\n',
      },
    ],
    test: 'faults',
    notices: 'at the sync of a reset that was asked for',
  },
  {
    name: 'faults: the server goes on after a file could not be synced',
    edits: [{ file: DISK, find: '      onFatal(`a file', replace: '      void (`a file' }],
    test: 'faults',
    notices: 'at the sync of a value or its folder',
  },
  {
    name: 'faults: a file that could not be synced stays open',
    edits: [{ file: 'src/value.ts', find: '      await upload?.leave()\n', replace: '' }],
    test: 'faults',
    notices: 'at the sync of a value leaves no file open',
  },
  {
    name: 'faults: a full quota is known by a name that libuv does not have',
    edits: [
      {
        file: 'src/database/database.ts',
        find: '-errno === constants.errno.EDQUOT',
        replace: "(error as NodeJS.ErrnoException).code === 'EDQUOT'",
      },
    ],
    test: 'faults',
    notices: 'for want of quota is told as a full disk',
  },
  {
    name: 'faults: what a read-only disk refuses is told as unexpected',
    edits: [
      {
        file: DISK,
        find: 'await rm(path, { force: true }).catch(() => undefined)',
        replace: 'await rm(path, { force: true })',
      },
    ],
    test: 'faults',
    notices: 'because the disk became read-only',
  },
  {
    name: 'faults: a page that cannot be read stops the server',
    edits: [
      {
        file: WRITER,
        find: "if (!database.isTransaction || UNREADABLE.has(resultCode(error) ?? '')) throw error",
        replace: 'if (!database.isTransaction) throw error',
      },
    ],
    test: 'faults',
    notices: 'at a page that cannot be read',
  },
  {
    name: 'faults: a full quota of the database stops the server',
    edits: [
      { file: WRITER, find: "    if (isFull(reason)) return 'SQLITE_FULL'\n", replace: '' },
      { file: WRITER, find: 'UNKNOWN_OUTCOME, isFull }', replace: 'UNKNOWN_OUTCOME }' },
    ],
    test: 'faults',
    notices: 'for want of quota at the database',
  },
  {
    name: 'disks: a checkpoint that has to wait for room stops the server',
    edits: [
      {
        file: WRITER,
        find: "const HARMLESS = new Set([\n  'SQLITE_FULL',\n",
        replace: 'const HARMLESS = new Set([\n',
      },
    ],
    test: 'disks',
    notices: 'that is filled to the last block',
  },
]
