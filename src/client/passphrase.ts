// Owns the codec that makes values and meta unreadable to the server: AES-256-GCM under a key from a
// passphrase. The format is in the README, with a vector.
import { toBytes, utf8 } from './encoding.ts'
import { SyncError } from './errors.ts'
import type { Codec } from './types.ts'

const VERSION = 1
const NONCE_BYTES = 12
// What OWASP asks of PBKDF2-HMAC-SHA-256.
const ITERATIONS = 600_000

export interface PassphraseOptions {
  /** Different for each account, the same on all its devices, and no secret. */
  salt: string | Uint8Array
  /** 600,000 unless said. The same on all devices. */
  iterations?: number
}

/**
 * Encrypts all that a client stores. The passphrase cannot be changed afterwards, and nothing can be
 * read without it. Throws CODEC where WebCrypto is missing: on pages without https, in React Native.
 */
export function passphraseCodec(passphrase: string, o: PassphraseOptions): Codec {
  const { subtle } = (globalThis.crypto ?? {}) as Partial<Crypto>
  if (subtle === undefined) {
    throw new SyncError(
      'CODEC',
      'There is no WebCrypto here to encrypt with: serve the page over https (or from localhost).',
    )
  }
  // Derived once, when it is first needed: it takes a moment on purpose.
  let derived: ReturnType<typeof deriveKey> | undefined
  const key = (): ReturnType<typeof deriveKey> => (derived ??= deriveKey(subtle, passphrase, o))

  return {
    async encode(bytes, { kind }) {
      const iv = crypto.getRandomValues(new Uint8Array(NONCE_BYTES))
      const algorithm = { name: 'AES-GCM', iv, additionalData: additional(kind) }
      const sealed = new Uint8Array(await subtle.encrypt(algorithm, await key(), own(bytes)))
      const encoded = new Uint8Array(1 + NONCE_BYTES + sealed.length)
      encoded[0] = VERSION
      encoded.set(iv, 1)
      encoded.set(sealed, 1 + NONCE_BYTES)
      return encoded
    },
    async decode(bytes, { kind }) {
      if (bytes[0] !== VERSION) {
        throw new SyncError('CODEC', 'This was not encrypted by a codec of this version.')
      }
      const iv = own(bytes.subarray(1, 1 + NONCE_BYTES))
      const algorithm = { name: 'AES-GCM', iv, additionalData: additional(kind) }
      const sealed = own(bytes.subarray(1 + NONCE_BYTES))
      try {
        return new Uint8Array(await subtle.decrypt(algorithm, await key(), sealed))
      } catch (cause) {
        throw new SyncError('CODEC', 'Another passphrase, or it was tampered with.', { cause })
      }
    },
  }
}

async function deriveKey(
  subtle: Crypto['subtle'],
  passphrase: string,
  { salt, iterations = ITERATIONS }: PassphraseOptions,
) {
  // The same passphrase is typed as other code points on other keyboards.
  const secret = own(utf8(passphrase.normalize('NFKC')))
  const material = await subtle.importKey('raw', secret, 'PBKDF2', false, ['deriveKey'])
  return subtle.deriveKey(
    { name: 'PBKDF2', hash: 'SHA-256', salt: own(toBytes(salt)), iterations },
    material,
    { name: 'AES-GCM', length: 256 },
    false,
    ['encrypt', 'decrypt'],
  )
}

/** What was encrypted as meta is not taken for a value. */
const additional = (kind: string): Uint8Array<ArrayBuffer> => own(utf8(`sync-node/${kind}`))

const own = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => bytes as Uint8Array<ArrayBuffer>
