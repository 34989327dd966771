// Owns a network that a test can break: a fetch whose answers get lost, or that is cut altogether.

type Answer = Response | undefined

export interface Network {
  fetch: typeof fetch
  /** While true, nothing gets through, and what is open breaks. */
  isDown: boolean
  /** The answers to the next requests for which this is true get lost: the server did what was asked. */
  loseAnswer: ((method: string, path: string) => boolean) | null
  /** Answers in the server's place, or keeps the request waiting. */
  answer: ((method: string, path: string) => Answer | Promise<Answer>) | null
  /** The feed's events are late until this resolves. */
  late: Promise<void> | null
  /** What was asked: `PUT /store/a`. */
  asked: string[]
  /** Takes the network away, and gives it back. */
  cut(): void
  mend(): void
}

export function network(): Network {
  const open = new Set<AbortController>()
  const self: Network = {
    isDown: false,
    loseAnswer: null,
    answer: null,
    late: null,
    asked: [],
    cut() {
      self.isDown = true
      for (const controller of open) controller.abort(new TypeError('cut'))
      open.clear()
    },
    mend() {
      self.isDown = false
    },
    async fetch(input, init = {}) {
      if (self.isDown) throw new TypeError('down')
      const { pathname, search } = new URL(String(input))
      const method = init.method ?? 'GET'
      self.asked.push(`${method} ${pathname}${search}`)
      const instead = await self.answer?.(method, pathname)
      if (instead !== undefined) return instead
      const controller = new AbortController()
      open.add(controller)
      const signals = [controller.signal, init.signal].filter(
        (signal) => signal instanceof AbortSignal,
      )
      const response = await fetch(input, { ...init, signal: AbortSignal.any(signals) })
      if (response.headers.get('content-type') === 'text/event-stream') return delayed(response)
      if (self.loseAnswer?.(method, pathname) !== true) return response
      await response.arrayBuffer()
      throw new TypeError('lost')
    },
  }

  function delayed({ body, status, headers }: Response): Response {
    const events = new TransformStream<Uint8Array, Uint8Array>({
      async transform(chunk, controller) {
        await self.late
        controller.enqueue(chunk)
      },
    })
    return new Response(body?.pipeThrough(events) ?? null, { status, headers })
  }

  return self
}

/** True the first time only: for `loseAnswer`. */
export function once(which: (method: string, path: string) => boolean) {
  let isDone = false
  return (method: string, path: string): boolean => {
    if (isDone || !which(method, path)) return false
    isDone = true
    return true
  }
}
