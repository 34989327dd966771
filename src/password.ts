// Owns passwords: what makes one acceptable, and their Argon2id hashes, few at a time.
import { randomBytes } from 'node:crypto'
import { availableParallelism, totalmem } from 'node:os'
import type { Worker } from 'node:worker_threads'
import { constantTimeEqual } from 'oslo/crypto'
import { base64 } from 'oslo/encoding'
import { SyncError } from './errors.ts'
import type { HashJob } from './hasher.ts'
import { startWorker } from './packed.ts'
import { turns } from './turns.ts'

export interface Passwords {
  /** An Argon2id PHC string. The lower its `rank`, the sooner; throws ERR05 when too many wait. */
  hash(password: string, rank?: number): Promise<string>
  /** Takes as long for a PHC string that is missing or empty as for a wrong password. */
  verify(password: string, phc: string | undefined, rank?: number): Promise<boolean>
}

// OWASP Password Storage Cheat Sheet, Argon2id: 19 MiB, two passes.
const COST = { memory: 19456, passes: 2, parallelism: 1, tagLength: 32 }
const SALT_BYTES = 16
// Each hash holds 19 MiB and a core, and one core is for all else.
const MAX_RUNNING = Math.max(
  1,
  Math.min(totalmem() > 2 * 1024 ** 3 ? 2 : 1, availableParallelism() - 1),
)
const MAX_AT_ONCE = 18
const PHC = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([\w+/]+)\$([\w+/]+)$/
const MIN_CHARACTERS = 8
const MAX_CHARACTERS = 1024

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
  const inTurn = turns(MAX_RUNNING, MAX_AT_ONCE - MAX_RUNNING)
  const decoy = `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${encode(randomBytes(SALT_BYTES))}$${encode(randomBytes(COST.tagLength))}`

  return {
    hash: (password, rank) =>
      inTurn(async () => {
        const salt = randomBytes(SALT_BYTES)
        const tag = await derive({ message: password, nonce: salt, ...COST })
        return `$argon2id$v=19$m=${COST.memory},t=${COST.passes},p=${COST.parallelism}$${encode(salt)}$${encode(tag)}`
      }, rank),
    verify: (password, phc, rank) =>
      inTurn(async () => {
        const [, memory, passes, parallelism, salt, tag] = PHC.exec(phc || decoy) ?? []
        if (salt === undefined || tag === undefined) throw new Error('a stored password is no PHC')
        const expected = base64.decode(tag, { strict: false })
        const found = await derive({
          message: password,
          nonce: base64.decode(salt, { strict: false }),
          memory: Number(memory),
          passes: Number(passes),
          parallelism: Number(parallelism),
          tagLength: expected.length,
        })
        return constantTimeEqual(found, expected) && Boolean(phc)
      }, rank),
  }
}

/** The threads of this process that hash nothing now; as many as ever ran at once. */
const idle: Worker[] = []

async function derive(job: HashJob): Promise<Uint8Array> {
  const worker = idle.pop() ?? startWorker('hasher', null)
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
  worker.ref()
  worker.once('message', resolve).once('error', reject)
  worker.postMessage(job)
  const tag = await promise
  worker.off('error', reject)
  worker.unref() // no process stays for it
  idle.push(worker)
  return tag
}

const encode = (bytes: Uint8Array): string => base64.encode(bytes, { includePadding: false })
