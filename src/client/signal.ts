// Owns giving up: signals that follow others, and pauses that end with one. (AbortSignal.any is not everywhere.)

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
    const follow = (): void => controller.abort(signal.reason)
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

/** Throws the signal's reason when it comes first. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer)
      reject(signal?.reason as Error)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, ms)
    if (signal?.aborted === true) stop()
    signal?.addEventListener('abort', stop, { once: true })
  })
}
