// Owns where a backup is written: a file that has its name when it is whole and on the disk, or stdout.
import { existsSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Target } from '../backup.ts'
import { syncFolder } from '../folder.ts'
import { CommandError, UsageError } from './command.ts'

export interface Output extends Target {
  /** Of the disk that it is on; null for a pipe. */
  device: number | null
  bytes(): number
  /** All of it is written: now it gets its name. */
  keep(): Promise<void>
  /** Leaves nothing behind. */
  discard(): Promise<void>
}

// What is written at once would have to be synced by the next commit of the server.
const SYNC_EVERY_BYTES = 8 * 1024 * 1024

export async function openFile(path: string): Promise<Output> {
  if (existsSync(path)) throw new CommandError(`${path} is there already: nothing is overwritten.`)
  const part = `${path}.part`
  const file = await open(part, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'EEXIST' ? new CommandError(IN_THE_WAY(part)) : error
  })
  let written = 0
  let unsynced = 0

  async function write(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) {
      const { bytesWritten } = await file.write(chunk, done, chunk.length - done, written)
      done += bytesWritten
      written += bytesWritten
    }
    unsynced += chunk.length
    if (unsynced < SYNC_EVERY_BYTES) return
    unsynced = 0
    await file.datasync()
  }

  return {
    device: (await file.stat()).dev,
    bytes: () => written,
    async write(chunks) {
      for await (const chunk of chunks) await write(chunk)
    },
    async restart() {
      written = 0
      await file.truncate()
    },
    async keep() {
      await file.sync()
      if (existsSync(path)) throw new CommandError(`${path} is there now: nothing is overwritten.`)
      await rename(part, path)
      await file.close()
      // Not every file system of a stick or a share can.
      await syncFolder(dirname(path)).catch(() => undefined)
    },
    async discard() {
      await file.close()
      await rm(part, { force: true })
    },
  }
}

const IN_THE_WAY = (part: string): string =>
  `${part} is there: another backup is writing it, or was killed. Remove it if none runs.`

export function openStdout(): Output {
  const { stdout } = process
  if (stdout.isTTY) throw new UsageError('a backup is no text for a terminal')
  stdout.on('error', () => undefined) // it comes by the callback too
  let written = 0
  const write = (chunk: Uint8Array): Promise<void> =>
    new Promise((resolve, reject) => {
      written += chunk.length
      stdout.write(chunk, (error) => {
        if (error) reject(new CommandError(`Nobody reads the backup any more: ${error.message}.`))
        else resolve()
      })
    })
  return {
    device: null,
    bytes: () => written,
    async write(chunks) {
      for await (const chunk of chunks) await write(chunk)
    },
    restart: null,
    keep: async () => undefined,
    discard: async () => undefined,
  }
}
