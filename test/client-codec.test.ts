import assert from 'node:assert/strict'
import { createDecipheriv, createHash, pbkdf2Sync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { connect, passphraseCodec } from '../src/client/client.ts'
import { reprDigest, sha256 } from '../src/client/digest.ts'
import { base64, base64url, fromBase64, utf8 } from '../src/client/encoding.ts'
import { decodeMeta, encodeMeta, identity } from '../src/client/meta.ts'
import { PASSWORD, startNode } from './helpers/node.ts'

// These three stand in the README, for clients in other languages.
const VECTOR = {
  passphrase: 'correct horse battery staple',
  salt: 'notes/ana',
  iterations: 600_000,
  value: 'buy milk',
  encoded: 'AQABAgMEBQYHCAkKC4xJrx3dSGsFTkpBlTXbhkhexNnQW356Xw',
}
const META = 'eyJuYW1lIjoibm90ZXMvdG9kbyIsImNvbG9yIjoicmVkIiwidyI6IkFCQ0QifQ'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const bytes = fc.uint8Array({ maxLength: 300 })

describe('The client: passphraseCodec', () => {
  it('reads what the README says that it writes', async () => {
    const { passphrase, salt, iterations, value, encoded } = VECTOR
    for (const text of [passphrase, salt, encoded, META]) assert.ok(readme.includes(text), text)
    const codec = passphraseCodec(passphrase, { salt })
    assert.equal(iterations, 600_000)
    const decoded = await codec.decode(fromBase64(encoded), { kind: 'value' })
    assert.equal(new TextDecoder().decode(decoded), value)
    await assert.rejects(
      async () => codec.decode(fromBase64(encoded), { kind: 'meta' }),
      { code: 'CODEC' },
      'a value is no meta',
    )
  })

  it('writes what any other AES-GCM can read', async () => {
    const { passphrase, salt, iterations, value } = VECTOR
    const codec = passphraseCodec(passphrase, { salt })
    for (const kind of ['value', 'meta'] as const) {
      const encoded = Buffer.from(await codec.encode(utf8(value), { kind }))
      const key = pbkdf2Sync(passphrase, salt, iterations, 32, 'sha256')
      const decipher = createDecipheriv('aes-256-gcm', key, encoded.subarray(1, 13))
      decipher.setAAD(Buffer.from(`sync-node/${kind}`)).setAuthTag(encoded.subarray(-16))
      const plain = [decipher.update(encoded.subarray(13, -16)), decipher.final()]
      assert.equal(Buffer.concat(plain).toString(), value)
    }
  })

  it('reads back what it wrote, and nothing that was changed', async () => {
    const codec = passphraseCodec('pass', { salt: 'salt', iterations: 1 })
    const other = passphraseCodec('pass', { salt: 'salt', iterations: 2 })
    await fc.assert(
      fc.asyncProperty(bytes, fc.nat(), async (plain, at) => {
        const encoded = await codec.encode(plain, { kind: 'value' })
        assert.deepEqual(await codec.decode(encoded, { kind: 'value' }), plain)
        assert.equal(encoded.length, plain.length + 29)
        const changed = encoded.slice()
        changed[at % changed.length] = (changed[at % changed.length] as number) ^ 1
        for (const [reader, wrong] of [
          [codec, changed],
          [codec, encoded.subarray(0, 20)],
          [other, encoded],
        ] as const) {
          await assert.rejects(async () => reader.decode(wrong, { kind: 'value' }), {
            code: 'CODEC',
          })
        }
      }),
      { numRuns: 50 },
    )
  })

  it('takes a passphrase for the same however it is typed', async () => {
    const [one, two] = ['pâté', 'pa\u0302te\u0301'].map((typed) =>
      passphraseCodec(typed, { salt: 's', iterations: 1 }),
    )
    const encoded = await one?.encode(utf8('x'), { kind: 'meta' })
    assert.deepEqual(await two?.decode(encoded as Uint8Array, { kind: 'meta' }), utf8('x'))
  })

  it('lets the server see neither values nor names', async (t) => {
    const node = await startNode(t)
    const codec = passphraseCodec('secret', { salt: 'ana', iterations: 1 })
    const client = connect({ url: node.url, codec })
    await client.register({ id: 'ana', password: PASSWORD })
    await client.store('diary').put('dear diary', { meta: { mood: 'fine' } })
    await client.batch([{ put: 'second', value: 'dear diary' }])
    const { stores } = await client.list()
    assert.deepEqual(new Set(stores.map(({ name }) => name)), new Set(['diary', 'second']))
    const plain = connect({ url: node.url, token: client.token })
    for (const { key, meta } of stores) {
      const seen = await plain.store(key).get()
      assert.doesNotMatch(Buffer.from(seen?.value ?? []).toString('latin1'), /dear/)
      assert.doesNotMatch(Buffer.from(meta ?? '', 'base64url').toString('latin1'), /name|diary/)
      assert.equal(seen?.meta, null)
    }
    const wrong = connect({
      url: node.url,
      token: client.token,
      codec: passphraseCodec('guess', { salt: 'ana', iterations: 1 }),
    })
    assert.equal((await wrong.list()).stores[0]?.name, undefined)
    await assert.rejects(wrong.store('diary').get(), { code: 'CODEC' })
    await assert.rejects(
      wrong.store('diary').update(() => 'gone'),
      { code: 'CODEC' },
    )
  })
})

describe('The client without WebCrypto', () => {
  it('stores values all the same, and says that it cannot encrypt', async (t) => {
    const node = await startNode(t)
    const client = connect({ url: node.url })
    await client.register({ id: 'ana', password: PASSWORD })
    for (const crypto of [undefined, {}]) {
      const original = Object.getOwnPropertyDescriptor(globalThis, 'crypto') as PropertyDescriptor
      Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true })
      try {
        assert.throws(() => passphraseCodec('a', { salt: 'b' }), {
          code: 'CODEC',
          message: /https/,
        })
        assert.equal(
          await reprDigest(utf8('abc')),
          `sha-256=:${createHash('sha256').update('abc').digest('base64')}:`,
        )
        await client.store('a').put('plain', { token: crypto === undefined ? null : '*' })
      } finally {
        Object.defineProperty(globalThis, 'crypto', original)
      }
    }
    assert.equal((await client.list()).stores[0]?.name, 'a')
  })

  it('has a SHA-256 that is one', () => {
    for (const length of [...Array.from({ length: 200 }, (_, i) => i), 1_000_003]) {
      const value = randomBytes(length)
      const expected = createHash('sha256').update(value).digest()
      assert.deepEqual(Buffer.from(sha256(value)), expected, `${length} bytes`)
    }
  })
})

describe('The client: encodings', () => {
  it('are those that everybody else has', () => {
    fc.assert(
      fc.property(bytes, (value) => {
        const buffer = Buffer.from(value)
        assert.equal(base64(value), buffer.toString('base64'))
        assert.equal(base64url(value), buffer.toString('base64url'))
        assert.deepEqual(fromBase64(base64(value)), value)
        assert.deepEqual(fromBase64(base64url(value)), value)
      }),
    )
    assert.throws(() => fromBase64('a b='))
  })

  it('has meta as the README says, and ignores what is none', async () => {
    const meta = { color: 'red', name: 'notes/todo' }
    assert.equal(await encodeMeta(identity, meta, 'ABCD'), META)
    assert.deepEqual(await decodeMeta(identity, META), {
      meta: { name: 'notes/todo', color: 'red' },
      write: 'ABCD',
    })
    for (const other of ['', 'm 1', '{}', 'bnVsbA', 'W10', '////']) {
      assert.equal(await decodeMeta(identity, other), null, other)
    }
  })
})
