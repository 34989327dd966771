// Owns a way between two programs that a test cuts, slows and silences: a small TCP proxy that knows
// nothing of what goes over it.
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'

export interface Link {
  port: number
  /** Breaks every connection off, and takes no other until `mend`. */
  cut(): void
  mend(): void
  /** Each piece is so late, either way. */
  delayMs: number
  /** What is on its way stays there; it arrives later, though who sent it may have given up. */
  isSilent: boolean
  /** So many answers are broken off in their middle: each fifth, so that what follows such a break may pass. */
  breaks: number
}

const BREAK_EACH = 5
const LOOK_MS = 20

/** Starts one that leads to a port of this machine. */
export async function startLink(t: Pick<TestContext, 'after'>, port: number): Promise<Link> {
  const open = new Set<Socket>()
  let isCut = false
  let passed = 0

  const isBroken = (): boolean =>
    link.breaks > 0 && ++passed % BREAK_EACH === 0 && link.breaks-- > 0

  /** What comes from one goes to the other; with the end of either it is over. */
  async function carry(from: Socket, to: Socket, breaks: () => boolean): Promise<void> {
    try {
      for await (const piece of from as AsyncIterable<Buffer>) {
        if (link.delayMs > 0) await pause(link.delayMs)
        while (link.isSilent) await pause(LOOK_MS)
        const isLast = breaks()
        const part = isLast ? piece.subarray(0, Math.ceil(piece.length / 2)) : piece
        if (to.destroyed || isLast) return void to.end(part)
        if (!to.write(part)) await Promise.race([once(to, 'drain'), once(to, 'close')])
      }
    } catch {
      // Broken off.
    } finally {
      to.end()
      from.destroy()
    }
  }

  function join(near: Socket): void {
    if (isCut) return void near.destroy()
    const far = connect({ port, host: '127.0.0.1', noDelay: true })
    for (const socket of [near, far]) {
      open.add(socket)
      socket.on('error', () => undefined)
      socket.once('close', () => open.delete(socket))
    }
    void carry(near, far, () => false)
    void carry(far, near, isBroken)
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
    isSilent: false,
    breaks: 0,
  }
  t.after(() => {
    link.isSilent = false
    server.close()
    link.cut()
  })
  return link
}
