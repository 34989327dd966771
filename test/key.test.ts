import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { SyncError } from '../src/errors.ts'
import * as key from '../src/key.ts'
import { openAccount, openAccounts } from './helpers/accounts.ts'
import { encodeKey } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'
import { raw } from './helpers/raw.ts'

const ASTRAL = '😀'
const SALT = Buffer.alloc(32, 7)

const isRefused = (error: unknown): boolean => error instanceof SyncError && error.code === 'REQ01'
const refuses = (target: string, why = target): void =>
  assert.throws(() => key.parse(target), isRefused, why)

/** Every byte as %XX. */
const escapeBytes = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')

// What may be a key, by the protocol's words and not by the code's.
function isName(name: string): boolean {
  const points = [...name].map((character) => character.codePointAt(0) as number)
  return (
    points.length >= 1 &&
    points.length <= 8000 &&
    points.every((point) => point >= 0x20) &&
    name.split('/').every((segment) => !['', '.', '..'].includes(segment))
  )
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decode(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}

const anyText = fc.string({ unit: 'binary', maxLength: 40 })
const names = anyText.filter(isName)
const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 12 }),
  anyText.map((text) => Buffer.from(text)),
  // Close to what is refused: dots, slashes, controls, and cut or overlong UTF-8.
  fc
    .array(
      fc.constantFrom(0x2e, 0x2f, 0x25, 0x61, 0x1f, 0x7f, 0xc0, 0x80, 0xc3, 0xa9, 0xf0, 0x9f, 0x98),
      {
        maxLength: 6,
      },
    )
    .map((bytes) => Uint8Array.from(bytes)),
)

describe('key.parse', () => {
  it('percent-decodes once', () => {
    for (const [target, name] of [
      ['a', 'a'],
      ['a%62', 'ab'],
      ['%41', 'A'],
      ['%2541', '%41'],
      ['%252541', '%2541'],
      ['%25', '%'],
      ['a+b', 'a+b'],
      ['a%20b', 'a b'],
      ['a/b', 'a/b'],
      ['a%2Fb', 'a/b'],
      ['a%2fb', 'a/b'],
      ['%C3%A9', 'é'],
      ['%c3%a9', 'é'],
      ['%F0%9F%98%80', ASTRAL],
      ['%EF%BB%BFa', '\uFEFFa'],
      ['%7F', '\u007f'],
      ['%C2%85', '\u0085'],
      ['...', '...'],
      ['a/.b', 'a/.b'],
      ['%3F%23%5C', '?#\\'],
    ] as const) {
      assert.equal(key.parse(target), name, target)
    }
  })

  it('refuses what a proxy or a file system would read otherwise', () => {
    const badSegments = [
      '',
      '/',
      'a/',
      '/a',
      'a//b',
      '.',
      '..',
      'a/.',
      'a/..',
      './a',
      '../a',
      'a/../b',
    ]
    const escaped = ['%2e', '%2E%2e', 'a/%2e%2e/b', 'a%2F', '%2Fa', 'a%2F%2Fb', 'a%2f..', '.%2fa']
    for (const target of [...badSegments, ...escaped]) refuses(target, target)
  })

  it('refuses C0 controls', () => {
    for (let code = 0; code < 0x20; code++) refuses(`a${escapeBytes(Uint8Array.of(code))}b`)
  })

  it('refuses bad percent-encoding', () => {
    for (const target of ['%', 'a%', '%4', '%zz', '%4g', '%%41', 'a%4', '%u0041', '% 41']) {
      refuses(target, target)
    }
  })

  it('refuses bad UTF-8: cut, overlong, surrogates, beyond the last', () => {
    for (const target of [
      '%80',
      '%C3',
      '%C3a',
      '%C0%80',
      '%C0%AF',
      '%E0%80%AF',
      '%F0%80%80%AF',
      '%ED%A0%80',
      '%ED%A0%BD%ED%B8%80',
      '%F4%90%80%80',
      '%FF',
      '%FE%FF',
      '%E9',
    ]) {
      refuses(target, target)
      refuses(`a${target}/b`, target)
    }
  })

  it('counts code points, not units or bytes: 1 to 8000', () => {
    for (const character of ['a', 'é', ASTRAL]) {
      const most = character.repeat(8000)
      assert.equal(key.parse(encodeURIComponent(most)), most)
      refuses(encodeURIComponent(most + character))
    }
    refuses(encodeURIComponent(`${ASTRAL.repeat(8000)}a`))
    assert.equal([...key.parse(encodeURIComponent(`${ASTRAL.repeat(7999)}a`))].length, 8000)
  })

  it('gives back any name, however much of it is escaped', () => {
    fc.assert(
      fc.property(names, (name) => {
        assert.equal(key.parse(encodeURIComponent(name)), name)
        assert.equal(key.parse(encodeKey(name)), name)
        assert.equal(key.parse(escapeBytes(Buffer.from(name))), name)
      }),
      { numRuns: 2000 },
    )
  })

  it('decodes exactly once: what was escaped twice comes back escaped', () => {
    fc.assert(
      fc.property(names, (name) => {
        const once = encodeURIComponent(name)
        if (!isName(once)) return
        assert.equal(key.parse(encodeURIComponent(once)), once)
      }),
      { numRuns: 1000 },
    )
  })

  it('takes any bytes for just what they are, or refuses them', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const name = decode(bytes)
        const target = escapeBytes(bytes)
        if (name === undefined || !isName(name)) refuses(target)
        else assert.deepEqual(Buffer.from(key.parse(target)), Buffer.from(bytes))
      }),
      { numRuns: 5000 },
    )
  })
})

describe('key.toStoreKey', () => {
  it('is ~ and 43 base64url characters, the same each time, another in another account', () => {
    fc.assert(
      fc.property(names, (name) => {
        if (key.isStoreKey(name)) return
        const storeKey = key.toStoreKey(name, SALT)
        assert.match(storeKey, /^~[\w-]{43}$/)
        assert.ok(key.isStoreKey(storeKey))
        assert.equal(key.toStoreKey(name, SALT), storeKey)
        assert.notEqual(key.toStoreKey(name, Buffer.alloc(32, 8)), storeKey)
      }),
    )
  })

  it('differs for any two names that differ in a byte', () => {
    const similar = names.chain((name) =>
      fc.constantFrom(
        name.normalize('NFC'),
        name.normalize('NFD'),
        name.toUpperCase(),
        ` ${name}`,
        `${name}\u007f`,
      ),
    )
    fc.assert(
      fc.property(fc.tuple(names, fc.oneof(names, similar)), ([one, other]) => {
        if (key.isStoreKey(one) || key.isStoreKey(other)) return
        const isSame = Buffer.from(one).equals(Buffer.from(other))
        assert.equal(key.toStoreKey(one, SALT) === key.toStoreKey(other, SALT), isSame)
      }),
      { numRuns: 2000 },
    )
    assert.notEqual(key.toStoreKey('\u00e9', SALT), key.toStoreKey('e\u0301', SALT))
  })

  it('leaves a store key as it is, and nothing that is nearly one', () => {
    const storeKey = `~${'aB0_-'.repeat(9).slice(0, 43)}`
    assert.equal(key.toStoreKey(storeKey, SALT), storeKey)
    for (const near of [
      `${storeKey}a`,
      storeKey.slice(0, -1),
      storeKey.slice(1),
      `${storeKey}\n`,
      `${storeKey.slice(0, -1)}+`,
      `a/${storeKey}`,
    ]) {
      assert.equal(key.isStoreKey(near), false, near)
    }
  })
})

describe('a key in a path', () => {
  const BAD_TARGETS = [
    '/store/b/../a',
    '/store/./a',
    '/store//a',
    '/store/a/',
    '/store/',
    '/store/%2e%2e/store/a',
    '/store/b/%2E%2E/a',
    '/store/b%2F..%2Fa',
    '/store/a%00',
    '/store/a%0d%0aX:1',
    '/store/a%',
    '/store/%E9',
    '/store/a\\b',
    '/store/a#b',
    '/store/\u00e9',
    '/store/a?x',
  ]

  it('is the same with / and %2F, and escaped or not', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const { key: storeKey } = await ana.save('notes/todo', 'x')
    for (const path of [
      'notes/todo',
      'notes%2Ftodo',
      'notes%2ftodo',
      '%6eotes/tod%6F',
      storeKey,
      storeKey.replace('~', '%7E'),
    ]) {
      const read = await expectStatus(await ana.request(`/store/${path}`), 200)
      assert.equal(read.headers.get('x-sync-key'), storeKey)
      await expectStatus(await ana.request(`/permission/${path}`), 200)
    }
    assert.equal((await ana.list()).length, 1)
  })

  it('is compared as bytes: NFC, NFD, case, escapes and blanks differ', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const different = [
      '\u00e9',
      'e\u0301',
      'E\u0301',
      'é ',
      'a+b',
      'a b',
      'a%20b',
      'a%2Fb',
      'a/b',
      'K',
      '\u212a',
      '\uFEFFa',
      'a',
      'A',
      '...',
      ASTRAL,
    ]
    for (const name of different) await ana.save(name, name)
    for (const name of different) {
      // text() would take the byte order mark away.
      const value = Buffer.from(await (await ana.get(name)).arrayBuffer())
      assert.deepEqual(value, Buffer.from(name))
    }
    assert.equal((await ana.list()).length, different.length)
  })

  it('is read from the raw target: no segment is folded, no escape lost', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await ana.save('a', 'x')
    const auth = `Authorization: ${ana.headers['Authorization']}`
    for (const target of BAD_TARGETS) {
      for (const method of ['GET', 'PUT', 'DELETE']) {
        const answer = await raw(t, node, [
          `${method} ${target} HTTP/1.1`,
          auth,
          'Content-Length: 0',
        ])
        assert.equal(answer.status, 400, `${method} ${target}`)
        await expectProblem(answer, 'REQ01', 400)
      }
    }
    assert.equal((await ana.list()).length, 1)
  })

  it('has at most 8000 characters', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    await ana.save('k'.repeat(8000), 'x')
    await expectProblem(await ana.put('k'.repeat(8001), 'x'), 'REQ01', 400)
    await expectProblem(await ana.get('k'.repeat(8001)), 'REQ01', 400)
  })

  it('may be used by two accounts without their meeting', async (t) => {
    const node = await startNode(t)
    const [ana, ben] = await openAccounts(node, ['ana', 'ben'])
    const anas = await ana.save('notes', "ana's")
    const bens = await ben.save('notes', "ben's")
    assert.notEqual(anas.key, bens.key)
    assert.equal(await (await ana.get('notes')).text(), "ana's")
    assert.equal(await (await ben.get('notes')).text(), "ben's")
    await expectProblem(await ana.get(bens.key), 'ERR01', 404)
    await expectStatus(await ana.delete('notes', anas.token), 204)
    assert.equal(await (await ben.get('notes')).text(), "ben's")
  })

  it('that is a store key of nothing does not exist, for creating either', async (t) => {
    const node = await startNode(t)
    const ana = await openAccount(node, 'ana')
    const free = `~${'x'.repeat(43)}`
    for (const headers of [{}, { 'If-None-Match': '*' }, { 'X-Sync-Token': '*' }] as Record<
      string,
      string
    >[]) {
      await expectProblem(await ana.put(free, 'x', headers), 'ERR01', 404)
    }
    await expectProblem(await ana.get(free), 'ERR01', 404)
    await expectProblem(await ana.delete(free, '*'), 'ERR01', 404)
    const { key: storeKey, token } = await ana.save('a', 'x')
    await expectStatus(await ana.delete(storeKey, token), 204)
    await expectProblem(await ana.put(storeKey, 'x'), 'ERR01', 404)
    // Nearly a store key is a name like any other.
    await ana.save(`~${'x'.repeat(42)}`, 'x')
    await ana.save(`~${'x'.repeat(44)}`, 'x')
  })
})
