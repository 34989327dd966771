// Owns that the table of ASVS 5.0 in asvs.md is whole and true: every requirement of levels 1 and 2 has its
// line, every test that is named is there; and proves what no other test does.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { SMTPServer } from 'smtp-server'
import { routes } from '../src/http/app.ts'
import { count } from './helpers/ask.ts'
import { eventually } from './helpers/eventually.ts'
import { encodeKey } from './helpers/client.ts'
import { expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'
import { startReal } from './helpers/real.ts'

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')

// OWASP Application Security Verification Standard 5.0.0: the requirements of each section, by level.
const LEVEL_1 = `
  1.2: 1 2 3 4 5 | 1.3: 1 2 | 1.5: 1 | 2.1: 1 | 2.2: 1 2 | 2.3: 1 | 3.2: 1 2 | 3.3: 1 | 3.4: 1 2 | 3.5: 1 2 3
  4.1: 1 | 4.4: 1 | 5.2: 1 2 | 5.3: 1 2 | 6.1: 1 | 6.2: 1 2 3 4 5 6 7 8 | 6.3: 1 2 | 6.4: 1 2 | 7.2: 1 2 3 4
  7.4: 1 2 | 8.1: 1 | 8.2: 1 2 | 8.3: 1 | 9.1: 1 2 3 | 9.2: 1 | 10.4: 1 2 3 4 5 | 11.3: 1 2 | 11.4: 1
  12.1: 1 | 12.2: 1 2 | 13.4: 1 | 14.2: 1 | 14.3: 1 | 15.1: 1 | 15.2: 1 | 15.3: 1`
const LEVEL_2 = `
  1.1: 1 2 | 1.2: 6 7 8 9 | 1.3: 3 4 5 6 7 8 9 10 11 | 1.4: 1 2 3 | 1.5: 2 | 2.1: 2 3 | 2.2: 3 | 2.3: 2 3 4
  2.4: 1 | 3.3: 2 3 4 | 3.4: 3 4 5 6 | 3.5: 4 5 | 3.7: 1 2 | 4.1: 2 3 | 4.2: 1 | 4.3: 1 2 | 4.4: 2 3 4
  5.1: 1 | 5.2: 3 | 5.4: 1 2 3 | 6.1: 2 3 | 6.2: 9 10 11 12 | 6.3: 3 4 | 6.4: 3 4 | 6.5: 1 2 3 4 5
  6.6: 1 2 3 | 6.8: 1 2 3 4 | 7.1: 1 2 3 | 7.3: 1 2 | 7.4: 3 4 5 | 7.5: 1 2 | 7.6: 1 2 | 8.1: 2 | 8.2: 3
  8.4: 1 | 9.2: 2 3 4 | 10.1: 1 2 | 10.2: 1 2 | 10.3: 1 2 3 4 | 10.4: 6 7 8 9 10 11 | 10.5: 1 2 3 4 5
  10.6: 1 2 | 10.7: 1 2 3 | 11.1: 1 2 | 11.2: 1 2 3 | 11.3: 3 | 11.4: 2 3 4 | 11.5: 1 | 11.6: 1 | 12.1: 2 3
  12.3: 1 2 3 4 | 13.1: 1 | 13.2: 1 2 3 4 5 | 13.3: 1 2 | 13.4: 2 3 4 5 | 14.1: 1 2 | 14.2: 2 3 4 | 14.3: 2 3
  15.1: 2 3 | 15.2: 2 3 | 15.3: 2 3 4 5 6 7 | 16.1: 1 | 16.2: 1 2 3 4 5 | 16.3: 1 2 3 4 | 16.4: 1 2 3
  16.5: 1 2 3 | 17.1: 1 | 17.2: 1 2 3 4 | 17.3: 1 2`
/** Of level 3, what this server holds itself to. */
const LEVEL_3 = '4.1: 4 | 5.2: 4 | 6.3: 8 | 6.4: 6 | 8.3: 2 | 15.2: 5 | 15.4: 2 4 | 16.5: 4'

const idsOf = (level: string): string[] =>
  [...level.matchAll(/(\d+\.\d+): ([\d ]+)/g)].flatMap(([, section, numbers = '']) =>
    numbers
      .trim()
      .split(' ')
      .map((number) => `${section}.${number}`),
  )

interface Line {
  id: string
  level: string
  shown: string[]
}

const table = read('test/asvs.md')
const lines: Line[] = [...table.matchAll(/^\| v5\.0\.0-(\S+) \| (\d) \| [^|]+ \| (.+) \|$/gm)].map(
  ([, id = '', level = '', shown = '']) => ({ id, level, shown: shown.split('<br>') }),
)

/** Each test of a file by the words of its describe and its own, as they stand in the code. */
function testsIn(file: string): string[] {
  const path = `test/${file}.test.ts`
  if (!existsSync(new URL(`../${path}`, import.meta.url))) return []
  let group = ''
  const found: string[] = []
  const calls = read(path).matchAll(/^\s*(describe|it)\(\s*(['"`])((?:\\.|(?!\2)[^\\])*)\2/gm)
  for (const [, kind, , words] of calls) {
    if (kind === 'describe') group = words as string
    else found.push(`${group} ${words}`)
  }
  return found
}

describe('The table of ASVS 5.0', () => {
  it('has every requirement of levels 1 and 2 once, and those of level 3 that are promised', () => {
    const levels = [LEVEL_1, LEVEL_2, LEVEL_3].map(idsOf)
    assert.deepEqual(
      levels.map((ids) => ids.length),
      [70, 183, 9],
    )
    for (const [i, ids] of levels.entries()) {
      const found = lines.filter(({ level }) => level === String(i + 1)).map(({ id }) => id)
      assert.deepEqual(found.toSorted(), ids.toSorted(), `level ${i + 1}`)
    }
    assert.equal(table.match(/^\| v5/gm)?.length, lines.length, 'each line is understood')
  })

  it('names tests and texts that are there', () => {
    const missing = lines.flatMap(({ id, shown }) =>
      shown
        .filter((one) => {
          const [kind = '', ...rest] = one.split(': ')
          const what = rest.join(': ')
          if (['not here', '**not met**'].includes(kind)) return what === ''
          if (kind !== 'read') return !testsIn(kind).includes(what)
          return !read(kind === 'read' ? (rest[0] as string) : '').includes(`\n## ${rest[1]}\n`)
        })
        .map((one) => `${id}: ${one}`),
    )
    assert.deepEqual(missing, [])
  })

  it('says in its first lines how many are shown, do not apply, and are not met', () => {
    const of = (prefix: string): number =>
      lines.filter(({ shown }) => shown.some((one) => one.startsWith(prefix))).length
    const [notHere, notMet] = [of('not here: '), of('**not met**: ')]
    const told = `${lines.length - notHere - notMet} are shown, ${notHere} do not apply, ${notMet} are not met`
    assert.ok(table.includes(told), told)
  })
})

/** The code of the server, by file: neither the client nor the page. */
const source = (readdirSync(new URL('../src/', import.meta.url), { recursive: true }) as string[])
  .filter((name) => name.endsWith('.ts') && !/^(client|web)\//.test(name))
  .map((name): [string, string] => [name, read(`src/${name}`)])

const filesWith = (pattern: RegExp): string[] =>
  source.flatMap(([name, text]) => (pattern.test(text) ? [name] : [])).sort()

describe('The code of the server', () => {
  it('starts no other program, and evaluates no text', () => {
    // Two tools that tell of the machine it is installed on, with fixed arguments.
    assert.deepEqual(filesWith(/child_process/), ['installed.ts'])
    assert.deepEqual(filesWith(/\beval\(|new Function|\bimport\((?!['"])/), [])
    // Its own threads and libraries, from what the executable carries.
    assert.deepEqual(filesWith(/\beval: true|node:vm/), ['packed.ts'])
  })

  it('makes no regular expression of what is sent', () => {
    // Of constants, and of numbers that the system says.
    assert.deepEqual(filesWith(/new RegExp\(/), ['blobs/xml.ts', 'doctor/server.ts', 'verify.ts'])
  })

  it('asks nothing of an address that a request names', () => {
    const asking = filesWith(
      /\bfetch\((?!')|from 'node:(https|dns|dgram|tls)|request[^\n]* from 'node:http'/,
    )
    // Commands of the operator, and the servers that settings name; `app.fetch` is the way of a request through the routes.
    const others = asking.filter((name) => !name.startsWith('doctor/') && name !== 'http/server.ts')
    assert.deepEqual(others, ['blobs/calls.ts', 'database/wire.ts', 'local.ts'])
    assert.deepEqual(filesWith(/createTransport/), ['mail.ts'])
  })

  it('uses the algorithms that are listed, and no other', () => {
    const listed = /\n## Cryptography\n([^]*?)\n## /.exec(table)?.[1] ?? ''
    const calls =
      /\b(create(?:Hash|Hmac|Cipheriv|Decipheriv|Sign|Verify)|hash|hkdfSync|argon2Sync)\(\s*'([\w-]+)'/g
    const used = new Set(
      source.flatMap(([, text]) => [...text.matchAll(calls)].map(([, , name]) => String(name))),
    )
    const named = [...listed.matchAll(/^\| `([\w-]+)`/gm)].map(([, name]) => String(name))
    assert.deepEqual([...used].sort(), named.sort())
    assert.deepEqual(filesWith(/pseudoRandomBytes|createCipher\(/), [])
    // How long to wait before another attempt, so that not all come at once.
    assert.deepEqual(filesWith(/Math\.random/), ['blobs/calls.ts', 'database/remote.ts'])
  })
})

describe('The account page', () => {
  it('listens to no message of another window, and keeps in the browser nothing but the session', () => {
    const names = readdirSync(new URL('../src/web/', import.meta.url))
    const code = names.map((name) => (name.endsWith('.ts') ? read(`src/web/${name}`) : '')).join('')
    assert.doesNotMatch(code, /onmessage|addEventListener\(\s*'message'|innerHTML|outerHTML/)
    assert.doesNotMatch(code, /localStorage|indexedDB|document\.cookie|caches\.open/)
    assert.equal(code.match(/sessionStorage\.setItem/g)?.length, 1)
  })
})

describe('A server', () => {
  it('has no account and no session before somebody makes one', async (t) => {
    const node = await startNode(t)
    assert.equal(await count(node, 'sync_account'), 0)
    assert.equal(await count(node, 'sync_session'), 0)
  })

  it('gives tokens of 256 random bits', async (t) => {
    const node = await startNode(t)
    const { random } = node.running.deps
    const ana = await node.signUp('ana')
    const ben = await node.signUp('ben')
    for (const { token } of [ana, ben]) assert.match(token, /^[\w-]{43}$/)
    assert.notEqual(ana.token, ben.token)
    const drawn = Array.from({ length: 2000 }, () => Buffer.from(random(32)))
    assert.equal(new Set(drawn.map((bytes) => bytes.toString('hex'))).size, drawn.length)
    for (let bit = 0; bit < 256; bit++) {
      const ones = drawn.filter((bytes) => ((bytes[bit >> 3] as number) >> (bit & 7)) & 1).length
      // Eight deviations from the middle: never by chance.
      assert.ok(Math.abs(ones - 1000) < 180, `bit ${bit}: ${ones}`)
    }
  })

  it('keeps SQL in whatever is sent as the text that it is', async (t) => {
    const node = await startNode(t)
    const ben = await node.signUp('ben')
    await ben.save('kept', 'value')
    const texts = [
      `' OR 1=1 --`,
      `"; DROP TABLE sync_store; --`,
      `%_?1:a@b$c`,
      `x' UNION SELECT 1,2 --`,
    ]
    for (const text of texts) {
      const self = await node.signUp(text, { device: text })
      await expectStatus(await self.put(text, text, { 'X-Sync-Meta': text }), 201)
      const got = await expectStatus(await self.get(text), 200)
      assert.equal(got.headers.get('x-sync-meta'), text)
      assert.equal(await got.text(), text)
      assert.equal((await self.list()).length, 1)
      await expectStatus(await ben.grant('kept', text, 'READ'), 200)
      const leave = `/permission/${encodeKey('kept')}?users=${encodeURIComponent(text)}`
      await expectStatus(await ben.request(leave, { method: 'DELETE' }), 204)
      const since = await self.request(`/changes?since=${encodeURIComponent(text)}`)
      assert.ok([400, 410].includes(since.status))
      const sessions = (await (await self.request('/account')).json()) as { device?: string }[]
      assert.deepEqual(
        sessions.map(({ device }) => device),
        [text],
      )
    }
    assert.equal(await (await ben.get('kept')).text(), 'value')
    assert.equal(await count(node, 'sync_store'), texts.length + 1)
  })

  it('redirects nobody', async (t) => {
    const node = await startNode(t)
    for (const { path, method } of routes) {
      const target = path.replace('{key}', 'a').replace('{handle}', 'b')
      for (const tail of ['', '/', '?next=https://example.org']) {
        const answer = await fetch(node.url + target + tail, { method, redirect: 'manual' })
        assert.ok(answer.status < 300 || answer.status >= 400, `${method} ${target}${tail}`)
        assert.equal(answer.headers.get('location'), null)
      }
    }
  })

  it('takes no secret in a URL', async (t) => {
    const node = await startNode(t)
    const document = (await (await node.request('/openapi.json')).json()) as Record<string, object>
    const text = JSON.stringify(document['paths'])
    const inUrl = [...text.matchAll(/"name":"([\w-]+)","in":"(?:query|path)"/g)].map(
      ([, name]) => name,
    )
    const known = ['handle', 'include', 'key', 'limit', 'since', 'users', 'wait']
    assert.deepEqual([...new Set(inUrl.map(String))].sort(), known)
    const ana = await node.signUp('ana')
    for (const name of ['token', 'access_token', 'authorization', 'session']) {
      const answer = await fetch(`${node.url}/store?${name}=${ana.token}`)
      assert.equal(answer.status, 401, name)
    }
  })

  it('logs a line of JSON for what nobody expected, and tells the client nothing but its number', async (t) => {
    const node = await startReal(t)
    const { token } = await node.signUp('ana')
    const { database } = node.running.deps
    const { execute } = database
    const reason = 'no such table: secret\n{"level":60,"msg":"forged"}'
    database.execute = () => Promise.reject(new Error(reason))
    const ask = () =>
      fetch(`${node.url}/account`, { headers: { Authorization: `Bearer ${token}` } })
    const answer = await expectStatus(await ask(), 500)
    database.execute = execute
    const requestId = answer.headers.get('x-request-id')
    assert.doesNotMatch(await answer.text(), /secret|table|at |\.ts|node_modules/)
    const [line = '', ...rest] = node.log.filter((one) => one.includes('no such table'))
    assert.equal(rest.length, 0)
    assert.equal(line.trimEnd().split('\n').length, 1)
    const entry = JSON.parse(line) as Record<string, unknown>
    assert.equal(entry['level'], 50)
    assert.equal(entry['requestId'], requestId)
    assert.ok(Math.abs(Number(entry['time']) - Date.now()) < 600_000)
    await expectStatus(await ask(), 200)
  })

  it('hands no mail to a server whose certificate is not trusted', async (t) => {
    const mails: string[] = []
    // Its certificate is one that it has signed itself.
    const server = new SMTPServer({
      authOptional: true,
      onData: (stream, _, done) =>
        void stream.resume().once('end', () => done(void mails.push('one'))),
    })
    server.on('error', () => undefined)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.after(() => new Promise<void>((resolve) => server.close(() => resolve())))
    const { port } = server.server.address() as { port: number }
    const node = await startReal(t, {
      SMTP_URL: `smtp://127.0.0.1:${port}`,
      MAIL_FROM: 'sync@example.org',
    })
    await node.signUp('ana@example.org')
    await expectStatus(await node.post('/resetpassword', { id: 'ana@example.org' }), 204)
    await eventually(() => node.log.filter((line) => line.includes('reset mail')).length, 1)
    assert.deepEqual(mails, [])
  })
})
