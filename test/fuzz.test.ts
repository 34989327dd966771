// Proves, shortly, that nobody brings the server down, or gets at what is not theirs, by whatever bytes:
// `make fuzz` is the long proof.
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { buildClient } from '../scripts/client.ts'
import { buildPage } from '../scripts/web.ts'
import { NotHttp, readAnswer } from './fuzz/answers.ts'
import { run, toTable, type Fuzzing } from './fuzz/fuzz.ts'
import { skip } from './fuzz/slow.ts'
import { PROGRAM } from './proof/recording.ts'
import { EXECUTABLE } from './helpers/executable.ts'

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
const MOST_MS = 200_000
const NONE: Fuzzing = {
  seed: SEED,
  requests: 0,
  uploads: 0,
  pipelined: 0,
  quietSeconds: 0,
  slow: null,
  restMs: 0,
  mostMs: MOST_MS,
}

// From source these are on the disk.
before(async () => {
  if (PROGRAM !== EXECUTABLE) await Promise.all([buildPage(), buildClient({ isQuiet: true })])
})

describe(`Hostile traffic (SEED=${SEED})`, { concurrency: true }, () => {
  it('is answered as the document says, and changes nothing of others', async (t) => {
    const figures = await run({ ...NONE, requests: 4000, quietSeconds: 0.5 })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
    assert.ok(figures.played.answered > 2000 && figures.played.loose > 300)
  })

  it('that breaks off in an upload leaves no file behind, and no half of a value', async (t) => {
    const figures = await run({ ...NONE, uploads: 200 })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
  })

  it('that asks in a row and reads nothing is hung up on', async (t) => {
    const figures = await run({ ...NONE, pipelined: 20_000 })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
  })

  it('that is slow keeps nobody else waiting for ever', { skip }, async (t) => {
    const ways = ['headers', 'bodies', 'reads'] as const
    const slow = { connections: 200, seconds: 2, ways: [...ways] }
    const figures = await run({ ...NONE, slow, quietSeconds: 0.5 })
    for (const line of toTable(figures).split('\n')) t.diagnostic(line)
    assert.deepEqual(figures.problems, [])
    assert.ok(figures.slow.every(({ besideMs }) => besideMs.length > 10))
  })
})

describe('What counts as an answer', () => {
  it('is HTTP to the letter', () => {
    const read = (text: string) => readAnswer(Buffer.from(text, 'latin1'), false)
    assert.equal(read('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na')?.length, 39)
    assert.equal(read('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na'), null)
    const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
    assert.equal(read(`${chunked}1\r\na\r\n0\r\n\r\n`)?.answer.body.toString(), 'a')
    for (const wrong of [
      'HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na',
      'HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\na',
      'HTTP/1.1 200 OK\r\n\r\na',
      'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na',
      'HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na',
      'HTTP/1.1 200 OK\r\nX: a\nb\r\nContent-Length: 1\r\n\r\na',
      `${chunked}x\r\n`,
      `${chunked}1\r\nab\r\n`,
    ]) {
      assert.throws(() => read(wrong), NotHttp, wrong)
    }
  })
})
