// Owns the server's secret: made at the first start, kept beside the data it belongs to, and the keys
// that are derived from it.
import { hkdfSync } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { base64url } from 'oslo/encoding'
import { syncFolder } from './folder.ts'
import type { RandomBytes } from './token.ts'

export interface Keys {
  /** HMAC key of account ids. */
  account: Uint8Array
  /** From which each account's cursor key is made. */
  cursor: Uint8Array
  /** What tells, without telling the secret, that it is the one this database was made with. */
  check: string
}

const FILE = 'secret'

/** The secret that `STATIC_ROOT` holds: undefined without one, null for a file that holds none. */
export function read(root: string): string | null | undefined {
  const path = join(root, FILE)
  if (!existsSync(path)) return undefined
  const secret = readFileSync(path, 'utf8').trim()
  return /^[\w-]{43}$/.test(secret) ? secret : null
}

/** Makes the secret, durable before anything that depends on it: file, folder and parent are synced. */
export async function create(root: string, random: RandomBytes): Promise<string> {
  const secret = base64url.encode(random(32), { includePadding: false })
  const temporary = join(root, `${FILE}.new`)
  const file = await open(temporary, 'w', 0o600)
  try {
    await file.writeFile(`${secret}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, join(root, FILE))
  await syncFolder(root)
  // The parent of a folder that was there is another's, and may not be readable: nothing is new in it.
  await syncFolder(dirname(root)).catch(() => undefined)
  return secret
}

export function deriveKeys(secret: string): Keys {
  const derive = (purpose: string): Uint8Array =>
    new Uint8Array(hkdfSync('sha256', secret, '', `sync-node ${purpose}`, 32))
  return {
    account: derive('account'),
    cursor: derive('cursor'),
    check: Buffer.from(derive('check')).toString('hex'),
  }
}
