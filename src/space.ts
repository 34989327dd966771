// Owns the free disk: the floor below which writes are refused, and the reserve that is given up when
// something else fills the disk, so that logins, deletions and a start still work.
import { randomBytes } from 'node:crypto'
import { existsSync, statSync, statfsSync, unlinkSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { diskFull } from './database/database.ts'

export interface Space {
  /** Throws SIZE03 unless `bytes` more may be written. */
  check(bytes: number): void
  isLow(): boolean
  /** Bytes that may still be written, above the floor. */
  room(): number
  /** Bytes that are free on the disk. */
  free(): number
  /** Bytes of the write-ahead log. */
  wal(): number
  /** Gives the reserve up; true when that made room. */
  giveUpReserve(): boolean
  /** Makes the reserve (again) when there is room for it. */
  keepReserve(): Promise<void>
}

const FLOOR_BYTES = 256 * 1024 * 1024
const FLOOR_SHARE = 0.01
const RESERVE_BYTES = 16 * 1024 * 1024
const LOOK_AGAIN_MS = 200

/** Where neither the database nor the values are on a disk of this machine. */
export const otherSpace: Space = {
  check: () => undefined,
  isLow: () => false,
  room: () => Number.POSITIVE_INFINITY,
  free: () => Number.POSITIVE_INFINITY,
  wal: () => 0,
  giveUpReserve: () => false,
  keepReserve: async () => undefined,
}

/** `floorBytes` is for tests on small disks. */
export function openSpace(root: string, uptime: () => number, floorBytes = FLOOR_BYTES): Space {
  const wal = join(root, 'sync-node.db-wal')
  const reserve = join(root, 'reserve')
  let seen = { free: 0, floor: 0, walBytes: 0, at: Number.NEGATIVE_INFINITY }

  /** What a checkpoint will move from the WAL into the database is taken as used. */
  function look(): typeof seen {
    if (uptime() - seen.at > LOOK_AGAIN_MS) {
      const { bavail, bsize, blocks } = statfsSync(root)
      const share = floorBytes === FLOOR_BYTES ? blocks * bsize * FLOOR_SHARE : 0
      const walBytes = statSync(wal, { throwIfNoEntry: false })?.size ?? 0
      seen = {
        free: bavail * bsize,
        floor: Math.max(floorBytes, share) + walBytes,
        walBytes,
        at: uptime(),
      }
    }
    return seen
  }
  const room = (): number => look().free - seen.floor

  return {
    check(bytes) {
      if (room() < bytes) throw diskFull()
    },
    isLow: () => room() < 0,
    room,
    free: () => look().free,
    wal: () => look().walBytes,
    giveUpReserve() {
      if (!existsSync(reserve)) return false
      unlinkSync(reserve)
      seen.at = Number.NEGATIVE_INFINITY
      return true
    },
    async keepReserve() {
      if (existsSync(reserve) || room() < RESERVE_BYTES) return
      const temporary = `${reserve}.new`
      try {
        const file = await open(temporary, 'w', 0o600)
        try {
          // Random, so that no file system stores it as a hole or compresses it away.
          const chunk = randomBytes(1024 * 1024)
          for (let done = 0; done < RESERVE_BYTES; done += chunk.length) await file.write(chunk)
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(temporary, reserve)
      } catch {
        await rm(temporary, { force: true }) // no room after all; the next round tries again
      }
    },
  }
}
