// Owns the time by which things expire. A Pi has no clock: a wrong one must neither end all sessions
// nor delete anything, so this one never goes back and does not follow a leap until it has lasted.
import { performance } from 'node:perf_hooks'
import { TimeSpan } from 'oslo'

export interface Clock {
  /** Believed time in ms since the epoch: for all that expires or is deleted by age. */
  now(): number
  /** The machine's time, but not before this program was made: for people to read. */
  wall(): number
}

/** The machine's two clocks, in ms: `wall` can leap, `uptime` cannot. */
export interface TimeSource {
  wall(): number
  uptime(): number
}

export const machineTime: TimeSource = { wall: Date.now, uptime: () => performance.now() }

/** How far ahead is a leap. */
export const LEAP = new TimeSpan(1, 'd').milliseconds()
const PROBATION = new TimeSpan(24, 'h').milliseconds()

export function guardedClock(source: TimeSource, floor: number, newestSeen?: number): Clock {
  const wall = (): number => Math.max(source.wall(), floor)
  // Where nothing was ever stored, there is nothing that a wrong clock could end.
  let believed = Math.max(newestSeen ?? wall(), floor)
  let lastUptime = source.uptime()
  /** The leap on probation: since when, and by how much the machine's time is ahead of uptime. */
  let leap: { since: number; ahead: number } | undefined

  function now(): number {
    const uptime = source.uptime()
    believed += Math.max(0, uptime - lastUptime)
    lastUptime = uptime
    const shown = source.wall()
    if (shown <= believed + LEAP) leap = undefined
    else {
      const ahead = shown - uptime
      if (leap === undefined || Math.abs(ahead - leap.ahead) > LEAP) leap = { since: uptime, ahead }
      if (uptime - leap.since < PROBATION) return Math.floor(believed)
    }
    believed = Math.max(believed, shown)
    return Math.floor(believed)
  }

  return { now, wall }
}
