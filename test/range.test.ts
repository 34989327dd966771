import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { openAccount } from './helpers/accounts.ts'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'

// In the row, on its edge, in a file, and in a file that takes several reads.
const SIZES = [100, 16_384, 16_385, 200_000]

type Part = readonly [start: number, end: number]

interface Saved {
  key: string
  value: Buffer
  token: string
}

async function startWithValues(t: TestContext, sizes = SIZES) {
  const node = await startNode(t)
  const ana = await openAccount(node, 'ana')
  const stores: Saved[] = []
  for (const size of sizes) {
    const value = randomBytes(size)
    const { token } = await ana.save(`v${size}`, value, { 'X-Sync-Meta': 'm' })
    stores.push({ key: `v${size}`, value, token })
  }
  return { ana, stores }
}

const bytesOf = async (response: Response): Promise<Buffer> =>
  Buffer.from(await response.arrayBuffer())

/** The answer is these bytes, and says which of how many. */
async function expectPart(
  response: Response,
  { value, token }: Saved,
  [start, end]: Part,
): Promise<void> {
  assert.equal(response.status, 206)
  const { headers } = response
  assert.equal(headers.get('content-range'), `bytes ${start}-${end}/${value.length}`)
  assert.equal(headers.get('content-length'), String(end - start + 1))
  assert.equal(headers.get('accept-ranges'), 'bytes')
  assert.equal(headers.get('x-sync-token'), token)
  assert.equal(headers.get('etag'), `"${token}"`)
  assert.equal(headers.get('x-sync-meta'), 'm')
  assert.equal(
    headers.get('repr-digest'),
    `sha-256=:${createHash('sha256').update(value).digest('base64')}:`,
  )
  assert.deepEqual(await bytesOf(response), value.subarray(start, end + 1))
}

async function expectWhole(
  response: Response,
  { value }: Saved,
  why = 'the answer',
): Promise<void> {
  assert.equal(response.status, 200, why)
  assert.equal(response.headers.get('content-range'), null, why)
  assert.equal(response.headers.get('content-length'), String(value.length), why)
  assert.deepEqual(await bytesOf(response), value, why)
}

async function expectOutside(
  response: Response,
  { value }: Saved,
  why = 'the answer',
): Promise<void> {
  assert.equal(response.headers.get('content-range'), `bytes */${value.length}`, why)
  await expectProblem(response, 'REQ01', 416)
}

const ranged = (self: Client, { key }: Saved, range: string, more = {}): Promise<Response> =>
  self.get(key, { Range: range, ...more })

describe('one range of a value', () => {
  it('is 206 with just these bytes', async (t) => {
    const { ana, stores } = await startWithValues(t)
    for (const saved of stores) {
      const last = saved.value.length - 1
      for (const [range, part] of [
        ['bytes=0-0', [0, 0]],
        ['bytes=0-9', [0, 9]],
        ['bytes=10-20', [10, 20]],
        [`bytes=${last}-${last}`, [last, last]],
        [`bytes=0-${last}`, [0, last]],
        ['bytes=0-', [0, last]],
        ['bytes=7-', [7, last]],
        [`bytes=${last}-`, [last, last]],
        ['bytes=-1', [last, last]],
        ['bytes=-10', [last - 9, last]],
        [`bytes=-${last + 1}`, [0, last]],
        ['bytes=-99999999999999999999', [0, last]],
        ['bytes=5-99999999999999999999', [5, last]],
        ['Bytes=0-1', [0, 1]],
      ] as [string, Part][]) {
        await expectPart(await ranged(ana, saved, range), saved, part)
      }
    }
  })

  it('outside the value is 416, and says how large that is', async (t) => {
    const { ana, stores } = await startWithValues(t)
    for (const saved of stores) {
      const { length } = saved.value
      for (const range of [
        `bytes=${length}-`,
        `bytes=${length}-${length + 5}`,
        'bytes=99999999999999999999-',
        'bytes=-0',
      ]) {
        await expectOutside(await ranged(ana, saved, range), saved, range)
      }
    }
  })

  it('is the whole value when it is several, or nonsense', async (t) => {
    const { ana, stores } = await startWithValues(t)
    for (const saved of stores) {
      for (const range of [
        'bytes=0-1,3-4',
        'bytes=0-1, 3-4',
        'bytes=0-1,',
        'bytes=5-2',
        'bytes=',
        'bytes=-',
        'bytes=--5',
        'bytes=0-1-2',
        'bytes=a-b',
        'bytes=1.5-2',
        'bytes=0x0-0x1',
        'bytes=+0-1',
        'bytes 0-1',
        'bytes:0-1',
        '0-1',
        'items=0-1',
        'bytes',
      ]) {
        await expectWhole(await ranged(ana, saved, range), saved, range)
      }
    }
  })

  it('of any kind joins with the rest to the whole', async (t) => {
    const { ana, stores } = await startWithValues(t, [100, 200_000])
    const split = fc.tuple(fc.constantFrom(...stores), fc.double({ min: 0, max: 1, noNaN: true }))
    await fc.assert(
      fc.asyncProperty(split, async ([saved, share]) => {
        const last = saved.value.length - 1
        const at = Math.max(1, Math.min(last, Math.floor(share * last)))
        const head = await bytesOf(await ranged(ana, saved, `bytes=0-${at - 1}`))
        const tail = await bytesOf(await ranged(ana, saved, `bytes=${at}-`))
        const suffix = await bytesOf(await ranged(ana, saved, `bytes=-${tail.length}`))
        assert.deepEqual(Buffer.concat([head, tail]), saved.value)
        assert.deepEqual(suffix, tail)
      }),
      { numRuns: 25 },
    )
  })

  it('is not for HEAD', async (t) => {
    const { ana, stores } = await startWithValues(t)
    for (const { key, value } of stores) {
      for (const range of ['bytes=0-0', 'bytes=999999-']) {
        const head = await ana.request(`/store/${key}`, {
          method: 'HEAD',
          headers: { Range: range },
        })
        assert.equal(head.status, 200)
        assert.equal(head.headers.get('content-length'), String(value.length))
        assert.equal(head.headers.get('content-range'), null)
      }
    }
  })
})

describe('If-Range', () => {
  it('counts only when it is exactly the strong tag', async (t) => {
    const { ana, stores } = await startWithValues(t, [100, 20_000])
    for (const saved of stores) {
      const { token } = saved
      const exact = await ranged(ana, saved, 'bytes=1-2', { 'If-Range': `"${token}"` })
      await expectPart(exact, saved, [1, 2])
      for (const tag of [
        `W/"${token}"`,
        `"${token}-gzip"`,
        `"${token}-br"`,
        `"${token};gzip"`,
        token,
        `"x", "${token}"`,
        '"0123456789abcdefghijklmnop"',
        '*',
        new Date(Date.now() + 86_400_000).toUTCString(),
      ]) {
        const answer = await ranged(ana, saved, 'bytes=1-2', { 'If-Range': tag })
        await expectWhole(answer, saved, tag)
        await expectWhole(
          await ranged(ana, saved, 'bytes=999999-', { 'If-Range': tag }),
          saved,
          tag,
        )
      }
    }
  })

  it('of an older version gives the whole new one', async (t) => {
    const { ana, stores } = await startWithValues(t, [100, 20_000])
    for (const { key, token } of stores) {
      const value = randomBytes(30_000)
      const next = await ana.save(key, value, { 'X-Sync-Token': token })
      const answer = await ana.get(key, { Range: 'bytes=1-2', 'If-Range': `"${token}"` })
      assert.equal(answer.headers.get('x-sync-token'), next.token)
      await expectWhole(answer, { key, value, token: next.token })
    }
  })

  it('without Range, and a tag that is right with a range outside', async (t) => {
    const { ana, stores } = await startWithValues(t, [100, 20_000])
    for (const saved of stores) {
      const tag = { 'If-Range': `"${saved.token}"` }
      await expectWhole(await ana.get(saved.key, tag), saved)
      await expectOutside(await ranged(ana, saved, 'bytes=999999-', tag), saved)
    }
  })
})

describe('a range beside other conditions', () => {
  it('comes after them', async (t) => {
    const { ana, stores } = await startWithValues(t, [100, 20_000])
    for (const saved of stores) {
      const current = `"${saved.token}"`
      for (const range of ['bytes=0-1', 'bytes=999999-']) {
        const same = await ranged(ana, saved, range, { 'If-None-Match': current })
        await expectStatus(same, 304)
        const stale = await ranged(ana, saved, range, { 'If-Match': '"other"' })
        await expectProblem(stale, 'KEY01', 412)
      }
      const both = { 'If-Match': current, 'If-None-Match': '"other"' }
      await expectPart(await ranged(ana, saved, 'bytes=0-1', both), saved, [0, 1])
    }
  })
})

describe('a range of nothing', () => {
  it('is 416 for every byte of it; the whole is 200', async (t) => {
    const { ana, stores } = await startWithValues(t, [0])
    const [saved] = stores as [Saved]
    await expectWhole(await ana.get(saved.key), saved)
    await expectWhole(await ranged(ana, saved, 'bytes=0-1,2-3'), saved)
    for (const range of ['bytes=0-', 'bytes=0-0', 'bytes=1-', 'bytes=-0', 'bytes=-5']) {
      await expectOutside(await ranged(ana, saved, range), saved, range)
    }
  })
})
