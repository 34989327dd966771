import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { openAccount } from './helpers/accounts.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'
import { expectNoStrayFile } from './helpers/rows.ts'

const HEADERS = ['Content-Digest', 'Repr-Digest']
// In the row, and in a file.
const SIZES = [0, 10, 50_000]

const sha256 = (value: Uint8Array): string =>
  `sha-256=:${createHash('sha256').update(value).digest('base64')}:`
const sha512 = (value: Uint8Array): string =>
  `sha-512=:${createHash('sha512').update(value).digest('base64')}:`

const UNKNOWN = 'md5=:1B2M2Y8AsgTpgAmY7PhCfg==:'

describe('Content-Digest and Repr-Digest of a PUT', () => {
  it('are taken when right, in either header, both algorithms or one', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    for (const size of SIZES) {
      const value = randomBytes(size)
      const one = sha256(value)
      const other = sha512(value)
      const members = [one, other, `${one}, ${other}`, `${other},${one}`, `${one};a=1`]
      const withUnknown = [UNKNOWN, `${UNKNOWN}, ${one}`, `${other}, unixsum=:AAA=:`]
      for (const digest of [...members, ...withUnknown]) {
        for (const name of HEADERS) {
          const written = await ana.put('a', value, { [name]: digest, 'X-Sync-Token': '*' })
          if (written.status === 412) await ana.save('a', value, { [name]: digest })
          else assert.equal(written.status, 204, `${name}: ${digest}`)
        }
      }
      const both = { 'Content-Digest': one, 'Repr-Digest': other, 'X-Sync-Token': '*' }
      await expectStatus(await ana.put('a', value, both), 204)
      assert.equal((await ana.get('a')).headers.get('repr-digest'), one)
    }
  })

  it('are refused when one of them is wrong, and nothing changes', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('a', 'as it was')
    for (const size of SIZES) {
      const value = randomBytes(size)
      const other = randomBytes(size + 1)
      for (const headers of [
        ...HEADERS.flatMap((name) => [
          { [name]: sha256(other) },
          { [name]: sha512(other) },
          { [name]: `${sha256(value)}, ${sha512(other)}` },
          { [name]: `${sha256(other)}, ${sha512(value)}` },
        ]),
        { 'Content-Digest': sha256(value), 'Repr-Digest': sha256(other) },
        { 'Content-Digest': sha512(other), 'Repr-Digest': sha256(value) },
      ] as Record<string, string>[]) {
        const why = JSON.stringify(headers)
        const changed = await ana.put('a', value, { ...headers, 'X-Sync-Token': token })
        assert.equal(changed.status, 400, why)
        await expectProblem(changed, 'REQ01')
        await expectProblem(await ana.put('new', value, headers), 'REQ01', 400)
      }
    }
    assert.equal((await ana.get('a')).headers.get('x-sync-token'), token)
    await expectProblem(await ana.get('new'), 'ERR01', 404)
    await expectNoStrayFile(node)
  })

  it('are refused when they cannot be read', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const right = sha256(Buffer.from('x')).slice('sha-256=:'.length, -1)
    for (const digest of [
      'nonsense',
      right,
      `sha-256=${right}`,
      `sha-256=:${right}`,
      `sha-256="${right}"`,
      `sha-256=:${right.slice(0, -4)}:`,
      `sha-256=:${right}AAAA:`,
      'sha-256=::',
      'sha-256=:!!!!:',
      'sha-256=',
      'sha-256',
      `=:${right}:`,
      `sha-512=:${right}:`,
      `sha-256=:${right}: nonsense`,
      `sha-256=:${right}: sha-512=:${right}:`,
    ]) {
      for (const name of HEADERS) {
        const refused = await ana.put('a', 'x', { [name]: digest })
        assert.equal(refused.status, 400, `${name}: ${digest}`)
        await expectProblem(refused, 'REQ01')
      }
    }
    await expectProblem(await ana.get('a'), 'ERR01', 404)
  })
})

describe('PUT of what is not the whole value as it is', () => {
  it('is REQ01: Content-Range, or a Content-Encoding but identity', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const refused: Record<string, string>[] = [
      { 'Content-Range': 'bytes 0-0/1' },
      { 'Content-Range': 'bytes */1' },
      { 'Content-Encoding': 'gzip' },
      { 'Content-Encoding': 'br' },
      { 'Content-Encoding': 'identity, gzip' },
    ]
    for (const headers of refused) {
      await expectProblem(await ana.put('a', 'x', headers), 'REQ01', 400)
    }
    await expectProblem(await ana.get('a'), 'ERR01', 404)
    await expectStatus(await ana.put('a', 'x', { 'Content-Encoding': 'identity' }), 201)
  })
})

describe('a lost answer', () => {
  it('is settled by the same PUT again: a refusal that shows its own digest and meta', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('old', 'before')
    for (const size of SIZES) {
      const value = randomBytes(size)
      for (const [key, condition, status] of [
        ['new', { 'If-None-Match': '*' }, 412],
        ['bare', {}, 428],
        ['old', { 'X-Sync-Token': token }, 412],
        ['old', { 'If-Match': `"${token}"` }, 412],
      ] as const) {
        const headers = { ...condition, 'X-Sync-Meta': `m${size}` }
        await ana.put(key, value, { 'X-Sync-Token': '*', 'X-Sync-Meta': `m${size}` })
        await ana.put(key, value, headers)
        const again = await ana.put(key, value, headers)
        assert.equal(again.headers.get('repr-digest'), sha256(value))
        assert.equal(again.headers.get('x-sync-meta'), `m${size}`)
        await expectProblem(again, 'KEY01', status)
      }
    }
  })

  it('shows another digest or meta when somebody else was faster', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('a', 'before')
    await ana.save('a', 'theirs', { 'X-Sync-Token': token, 'X-Sync-Meta': 'theirs' })
    const mine = await ana.put('a', 'mine', { 'X-Sync-Token': token, 'X-Sync-Meta': 'mine' })
    assert.notEqual(mine.headers.get('repr-digest'), sha256(Buffer.from('mine')))
    assert.equal(mine.headers.get('x-sync-meta'), 'theirs')
    await expectProblem(mine, 'KEY01', 412)
  })

  it('of a DELETE is settled by 404', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { token } = await ana.save('a', 'x')
    await expectStatus(await ana.delete('a', token), 204)
    await expectProblem(await ana.delete('a', token), 'ERR01', 404)
  })
})
