// Owns the thread that hashes passwords: one, where the system's pool would have each of its sixteen keep
// the memory of a hash, and files wait for their turn.
import { argon2Sync } from 'node:crypto'
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'

const NICE = 5

export interface HashJob {
  message: string
  nonce: Uint8Array
  /** KiB */
  memory: number
  passes: number
  parallelism: number
  tagLength: number
}

// On Linux this thread's alone: where cores are few, a flood of logins is not to slow all else down.
try {
  setPriority(NICE)
} catch {
  // A sandbox that refuses it: then it is a thread like the others.
}

parentPort?.on('message', (job: HashJob) => {
  parentPort?.postMessage(argon2Sync('argon2id', job))
})
