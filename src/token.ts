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
export const unique = (random: RandomBytes): string => toBase32(random(16))

/** 16 bytes as 26 characters of [0-9a-v] (base32hex, RFC 4648 §7, as one number). */
export const toBase32 = (bytes: Uint8Array): string =>
  BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
    .toString(32)
    .padStart(26, '0')

/** What toBase32 made, or null for anything else. */
export function fromBase32(text: string): Uint8Array | null {
  if (!/^[0-7][0-9a-v]{25}$/.test(text)) return null
  let number = 0n
  for (const digit of text) number = number * 32n + BigInt(parseInt(digit, 32))
  return Buffer.from(number.toString(16).padStart(32, '0'), 'hex')
}
