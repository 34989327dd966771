// Owns how the client writes meta: base64url of what the codec makes of the JSON {"name": …, …}.
import { base64url, fromBase64, utf8 } from './encoding.ts'
import { SyncError } from './errors.ts'
import type { Codec, Meta, StoreInfo } from './types.ts'

export const identity: Codec = { encode: (bytes) => bytes, decode: (bytes) => bytes }

// The member that holds the id of the write: by it a client whose answer was lost knows its own write
// from another's with the same value (two devices that both count from 5 to 6).
const WRITE = 'w'

const MAX_CHARS = 8000
// Before it is encoded, with what the id of a write takes.
const MAX_BYTES = (MAX_CHARS * 3) / 4 - 23

const tooLong = (): SyncError =>
  new SyncError('REQ01', 'The name and meta together are longer than a server takes.', {
    status: 400,
  })

/** Throws REQ01 for what is too long before a codec makes it longer. */
export function checkMeta(meta: Meta): void {
  if (utf8(JSON.stringify(meta)).length > MAX_BYTES) throw tooLong()
}

/** Meta as it goes to the server, in `X-Sync-Meta` or a batch. Throws REQ01 for what is too long. */
export async function encodeMeta(codec: Codec, meta: Meta, write: string): Promise<string> {
  const { name } = meta
  const json = utf8(
    JSON.stringify({ ...(name !== undefined && { name }), ...meta, [WRITE]: write }),
  )
  const text = base64url(await codec.encode(json, contextOf('meta', name)))
  if (text.length > MAX_CHARS) throw tooLong()
  return text
}

/** null when there is none, or none that this codec can read. */
export async function decodeMeta(
  codec: Codec,
  text: string | null | undefined,
): Promise<{ meta: Meta; write?: string } | null> {
  if (text === null || text === undefined) return null
  try {
    const bytes = await codec.decode(fromBase64(text), { kind: 'meta' })
    const meta = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown
    if (typeof meta !== 'object' || meta === null || Array.isArray(meta)) return null
    const { [WRITE]: write, name, ...extra } = meta as Record<string, unknown>
    return {
      meta: typeof name === 'string' ? { name, ...extra } : extra,
      ...(typeof write === 'string' && { write }),
    }
  } catch {
    return null
  }
}

/** What a listing or feed says of a store, with what its meta says. */
export async function withName<Info extends StoreInfo>(codec: Codec, info: Info): Promise<Info> {
  const decoded = await decodeMeta(codec, info.meta)
  if (decoded === null) return info
  const { name, ...extra } = decoded.meta
  const { write } = decoded
  return {
    ...info,
    ...(name !== undefined && { name }),
    extra,
    ...(write !== undefined && { write }),
  }
}

export const contextOf = (kind: 'value' | 'meta', name: string | undefined) => ({
  kind,
  ...(name !== undefined && { name }),
})
