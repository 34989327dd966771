// Owns batches: operations as the server takes them, and a lost answer settled by what it found instead.
import { reprDigest } from './digest.ts'
import { base64, randomId, toBytes } from './encoding.ts'
import type { Problem } from './errors.ts'
import { isStoreKey } from './key.ts'
import { contextOf, encodeMeta } from './meta.ts'
import type { Transport } from './transport.ts'
import type { CallOptions, Codec, Operation, OperationResult, Token } from './types.ts'

type Wire =
  | { put: string; data: string; meta: string; digest: string; token?: Token }
  | { delete: string; token: Token }
  | { check: string; token: Token }

export async function runBatch(
  transport: Transport,
  codec: Codec,
  operations: Operation[],
  { signal }: CallOptions = {},
): Promise<OperationResult[]> {
  // Encoding takes a while, in which somebody else may log in.
  const { session } = transport
  const wire = await Promise.all(operations.map((operation) => encode(codec, operation)))
  const json = { operations: wire.map(withoutDigest) }
  const asked = { method: 'POST', path: '/batch', json, read: 'json', session, signal } as const
  const { body, error, isRepeat } = await transport.ask(asked)
  if (error === null) return (body as { results: OperationResult[] }).results
  const settled = settle(wire, error.problem?.failed ?? [], isRepeat)
  if (settled === null) throw error
  return settled
}

async function encode(codec: Codec, operation: Operation): Promise<Wire> {
  if (!('put' in operation)) return operation
  const { put, value, token, meta } = operation
  const named = { ...(isStoreKey(put) ? {} : { name: put }), ...meta }
  const bytes = await codec.encode(toBytes(value), contextOf('value', named.name))
  return {
    put,
    data: base64(bytes),
    meta: await encodeMeta(codec, named, randomId()),
    digest: await reprDigest(bytes),
    ...(token !== undefined && { token }),
  }
}

function withoutDigest(wire: Wire): object {
  if (!('put' in wire)) return wire
  const { digest: _, ...rest } = wire
  return rest
}

/**
 * The results, if the batch was done by an attempt without an answer. As it is all or nothing, one
 * write of it that is found is proof: its meta holds an id that no other write has.
 */
function settle(
  wire: Wire[],
  failed: NonNullable<Problem['failed']>,
  isRepeat: boolean,
): OperationResult[] | null {
  const results: OperationResult[] = wire.map(() => ({}))
  let isDone = false
  for (const { index, token, digest, meta } of failed) {
    const one = wire[index]
    if (one === undefined || !('put' in one)) continue
    if (digest !== one.digest || meta !== one.meta) continue
    isDone = true
    if (token !== undefined) results[index] = { token }
  }
  // Nothing but deletions (and checks) leaves no trace but that all of them are gone.
  const gone = failed.filter(
    ({ index, code }) => code === 'ERR01' && 'delete' in (wire[index] ?? {}),
  )
  const deletions = wire.filter((one) => 'delete' in one)
  const isOnlyDeletions = deletions.length > 0 && !wire.some((one) => 'put' in one)
  if (isRepeat && isOnlyDeletions && gone.length === deletions.length) isDone = true
  return isDone ? results : null
}
