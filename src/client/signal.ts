// Owns giving up: signals that follow others, and pauses that end with one. (AbortSignal.any is not everywhere.)
import { SyncError } from './errors.ts'

export interface Link {
  signal: AbortSignal
  abort(reason: unknown): void
  /** Stops to follow. */
  release(): void
}

/** A signal that is aborted with any of these, or by itself. */
export function linked(...followed: (AbortSignal | undefined)[]): Link {
  const controller = new AbortController()
  const undo: (() => void)[] = []
  for (const signal of followed) {
    if (signal === undefined) continue
    const follow = (): void => controller.abort(reasonOf(signal))
    if (signal.aborted) follow()
    signal.addEventListener('abort', follow)
    undo.push(() => signal.removeEventListener('abort', follow))
  }
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    release: () => undo.forEach((stop) => stop()),
  }
}

/** Throws the signal's reason. (Old platforms have none, and no throwIfAborted.) */
export function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw reasonOf(signal)
}

const reasonOf = (signal: AbortSignal | undefined): unknown =>
  signal?.reason ?? new SyncError('ABORTED', 'The signal was aborted.')

/** Of a browser: `online` and `offline`. Elsewhere there may be none. */
export const events = globalThis as Partial<
  Pick<EventTarget, 'addEventListener' | 'removeEventListener'>
>

/** Ends early when the device comes online. Throws the signal's reason when that comes first. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', stop)
      events.removeEventListener?.('online', wake)
      settle()
    }
    const stop = (): void => end(() => reject(reasonOf(signal) as Error))
    const wake = (): void => end(resolve)
    const timer = setTimeout(wake, ms)
    if (signal?.aborted === true) return stop()
    signal?.addEventListener('abort', stop)
    events.addEventListener?.('online', wake)
  })
}
