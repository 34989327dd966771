// Owns the proof that the client, as it is built, runs where its users are; browsers have their own tests.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { IN_BUN } from './helpers/executable.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'

const path = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url))
const isX64 = process.arch === 'x64'

const RUNTIMES = [
  { name: 'the Node of this machine, whatever its version', command: ['node'], skip: false },
  { name: 'Node 26', command: [process.execPath], skip: false },
  { name: 'Bun', command: [IN_BUN[0] as string], skip: !isX64 },
  {
    name: 'Deno',
    command: [path('node_modules/@deno/linux-x64-glibc/deno'), 'run', '--quiet', '-A'],
    skip: !isX64,
  },
]

describe('The client as it is built', () => {
  for (const { name, command, skip } of RUNTIMES) {
    const why = skip ? `NOT TESTED with ${name}: its package here is for x64 alone` : false
    it(
      `encrypts, settles conflicts, follows changes and keeps a replica in ${name}`,
      { skip: why },
      async (t) => {
        const node = await startNode(t)
        const folder = temporaryFolder(t)
        const [program = '', ...options] = command
        const args = [...options, path('test/runtimes/tour.js'), node.url, join(folder, 'notes')]
        const environment = { PATH: process.env['PATH'], HOME: folder, NO_COLOR: '1' }
        const { stderr } = await promisify(execFile)(program, args, {
          env: environment,
          timeout: 60_000,
        })
        assert.equal(stderr, '')
      },
    )
  }
})
