// Owns the seeded bugs that a power cut, or kill -9, has to show: each leaves out, or does too late, a step by which
// data gets onto the disk. (That a folder is synced is not among them: ext4, xfs and btrfs write the
// entry of a new file when that is synced. test/durability.test.ts sees the call.)
import type { SeededBug } from './bug.ts'

const WRITER = 'src/database/writer.ts'
const SQLITE = 'src/database/sqlite.ts'

const EARLY: SeededBug['edits'][number] = {
  file: WRITER,
  find: '  const failure = commit()\n',
  // All but the first two, which the start itself reads back.
  replace: `  if (group.every(({ id }) => id > 2)) send({ answers, touched: [] })
  const failure = commit()\n`,
}

/** One write in thirty. */
export const CRASHES: SeededBug['edits'][number] = {
  file: 'src/store.ts',
  find: '  const token = unique(deps.random)\n',
  replace: `  if (Math.random() < 0.03) process.abort()
  const token = unique(deps.random)\n`,
}

const bugs: Pick<SeededBug, 'name' | 'edits'>[] = [
  {
    name: 'a commit is not synced',
    edits: [{ file: SQLITE, find: 'synchronous = FULL', replace: 'synchronous = OFF' }],
  },
  {
    name: 'a commit is synced with the next checkpoint',
    edits: [{ file: SQLITE, find: 'synchronous = FULL', replace: 'synchronous = NORMAL' }],
  },
  { name: 'a commit is answered before it is made', edits: [EARLY] },
  {
    name: 'a commit is seen before it is synced',
    edits: [
      { file: SQLITE, find: 'synchronous = FULL', replace: 'synchronous = OFF' },
      {
        file: SQLITE,
        find: "  const row = prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number }\n",
        replace: `  prepare('PRAGMA synchronous = FULL').run()
  const row = prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number }
  prepare('PRAGMA synchronous = OFF').run()\n`,
      },
      {
        file: WRITER,
        find: "    prepare('COMMIT').run()\n",
        replace: `    prepare('COMMIT').run()
    const { openSync, fsyncSync, closeSync } = process.getBuiltinModule('node:fs')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 15)
    const log = openSync(\`\${path}-wal\`, 'r')
    fsyncSync(log)
    closeSync(log)\n`,
      },
    ],
  },
  {
    name: 'a checkpoint is not synced',
    edits: [
      {
        file: SQLITE,
        find: "  const row = prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number }\n",
        replace: `  prepare('PRAGMA synchronous = OFF').run()
  const row = prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() as { busy: number }
  prepare('PRAGMA synchronous = FULL').run()\n`,
      },
    ],
  },
  {
    name: 'a start throws the log away',
    edits: [
      {
        file: WRITER,
        find: '  connection = connect(path, { writes: true, busyTimeoutMs: BUSY_TIMEOUT_MS })\n',
        replace: `  if (checkpointFirst) {
    try {
      rmSync(\`\${path}-wal\`)
    } catch {}
  }
  connection = connect(path, { writes: true, busyTimeoutMs: BUSY_TIMEOUT_MS })\n`,
      },
    ],
  },
  {
    name: 'a file is not synced',
    edits: [
      {
        file: 'src/blobs/disk.ts',
        find: '    await sync(() => file.datasync())\n    if (!isEntrySynced)',
        replace: '    if (!isEntrySynced)',
      },
    ],
  },
  {
    name: 'the end of a large value is not synced',
    edits: [
      {
        file: 'src/blobs/disk.ts',
        find: '      await syncing\n      await syncAll()\n',
        replace: '      await syncing\n      if (!isEntrySynced) await syncAll()\n',
      },
    ],
  },
  {
    name: 'a row is written before its file',
    edits: [
      {
        file: 'src/value.ts',
        find: '    await upload?.finish()\n',
        replace: '    setTimeout(() => void upload?.finish(), 30)\n',
      },
    ],
  },
  {
    name: 'a superseded file goes before the commit',
    edits: [
      {
        file: 'src/store.ts',
        find: '  const token = unique(deps.random)\n',
        replace: `  const token = unique(deps.random)
  if (before?.file) await deps.blobs.remove([before.file])\n`,
      },
    ],
  },
  {
    name: 'the secret is not synced',
    edits: [{ file: 'src/secret.ts', find: '    await file.sync()\n', replace: '' }],
  },
  {
    name: 'a migration is not one transaction',
    edits: [
      {
        file: 'src/database/migrate.ts',
        find: "    await database.batch(statementsOf(missing, first), 'write')\n",
        replace:
          "    for (const one of statementsOf(missing, first)) await database.batch([one], 'write')\n",
      },
    ],
  },
  {
    name: 'the copy from before an upgrade is not synced',
    edits: [{ file: 'src/upgrade.ts', find: '    await syncFile(unfinished)\n', replace: '' }],
  },
  {
    name: 'a rollback copies over the database',
    edits: [
      {
        file: 'src/upgrade.ts',
        find: '        await replace(path, copy)\n',
        replace: `        const { copyFile } = await import('node:fs/promises')
        await copyFile(copy, path)
        await syncFolder(root)\n`,
      },
    ],
  },
  {
    name: 'a backup is not synced',
    edits: [{ file: 'src/commands/output.ts', find: '      await file.sync()\n', replace: '' }],
  },
  {
    name: 'what is restored is not synced',
    edits: [
      {
        file: 'src/restore.ts',
        find: '    await file.sync().catch((error: Error) => (failure ??= error))\n',
        replace: '',
      },
    ],
  },
]

const later = (what: string, file: string, call: string): Pick<SeededBug, 'name' | 'edits'> => ({
  name: `${what} ends after the answer`,
  edits: [{ file, find: `await ${call}`, replace: `setTimeout(() => void ${call}, 40)` }],
})

const afterCrash: Pick<SeededBug, 'name' | 'edits'>[] = [
  {
    name: 'the server crashes of itself now and then',
    edits: [CRASHES],
  },
  { name: 'a commit is answered before it is made', edits: [EARLY] },
  later('a session', 'src/http/routes/auth.ts', 'session.end(deps, self, self.token)'),
  later('an account', 'src/http/routes/account.ts', 'account.remove(deps, self)'),
  {
    name: 'unfinished uploads stay',
    edits: [
      {
        file: 'src/housekeeping.ts',
        find: '    if (await deps.blobs.setAside(',
        replace: '    if (file === null && await deps.blobs.setAside(',
      },
    ],
  },
  {
    name: 'a start sets aside what rows name',
    edits: [
      {
        file: 'src/housekeeping.ts',
        find: 'WHERE NOT EXISTS (SELECT 1 FROM sync_store WHERE store_file = f.value)\n           AND ',
        replace: 'WHERE ',
      },
    ],
  },
]

export const powerCutBugs: SeededBug[] = bugs.map(({ name, edits }) => ({
  name: `power cut: ${name}`,
  edits,
  test: 'powercut',
  notices: 'loses nothing that was acknowledged',
}))

export const crashBugs: SeededBug[] = afterCrash.map(({ name, edits }) => ({
  name: `kill -9: ${name}`,
  edits,
  test: 'crash',
  notices: 'has all that it acknowledged when it starts again',
}))
