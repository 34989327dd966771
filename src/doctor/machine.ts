// Owns the look at the machine: its clock, memory, and how many files may be open.
import { existsSync, readFileSync } from 'node:fs'
import { totalmem } from 'node:os'
import { TimeSpan } from 'oslo'
import { LEAP } from '../clock.ts'
import { commitDateMs } from '../packed.ts'
import { toSize, toSpan, toTime } from '../units.ts'
import { ok, problem, warning, type Finding } from './finding.ts'

// The server writes its time down once a minute, and time servers correct a clock by seconds.
const BEHIND_MS = new TimeSpan(5, 'm').milliseconds()
const REST_MS = new TimeSpan(30, 'd').milliseconds()
const LONG_REST_MS = new TimeSpan(365, 'd').milliseconds()
const LEAST_FILES = 512
/** What the server keeps for files of its own: see src/http/server.ts. */
const OWN_FILES = 256
const LEAST_MEMORY = 128 * 1024 * 1024
const SET = 'set it (timedatectl set-ntp true)'

/** `newest` is the newest time in the data, or undefined without data. */
export function checkClock(
  newest: number | undefined,
  { isServing, now = Date.now() }: { isServing: boolean; now?: number },
): Finding {
  const shown = `the clock shows ${toTime(now)} UTC`
  if (now < commitDateMs) return problem('clock', `${shown}, before this program was made: ${SET}`)
  const ahead = newest === undefined ? 0 : now - newest
  if (-ahead > BEHIND_MS) {
    return problem(
      'clock',
      `${shown}, ${toSpan(-ahead)} behind the newest time in the data: ${SET}`,
    )
  }
  if (isServing && ahead > LEAP) {
    const text = `${shown}, ${toSpan(ahead)} ahead of the time that the server believes: ${SET}, or it is believed after a day`
    return problem('clock', text)
  }
  if (ahead > REST_MS) {
    const level = ahead > LONG_REST_MS ? problem : warning
    const text = `${shown}, ${toSpan(ahead)} after the data was last in use: if that is not so, ${SET}`
    return level('clock', text)
  }
  return withTimeServer(shown)
}

/** Where systemd-timesyncd keeps the clock, it says whether it has. */
function withTimeServer(shown: string): Finding {
  const folder = '/run/systemd/timesync'
  if (!existsSync(folder)) return ok('clock', shown)
  if (existsSync(`${folder}/synchronized`)) return ok('clock', `${shown}, by a time server`)
  return warning('clock', `${shown}, but no time server has confirmed it: see timedatectl`)
}

/** `pid` is the server's, where it is known. */
export function checkOpenFiles(pid: number | undefined): Finding {
  const limits = (pid === undefined ? undefined : readLimits(pid)) ?? readLimits('self') ?? ''
  const [, soft] = /^Max open files\s+(\d+)/m.exec(limits) ?? []
  if (soft === undefined) return ok('open files', 'no limit')
  const whose = pid === undefined ? 'a server started here' : 'the server'
  const connections = Math.max(16, Number(soft) - OWN_FILES)
  const text = `${whose} may open ${soft} files, so ${connections} connections`
  if (Number(soft) >= LEAST_FILES) return ok('open files', text)
  return problem('open files', `${text}: raise it (ulimit -n, or LimitNOFILE= in its unit)`)
}

function readLimits(pid: number | 'self'): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/limits`, 'utf8')
  } catch {
    return undefined // it has ended, or is not ours to ask
  }
}

export function checkMemory(): Finding {
  // In a container, what it may use.
  const bytes = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY)
  if (bytes >= LEAST_MEMORY) return ok('memory', toSize(bytes))
  return warning('memory', `${toSize(bytes)} is little: many clients at once may end the server`)
}
