// Owns devices for a test: each a replica with a network of its own, on one account of a real server.
import type { TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { connect, type Client, type ConnectOptions } from '../../src/client/client.ts'
import { memoryStore, openReplica } from '../../src/client/replica.ts'
import type { Replica, ReplicaOptions } from '../../src/client/replica.ts'
import { network, type Network } from './network.ts'
import { PASSWORD, type TestNode } from './node.ts'

export interface Device {
  replica: Replica
  client: Client
  net: Network
  /** What it told of since it was opened: `remote a`, `local b`. */
  told: string[]
  read(id: string): Promise<string | null>
  /** Everything that is here, as text. */
  all(): Promise<Record<string, string>>
}

export const toText = (bytes: Uint8Array | null): string | null =>
  bytes === null ? null : new TextDecoder().decode(bytes)

const GIVE_UP_MS = 60_000

/** Keeps every line that either side has, and what one side deleted only if the other left it alone. */
export const mergeLines: ReplicaOptions['merge'] = ({ base, local, remote }) => {
  if (local === null || remote === null) {
    const kept = local ?? remote
    const isUntouched = base !== null && kept !== null && toText(kept) === toText(base)
    return isUntouched ? null : kept
  }
  const lines = [remote, local].flatMap((side) => (toText(side) as string).split('\n'))
  return new TextEncoder().encode([...new Set(lines)].join('\n'))
}

/** Opens a device; a `token` makes it the account's next one. */
export async function openDevice(
  t: TestContext,
  node: TestNode,
  o: Partial<ReplicaOptions> & {
    id?: string
    options?: Partial<ConnectOptions>
    net?: Network
  } = {},
): Promise<Device> {
  const { id = 'ana', options, net = network(), ...rest } = o
  // The port of a restarted node is another.
  const moving: typeof fetch = (input, init) => {
    const { pathname, search } = new URL(String(input))
    return net.fetch(node.url + pathname + search, init)
  }
  const client = connect({ url: node.url, fetch: moving, retry: { baseMs: 1 }, ...options })
  if (options?.token === undefined) await enter(client, id)
  const replica = await openReplica({
    client,
    local: memoryStore(),
    merge: mergeLines,
    retryMs: 5,
    ...rest,
  })
  t.after(() => replica.close())
  const told: string[] = []
  replica.subscribe((event) => {
    if (event.type === 'change') told.push(`${event.origin} ${event.id}`)
  })
  return {
    replica,
    client,
    net,
    told,
    read: async (key) => toText(await replica.get(key)),
    async all() {
      const items = await replica.list()
      return Object.fromEntries(items.map(({ id: key, value }) => [key, toText(value) as string]))
    },
  }
}

async function enter(client: Client, id: string): Promise<void> {
  try {
    await client.login({ id, password: PASSWORD })
  } catch {
    await client.register({ id, password: PASSWORD })
  }
}

/** Resolves when `look` is true, looked at whenever one of the replicas tells of something. */
export async function until(
  devices: Pick<Device, 'replica'> | Pick<Device, 'replica'>[],
  look: () => boolean | Promise<boolean>,
): Promise<void> {
  const replicas = [devices].flat().map(({ replica }) => replica)
  let wake = (): void => undefined
  let hasTold = false
  const tell = (): void => {
    hasTold = true
    wake()
  }
  const stops = replicas.map((replica) => replica.subscribe(tell))
  let isLate = false // not by a clock: a timer may be a little early by it, and comes once
  const timer = setTimeout(() => {
    isLate = true
    tell()
  }, GIVE_UP_MS)
  try {
    while (!(await look())) {
      if (isLate) {
        throw new Error(`never came: ${JSON.stringify(replicas.map((one) => one.status()))}`)
      }
      // What was told while looking is looked at again.
      if (!hasTold) await new Promise<void>((resolve) => (wake = resolve))
      hasTold = false
    }
  } finally {
    clearTimeout(timer)
    for (const stop of stops) stop()
  }
}

export const reads = (device: Device, id: string, text: string | null) => async () =>
  (await device.read(id)) === text

/** Waits until all is sent, but not for ever. */
export const synced = ({ replica }: Pick<Device, 'replica'>): Promise<void> =>
  replica.synced({ signal: AbortSignal.timeout(GIVE_UP_MS) })

/** Sends all that is left, and waits until all devices have the same. */
export async function converge(...devices: Device[]): Promise<Record<string, string>> {
  for (const device of devices) await synced(device)
  const [first, ...others] = devices as [Device, ...Device[]]
  for (const other of others) {
    await until([first, other], async () => isDeepStrictEqual(await first.all(), await other.all()))
  }
  return first.all()
}
