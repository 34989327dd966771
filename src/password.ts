// Owns passwords: what makes one acceptable, and their Argon2id hashes, few at a time.
import { argon2, randomBytes } from 'node:crypto'
import { totalmem } from 'node:os'
import { promisify } from 'node:util'
import { constantTimeEqual } from 'oslo/crypto'
import { base64 } from 'oslo/encoding'
import { SyncError } from './errors.ts'
import { turns } from './turns.ts'

export interface Passwords {
  /** An Argon2id PHC string. Throws ERR05 when too many wait. */
  hash(password: string): Promise<string>
  /** Takes as long for a PHC string that is missing or empty as for a wrong password. */
  verify(password: string, phc: string | undefined): Promise<boolean>
}

// OWASP Password Storage Cheat Sheet, Argon2id: 19 MiB, two passes.
const COST = { memory: 19456, passes: 2, parallelism: 1, tagLength: 32 }
const SALT_BYTES = 16
// Each hash holds 19 MiB and a core; unbounded, a burst of logins starves everybody's file I/O.
const MAX_RUNNING = totalmem() > 2 * 1024 ** 3 ? 2 : 1
const MAX_WAITING = 16
const PHC = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([\w+/]+)\$([\w+/]+)$/
const MIN_CHARACTERS = 8
const MAX_CHARACTERS = 1024

const derive = promisify(argon2)

export const normalize = (password: string): string => password.normalize('NFKC')

/** Throws ACCT02 unless the normalised password may be set. */
export function check(password: string): void {
  const { length } = [...password]
  if (length < MIN_CHARACTERS || length > MAX_CHARACTERS) {
    throw unacceptable(`A password has ${MIN_CHARACTERS} to ${MAX_CHARACTERS} characters.`)
  }
}

export const unacceptable = (detail: string): SyncError => new SyncError('ACCT02', detail)

export function passwords(): Passwords {
  const inTurn = turns(MAX_RUNNING, MAX_WAITING)
  const decoy = `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${encode(randomBytes(SALT_BYTES))}$${encode(randomBytes(COST.tagLength))}`

  return {
    hash: (password) =>
      inTurn(async () => {
        const salt = randomBytes(SALT_BYTES)
        const tag = await derive('argon2id', { message: password, nonce: salt, ...COST })
        return `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${encode(salt)}$${encode(tag)}`
      }),
    verify: (password, phc) =>
      inTurn(async () => {
        const [, memory, passes, parallelism, salt, tag] = PHC.exec(phc || decoy) ?? []
        if (salt === undefined || tag === undefined) throw new Error('a stored password is no PHC')
        const expected = base64.decode(tag, { strict: false })
        const found = await derive('argon2id', {
          message: password,
          nonce: base64.decode(salt, { strict: false }),
          memory: Number(memory),
          passes: Number(passes),
          parallelism: Number(parallelism),
          tagLength: expected.length,
        })
        return constantTimeEqual(found, expected) && Boolean(phc)
      }),
  }
}

const encode = (bytes: Uint8Array): string => base64.encode(bytes, { includePadding: false })
