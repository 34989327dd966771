// Owns bytes as text: UTF-8, base64 and base64url, without what only browsers or only Node have.

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const VALUES = new Map(Array.from(`${ALPHABET}+/${ALPHABET}-_`, (char, i) => [char, i % 64]))

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

export const toBytes = (value: Uint8Array | string): Uint8Array =>
  typeof value === 'string' ? utf8(value) : value

export function base64(bytes: Uint8Array): string {
  const text = encode(bytes, `${ALPHABET}+/`)
  return text.padEnd(Math.ceil(text.length / 4) * 4, '=')
}

export const base64url = (bytes: Uint8Array): string => encode(bytes, `${ALPHABET}-_`)

function encode(bytes: Uint8Array, alphabet: string): string {
  let text = ''
  let bits = 0
  let held = 0
  for (const byte of bytes) {
    held = (held << 8) | byte
    for (bits += 8; bits >= 6;) text += alphabet.charAt((held >> (bits -= 6)) & 63)
    held &= (1 << bits) - 1
  }
  return bits > 0 ? text + alphabet.charAt((held << (6 - bits)) & 63) : text
}

/** The bytes of base64 or base64url. Throws for anything else. */
export function fromBase64(text: string): Uint8Array {
  const digits = text.replace(/=+$/, '')
  const bytes = new Uint8Array(Math.floor((digits.length * 3) / 4))
  let bits = 0
  let held = 0
  let at = 0
  for (const digit of digits) {
    const value = VALUES.get(digit)
    if (value === undefined) throw new Error('not base64')
    held = ((held << 6) | value) & 0xfff
    if ((bits += 6) >= 8) bytes[at++] = held >> (bits -= 8)
  }
  return bytes
}

/** An id that is not met twice. It keeps no secret, so it can do without WebCrypto. */
export function randomId(): string {
  const bytes = new Uint8Array(12)
  const source = (globalThis as { crypto?: { getRandomValues?: (to: Uint8Array) => unknown } })
    .crypto
  if (source?.getRandomValues === undefined) {
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.random() * 256
  } else source.getRandomValues(bytes)
  return base64url(bytes)
}

export const isEqual = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i])
