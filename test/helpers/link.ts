// Owns a way between two programs that a test cuts and slows: a small TCP proxy that knows nothing of what
// goes over it.
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { pipeline } from 'node:stream'
import type { TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'

export interface Link {
  port: number
  /** Breaks every connection off, and takes no other until `mend`. */
  cut(): void
  mend(): void
  /** Each piece is so late, either way. */
  delayMs: number
  /** So many answers are broken off in their middle: each fifth, so that what follows such a break may pass. */
  breaks: number
}

const BREAK_EACH = 5

/** Starts one that leads to a port of this machine. */
export async function startLink(t: Pick<TestContext, 'after'>, port: number): Promise<Link> {
  const open = new Set<Socket>()
  let isCut = false
  let passed = 0

  function join(near: Socket): void {
    if (isCut) return void near.destroy()
    const far = connect({ port, host: '127.0.0.1', noDelay: true })
    for (const socket of [near, far]) {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    }
    // Whichever ends first, the other is of no use any more.
    const end = (): void => {
      near.destroy()
      far.destroy()
    }
    pipeline(near, late, far, end)
    pipeline(far, late, breaking, near, end)
  }

  async function* late(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of pieces) {
      if (link.delayMs > 0) await pause(link.delayMs)
      yield piece
    }
  }

  async function* breaking(answer: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of answer) {
      if (link.breaks === 0 || ++passed % BREAK_EACH > 0) yield piece
      else {
        link.breaks--
        yield piece.subarray(0, Math.ceil(piece.length / 2))
        throw new Error('broken off')
      }
    }
  }

  const server = createServer({ noDelay: true }, join)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const link: Link = {
    port: (server.address() as AddressInfo).port,
    cut() {
      isCut = true
      for (const socket of open) socket.destroy()
    },
    mend() {
      isCut = false
    },
    delayMs: 0,
    breaks: 0,
  }
  t.after(() => {
    server.close()
    link.cut()
  })
  return link
}
