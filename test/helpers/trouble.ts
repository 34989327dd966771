// Owns the troubles that devices have in random histories: no network, lost answers, an app that is
// closed, a server that restarts; and how they are mended.
import type { TestContext } from 'node:test'
import fc from 'fast-check'
import { memoryStore } from '../../src/client/replica.ts'
import type { TestNode } from './node.ts'
import { numbers } from './random.ts'
import { openDevice, synced, toText, type Device } from './replicas.ts'

export interface Trouble {
  kind: string
  device: number
  /** By which it is decided which answers get lost. */
  seed?: number
}

/** Of one out of so many devices. */
export const troubles = (devices: number): fc.Arbitrary<Trouble> =>
  fc.record({
    kind: fc.constantFrom('cut', 'mend', 'lose', 'keep', 'reopen', 'settle', 'restart'),
    device: fc.nat(devices - 1),
    seed: fc.nat(),
  })

/** A device that can be closed, and opened again with what it kept. */
export interface Reopened {
  device: Device
  reopen(): Promise<void>
}

/** One whose app merges by uniting all lines. */
export async function openReopened(t: TestContext, node: TestNode, id: string): Promise<Reopened> {
  const local = memoryStore()
  const open = (): Promise<Device> =>
    openDevice(t, node, {
      id,
      local,
      merge: ({ local: here, remote }) =>
        here === null && remote === null ? null : unite(here, remote),
      options: { retry: { baseMs: 1, attempts: 2 } },
    })
  const self: Reopened = {
    device: await open(),
    async reopen() {
      await self.device.replica.close()
      self.device = await open()
    },
  }
  return self
}

export async function trouble(
  node: TestNode,
  reopened: Reopened,
  { kind, seed = 0 }: Trouble,
): Promise<void> {
  const { net } = reopened.device
  if (kind === 'cut') net.cut()
  if (kind === 'mend') net.mend()
  if (kind === 'lose') {
    const below = numbers(seed)
    net.loseAnswer = (method) => method !== 'GET' && below(2) === 0
  }
  if (kind === 'keep') net.loseAnswer = null
  if (kind === 'settle' && !net.isDown) await synced(reopened.device)
  if (kind === 'restart') await node.restart()
  if (kind === 'reopen') await reopened.reopen()
}

export function mendAll(devices: Device[]): void {
  for (const { net } of devices) {
    net.mend()
    net.loseAnswer = null
  }
}

/** The union of both sides' lines: whatever was written once has to be there in the end. */
export const unite = (...sides: (Uint8Array | string | null)[]): Uint8Array => {
  const lines = sides.flatMap((side) =>
    side === null ? [] : (typeof side === 'string' ? side : (toText(side) as string)).split('\n'),
  )
  return new TextEncoder().encode(
    [...new Set(lines)].toSorted((a, b) => a.localeCompare(b)).join('\n'),
  )
}
