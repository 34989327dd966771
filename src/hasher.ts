// Owns the thread that hashes passwords: one, where the system's pool would have each of its sixteen keep
// the memory of a hash, and files wait for their turn.
import { argon2Sync } from 'node:crypto'
import { parentPort } from 'node:worker_threads'

export interface HashJob {
  message: string
  nonce: Uint8Array
  /** KiB */
  memory: number
  passes: number
  parallelism: number
  tagLength: number
}

parentPort?.on('message', (job: HashJob) => {
  parentPort?.postMessage(argon2Sync('argon2id', job))
})
