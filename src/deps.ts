// Owns the type of what the domain is handed: everything that a test may replace or a node opens.
import type { Blobs } from './blobs/blobs.ts'
import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import type { Database } from './database/database.ts'
import type { Limiter } from './limit.ts'
import type { Listeners } from './listeners.ts'
import type { Log } from './log.ts'
import type { Mailer } from './mail.ts'
import type { Metrics } from './metrics.ts'
import type { Passwords } from './password.ts'
import type { Keys } from './secret.ts'
import type { Space } from './space.ts'
import type { RandomBytes } from './token.ts'

export interface Deps {
  config: Config
  database: Database
  /** What the checks in the background found. */
  health: { isDamaged: boolean }
  blobs: Blobs
  clock: Clock
  keys: Keys
  limiter: Limiter
  listeners: Listeners
  log: Log
  mailer: Mailer | null
  /** Null where nobody scrapes. */
  metrics: Metrics | null
  passwords: Passwords
  random: RandomBytes
  space: Space
}
