// Owns random secrets that are handed out once, and the digest that is kept of them.
import { hash, randomBytes as systemRandomBytes } from 'node:crypto'
import { base64url } from 'oslo/encoding'

export type RandomBytes = (size: number) => Uint8Array

export const randomBytes: RandomBytes = (size) => systemRandomBytes(size)

export interface Token {
  /** 256 random bits, base64url. */
  secret: string
  digest: string
}

export function issue(random: RandomBytes): Token {
  const secret = base64url.encode(random(32), { includePadding: false })
  return { secret, digest: digest(secret) }
}

/** What is stored and looked up: a leaked database opens no session. */
export const digest = (secret: string): string => hash('sha256', secret, 'base64url')

/** A name that was never used before, in the alphabet of a store's token: [0-9a-v]. */
export function unique(random: RandomBytes): string {
  const bits = BigInt(`0x${Buffer.from(random(16)).toString('hex')}`)
  return bits.toString(32).padStart(26, '0')
}
