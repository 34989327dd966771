// Owns SHA-256: WebCrypto's, or where that is missing (plain http, React Native) one of its own.
import { base64 } from './encoding.ts'

interface Subtle {
  digest(name: string, bytes: Uint8Array): Promise<ArrayBuffer>
}

/** A value's digest as `Repr-Digest` has it. */
export async function reprDigest(bytes: Uint8Array): Promise<string> {
  const { subtle } = (globalThis as { crypto?: { subtle?: Subtle } }).crypto ?? {}
  const digest =
    subtle === undefined ? sha256(bytes) : new Uint8Array(await subtle.digest('SHA-256', bytes))
  return `sha-256=:${base64(digest)}:`
}

// FIPS 180-4: the fractions of the roots of the first primes.
const PRIMES = Array.from({ length: 312 }, (_, i) => i).filter(
  (n) => n > 1 && ![2, 3, 5, 7, 11, 13, 17].some((p) => p < n && n % p === 0),
)
const fraction = (x: number): number => ((x - Math.floor(x)) * 2 ** 32) | 0
const K = PRIMES.slice(0, 64).map((prime) => fraction(Math.cbrt(prime)))
const START = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)))

const turn = (x: number, by: number): number => (x >>> by) | (x << (32 - by))

export function sha256(bytes: Uint8Array): Uint8Array {
  const state = Int32Array.from(START)
  const whole = bytes.length & ~63
  for (let at = 0; at < whole; at += 64) block(state, view(bytes, at, 64))
  const rest = bytes.length - whole
  const tail = new Uint8Array(rest < 56 ? 64 : 128)
  tail.set(bytes.subarray(whole))
  tail[rest] = 0x80
  const end = view(tail, 0, tail.length)
  end.setUint32(tail.length - 8, bytes.length / 0x20000000)
  end.setUint32(tail.length - 4, bytes.length << 3)
  for (let at = 0; at < tail.length; at += 64) block(state, view(tail, at, 64))
  const digest = new Uint8Array(32)
  state.forEach((word, i) => view(digest, 0, 32).setInt32(i * 4, word))
  return digest
}

const view = (bytes: Uint8Array, at: number, length: number): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset + at, length)

const words = new Int32Array(64)

function block(state: Int32Array, bytes: DataView): void {
  const w = (i: number): number => words[i] as number
  for (let i = 0; i < 16; i++) words[i] = bytes.getInt32(i * 4)
  for (let i = 16; i < 64; i++) {
    const s0 = turn(w(i - 15), 7) ^ turn(w(i - 15), 18) ^ (w(i - 15) >>> 3)
    const s1 = turn(w(i - 2), 17) ^ turn(w(i - 2), 19) ^ (w(i - 2) >>> 10)
    words[i] = w(i - 16) + s0 + w(i - 7) + s1
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  for (let i = 0; i < 64; i++) {
    const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (K[i] as number) + w(i)) | 0
    const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
    ;[h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0]
  }
  ;[a, b, c, d, e, f, g, h].forEach((x, i) => (state[i] = (state[i] as number) + x))
}
