// Owns the values that are files: written once under a name nobody refers to yet, durable before their
// row is, opened, and removed when no row needs them.
import { constants } from 'node:fs'
import { open as openFile, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { TimeSpan } from 'oslo'
import { diskFull, isFull } from '../database/database.ts'
import { SyncError, busy } from '../errors.ts'
import type { RandomBytes } from '../token.ts'
import { turns } from '../turns.ts'
import type { Blobs, Reading, Upload } from './blobs.ts'

export interface DiskBlobs extends Blobs {
  /** The files that no start up to `last` wrote: another program's, or of a newer database. */
  listForeign(last: number): Promise<string[]>
}

// What a 1 GB upload leaves dirty would have to be written by the next person's commit.
const SYNC_EVERY_BYTES = 8 * 1024 * 1024
// Syncs hold a thread of the pool each: some stay free for reads.
const MAX_SYNCS = 8
// A GET that read the row just before opens the file within this time, or reads the row again.
const GRACE_MS = new TimeSpan(5, 'm').milliseconds()
const TRASH_MS = new TimeSpan(7, 'd').milliseconds()
const NAME = /^(\d+)-[0-9a-v]{26}$/

export interface BlobsOptions {
  root: string
  /** The number of this server start: it begins the name of every file written. */
  start: number
  random: RandomBytes
  unique: (random: RandomBytes) => string
  /** A sync failed, and Linux has forgotten which pages: the process has to stop. */
  onFatal: (reason: string) => void
}

export async function openBlobs({
  root,
  start,
  random,
  unique,
  onFatal,
}: BlobsOptions): Promise<DiskBlobs> {
  const folder = join(root, 'blobs')
  const trash = join(root, 'trash')
  const inTurn = turns(MAX_SYNCS)
  // Open for life: to be out of descriptors is no failed sync. A command writes no values, and does
  // without the folder.
  const entries = await openFile(folder, 'r').catch(() => null)

  /** A failed sync is never tried again: the error is reported once, the pages are marked clean. */
  const sync: Sync = async (work) => {
    try {
      await inTurn(work)
    } catch (error) {
      if (isFull(error)) throw diskFull(error)
      onFatal(`a file could not be synced: ${(error as Error).message}`)
      throw new SyncError('ERR04', 'The disk failed. Try again in a minute.', { cause: error })
    }
  }

  return {
    damaged: new Set<string>(),
    graceMs: GRACE_MS,
    isShared: false,
    state: async () => 'ok',

    async create(): Promise<Upload> {
      if (entries === null) throw busy()
      const name = `${start}-${unique(random)}`
      return startUpload({ path: join(folder, name), name, sync, syncEntry: () => entries.sync() })
    },

    close: async (): Promise<void> => entries?.close(),

    async read(name: string): Promise<Reading | undefined> {
      try {
        return await openReading(within(folder, name))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
        throw error
      }
    },

    async remove(names: string[]): Promise<void> {
      for (const name of names) await rm(within(folder, name), { force: true })
    },

    ...leftovers({ folder, trash, start }),
  }
}

async function openReading(path: string): Promise<Reading> {
  const file = await openFile(path, 'r')
  try {
    const { size } = await file.stat()
    return {
      size,
      read: async (buffer, length, position) =>
        (await file.read(buffer, 0, length, position)).bytesRead,
      close: () => file.close(),
    }
  } catch (error) {
    await file.close()
    throw error
  }
}

/** Throws for what leads elsewhere: names come from rows, and who wrote those may have made them up. */
function within(folder: string, name: string): string {
  if (!NAME.test(name)) throw new Error('not the name of a value')
  return join(folder, name)
}

/** What earlier starts left, and where it waits to be missed. */
function leftovers({ folder, trash, start }: { folder: string; trash: string; start: number }) {
  return {
    /** The files that earlier starts wrote: their writer is dead, so what has no row is left over. */
    async *listEarlier(): AsyncGenerator<string[]> {
      const names = await readdir(folder)
      yield names.filter((name) => {
        const match = NAME.exec(name)
        return match !== null && Number(match[1]) < start
      })
    },

    async listForeign(last: number): Promise<string[]> {
      const names = await readdir(folder)
      return names.filter((name) => !(Number(NAME.exec(name)?.[1]) <= last))
    },

    size: (name: string): Promise<number | undefined> => sizeOf(within(folder, name)),

    async sizes(names: string[]): Promise<Map<string, number>> {
      const found = new Map<string, number>()
      for (const name of names) {
        const size = await sizeOf(within(folder, name))
        if (size !== undefined) found.set(name, size)
      }
      return found
    },

    /** `now` names the day, from which its week in the trash counts. */
    async setAside(name: string, now: number): Promise<boolean> {
      try {
        await rename(join(folder, name), join(trash, `${now}-${name}`))
        return true
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
        throw error
      }
    },

    async tidy(now: number): Promise<void> {
      for (const name of await readdir(trash)) {
        if (Number(/^(\d+)-/.exec(name)?.[1]) < now - TRASH_MS)
          await rm(join(trash, name), { force: true })
      }
    },
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

type Sync = (work: () => Promise<void>) => Promise<void>

async function startUpload({
  path,
  name,
  sync,
  syncEntry,
}: {
  path: string
  name: string
  sync: Sync
  syncEntry: () => Promise<void>
}): Promise<Upload> {
  const flags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY
  const file = await openFile(path, flags, 0o600).catch(refuse)
  let isEntrySynced = false
  let unsynced = 0
  let writing = Promise.resolve()
  let syncing = Promise.resolve()

  // The entry last: file systems with a journal have mostly made it durable with the file by then.
  async function syncAll(): Promise<void> {
    await sync(() => file.datasync())
    if (!isEntrySynced) await sync(syncEntry)
    isEntrySynced = true
  }

  async function append(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) {
      done += (await file.write(chunk, done).catch(refuse)).bytesWritten
    }
    unsynced += chunk.length
    if (unsynced < SYNC_EVERY_BYTES) return
    unsynced = 0
    await syncing
    syncing = begin(syncAll())
  }

  return {
    name,
    // The next chunk comes in while this one is written, and the next part while that one is synced.
    async write(chunk) {
      await writing
      writing = begin(append(chunk))
    },
    async finish() {
      await writing
      await syncing
      await syncAll()
      await file.close()
    },
    leave: () => file.close().catch(() => undefined),
    async discard() {
      await Promise.allSettled([writing, syncing])
      await file.close().catch(() => undefined)
      // On a disk that takes no writes any more it stays: the next start finds that no row names it.
      await rm(path, { force: true }).catch(() => undefined)
    },
    checkAge: () => undefined, // of this start, which no sweep looks at
  }
}

/** Work that is waited for later: until then nobody looks at how it fails. */
function begin(work: Promise<void>): Promise<void> {
  work.catch(() => undefined)
  return work
}

/** What a failed call on a file means to the client, when nothing has happened yet. */
function refuse(error: unknown): never {
  throw isFull(error) ? diskFull(error) : busy(error)
}
