import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { SMTPServer } from 'smtp-server'
import { HOUR, MINUTE, count, post, settled, sha256 } from './helpers/ask.ts'
import { eventually } from './helpers/eventually.ts'
import { install } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { PASSWORD, startNode, type TestNode } from './helpers/node.ts'
import { startReal, type RealNode } from './helpers/real.ts'
import { signUp } from './helpers/remote.ts'

const PUBLIC_URL = 'https://sync.example.org/its%20path'

// How long a letter takes to begin, and some more.
const DELAY_MS = 1100

interface Letter {
  from: string
  to: string[]
  /** Each header with its lines unfolded. */
  headers: string[]
  text: string
}

interface PostOffice {
  url: string
  letters: Letter[]
  /** Greets those who wait, when it was slow to. */
  greet(): void
}

/** An SMTP server on loopback. A slow one does not say a word until it is told to. */
async function postOffice(t: TestContext, isSlow = false): Promise<PostOffice> {
  const letters: Letter[] = []
  const waiting: (() => void)[] = []
  const server = new SMTPServer({
    hideSTARTTLS: true,
    authOptional: true,
    onConnect: (_, greet) => void (isSlow ? waiting.push(greet) : greet()),
    onData(stream, session, done) {
      let raw = ''
      stream.on('data', (chunk: Buffer) => {
        raw += chunk.toString('latin1')
      })
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope
        const from = mailFrom === false ? '' : mailFrom.address
        letters.push({ from, to: rcptTo.map(({ address }) => address), ...read(raw) })
        done()
      })
    },
  })
  server.listen(0, '127.0.0.1')
  await once(server.server, 'listening')
  t.after(() => {
    for (const { _socket } of server.connections) _socket.destroy()
    server.close()
  })
  const { port } = server.server.address() as AddressInfo
  return {
    url: `smtp://127.0.0.1:${port}`,
    letters,
    greet: () => waiting.splice(0).forEach((one) => one()),
  }
}

function read(raw: string): { headers: string[]; text: string } {
  const [head = '', ...rest] = raw.split('\r\n\r\n')
  const body = rest.join('\r\n\r\n')
  const isQuoted = /^content-transfer-encoding: quoted-printable/im.test(head)
  const decoded = body
    .replace(/=\r\n/g, '')
    .replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)))
  return {
    headers: head.replace(/\r\n[ \t]+/g, ' ').split('\r\n'),
    text: isQuoted ? decoded : body,
  }
}

const environment = ({ url }: PostOffice): Record<string, string> => ({
  SMTP_URL: url,
  MAIL_FROM: 'Sync <sync@example.org>',
})

/** The mail that `id` is sent. */
async function askFor(node: RealNode, office: PostOffice, id: string): Promise<Letter> {
  const { length } = office.letters
  await expectStatus(await node.post('/resetpassword', { id }), 204)
  await eventually(() => office.letters.length, length + 1)
  return office.letters.at(-1) as Letter
}

const tokenIn = ({ text }: Letter): string => /^[\w-]{43}\r?$/m.exec(text)?.[0].trim() as string

describe('a reset mail, by a real mail server', () => {
  it('carries the token, and a link to PUBLIC_URL', async (t) => {
    const office = await postOffice(t)
    const node = await startReal(t, { ...environment(office), PUBLIC_URL: `${PUBLIC_URL}/` })
    await node.signUp('Ana@Example.org')
    const letter = await askFor(node, office, ' ANA@example.org ')
    assert.equal(letter.from, 'sync@example.org')
    assert.deepEqual(letter.to, ['ana@example.org'])
    assert.ok(letter.headers.includes('From: Sync <sync@example.org>'))
    assert.ok(letter.headers.includes('To: ana@example.org'))
    const token = tokenIn(letter)
    assert.deepEqual(letter.text.match(/https?:\S+/g), [`${PUBLIC_URL}/#reset=${token}`])
    const set = await node.post('/password', { password: 'a new password', token })
    await expectStatus(set, 204)
    const login = { id: 'ana@example.org', password: 'a new password' }
    await expectStatus(await node.post('/auth', login), 200)
  })

  it('has no link without PUBLIC_URL, and nothing of the Host header ever', async (t) => {
    const office = await postOffice(t)
    const plain = await startReal(t, environment(office))
    const linked = await startReal(t, { ...environment(office), PUBLIC_URL })
    for (const [node, links] of [
      [plain, 0],
      [linked, 1],
    ] as const) {
      await node.signUp('ana@example.org')
      office.letters.length = 0
      assert.equal(await askAsHost(node, 'evil.example', 'ana@example.org'), 204)
      await eventually(() => office.letters.length, 1)
      const [letter] = office.letters as [Letter]
      assert.doesNotMatch(JSON.stringify(letter), /evil|127\.0\.0\.1:|localhost:/)
      assert.equal(letter.text.match(/:\/\//g)?.length ?? 0, links)
      assert.equal(letter.text.includes('#reset='), links === 1)
      const body = { password: 'a new password', token: tokenIn(letter) }
      await expectStatus(await node.post('/password', body), 204)
    }
  })

  function askAsHost(node: RealNode, host: string, id: string): Promise<number> {
    const headers = {
      Host: host,
      'X-Forwarded-Host': host,
      Forwarded: `host=${host}`,
      Origin: `https://${host}`,
      Referer: `https://${host}/`,
    }
    return new Promise((resolve, reject) => {
      const options = { method: 'POST', headers }
      httpRequest(`${node.url}/resetpassword`, options, (answer) => {
        answer.resume()
        resolve(answer.statusCode ?? 0)
      })
        .on('error', reject)
        .end(JSON.stringify({ id }))
    })
  }

  it('goes to one plain address, whatever the id is', async (t) => {
    const office = await postOffice(t)
    const node = await startReal(t, environment(office))
    await node.signUp('ben@example.org')
    for (const id of SLY) {
      // The registrations of a client that shows its address would be limited.
      await node.signUp(id)
      await expectStatus(await node.post('/resetpassword', { id }), 204)
    }
    // Ben's mail shows that the others' turns have passed.
    await pause(DELAY_MS)
    await askFor(node, office, 'ben@example.org')
    assert.deepEqual(
      office.letters.map(({ to }) => to),
      [['ben@example.org']],
    )
  })

  const SLY = [
    'ana',
    'ana@example.org,eve@example.org',
    'ana@example.org;eve@example.org',
    'ana@example.org eve@example.org',
    'ana@example.org\r\nBcc: eve@example.org',
    'ana@example.org\nRCPT TO:<eve@example.org>',
    'ana@example.org\u2028Bcc: eve@example.org',
    'ana@example.org>\r\nDATA',
    'ana <eve@example.org>',
    'ana@example.org, eve <eve@example.org>',
    'friends: ana@example.org, eve@example.org;',
    '"ana@example.org,eve"@example.org',
    'ana@example.org(eve@example.org)',
    'ana@example.org@eve.example',
    '<ana@example.org>,<eve@example.org>',
    '@',
    'ana@',
    '@example.org',
  ]

  it('adds no header and no recipient for an odd character in the id', async (t) => {
    const office = await postOffice(t)
    const node = await startReal(t, environment(office))
    await node.signUp('ben@example.org')
    const usual = await askFor(node, office, 'ben@example.org')
    const names = ({ headers }: Letter): string[] =>
      headers.map((line) => line.split(':', 1)[0] ?? '')
    for (const [i, odd] of ODD.entries()) {
      office.letters.length = 0
      const others = `ben${i}@example.org`
      for (const id of [`a${odd}b@example.org`, others]) {
        await node.signUp(id)
        await expectStatus(await node.post('/resetpassword', { id }), 204)
      }
      await eventually(() => office.letters.some(({ to }) => to.includes(others)), true)
      for (const letter of office.letters) {
        assert.equal(letter.to.length, 1)
        assert.deepEqual(names(letter), names(usual))
      }
    }
  })

  const ODD = ['\u0000', '\u001b', '\u007f', '\u0085', '=0d=0a', '%0d%0abcc:x', '?=', 'é']

  it('goes to nobody but the address that is the id, to the letter', async (t) => {
    const office = await postOffice(t)
    const node = await startReal(t, environment(office))
    await node.signUp('ben@example.org')
    // Mail software drops these characters, and would write to ana@example.org.
    for (const dropped of ['\u0000', '\u0001', '\u001b', '\u00ad', '\u200b', '\u2060', '\ufeff']) {
      for (const id of [`an${dropped}a@example.org`, `ana@exam${dropped}ple.org`]) {
        await node.signUp(id)
        await expectStatus(await node.post('/resetpassword', { id }), 204)
      }
    }
    await pause(DELAY_MS)
    await expectStatus(await node.post('/resetpassword', { id: 'ben@example.org' }), 204)
    await eventually(() => office.letters.some(({ to }) => to.includes('ben@example.org')), true)
    const others = office.letters.filter(({ to }) => to.includes('ana@example.org'))
    assert.equal(others.length, 0)
  })

  it('is sent by the executable as well, which carries what sends it', async (t) => {
    const office = await postOffice(t)
    const { url } = await install(t).serve(environment(office))
    await signUp(url, { id: 'ana@example.org' })
    const body = JSON.stringify({ id: 'ana@example.org' })
    await expectStatus(await fetch(`${url}/resetpassword`, { method: 'POST', body }), 204)
    await eventually(() => office.letters.map(({ to }) => to), [['ana@example.org']])
  })

  it('is answered before the mail server says a word', async (t) => {
    const office = await postOffice(t, true)
    const node = await startReal(t, environment(office))
    await node.signUp('ana@example.org')
    const answer = await node.post('/resetpassword', { id: 'ana@example.org' })
    await expectStatus(answer, 204)
    assert.equal(await answer.text(), '')
    assert.equal(office.letters.length, 0)
    // Had the answer waited for the mail, the mailer would have given up by now.
    await eventually(() => {
      office.greet()
      return office.letters.length
    }, 1)
  })

  it('that cannot be sent is no concern of the client, and its address is not logged', async (t) => {
    const node = await startReal(t, {
      ...environment(await postOffice(t)),
      SMTP_URL: 'smtp://127.0.0.1:1',
    })
    await node.signUp('ana@example.org')
    await expectStatus(await node.post('/resetpassword', { id: 'ana@example.org' }), 204)
    await eventually(() => node.log.filter((line) => line.includes('reset mail')).length, 1)
    assert.doesNotMatch(node.log.join(''), /ana|example\.org/)
    await expectStatus(await node.post('/auth', { id: 'ana@example.org', password: PASSWORD }), 200)
  })
})

describe('POST /resetpassword', () => {
  const ask = (node: TestNode, id: string): Promise<Response> =>
    post(node, '/resetpassword', { id })

  /** How many mails `id` was sent, once all that was asked for is done. */
  async function mailsTo(node: TestNode, id: string): Promise<number> {
    const probe = `probe ${node.mails.length} ${Math.random()}`
    await node.signUp(probe)
    await ask(node, probe)
    await eventually(() => node.mails.some(({ address }) => address === probe), true)
    await settled(node)
    return node.mails.filter(({ address }) => address === id).length
  }

  it('answers 204 to whatever id, and mails to accounts alone', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    const gone = await node.signUp('gone')
    await expectStatus(await gone.request('/account', { method: 'DELETE' }), 204)
    for (const id of ['ana', 'unknown', 'gone', '', '~', gone.user, 'x'.repeat(1000)]) {
      const answer = await expectStatus(await ask(node, id), 204)
      assert.equal(await answer.text(), '')
    }
    assert.equal(await mailsTo(node, 'ana'), 1)
    assert.equal(node.mails.length, 2)
  })

  it('needs no session and ignores one', async (t) => {
    const node = await startNode(t)
    await Promise.all([node.signUp('ana'), node.signUp('ben')])
    const Authorization = 'Bearer nonsense'
    await expectStatus(await post(node, '/resetpassword', { id: 'ana' }, { Authorization }), 204)
    assert.equal(await mailsTo(node, 'ana'), 1)
  })

  it('does not replace a live token younger than 15 minutes', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await ask(node, 'ana')
    assert.equal(await mailsTo(node, 'ana'), 1)
    node.advance(14 * MINUTE)
    await Promise.all([1, 2, 3].map(() => ask(node, 'ana')))
    assert.equal(await mailsTo(node, 'ana'), 1)
    const [first] = node.mails.filter(({ address }) => address === 'ana')
    node.advance(MINUTE)
    await ask(node, 'ana')
    assert.equal(await mailsTo(node, 'ana'), 2)
    const [, second] = node.mails.filter(({ address }) => address === 'ana')
    const setWith = (token = ''): Promise<Response> =>
      post(node, '/password', { password: 'a new password', token })
    await expectProblem(await setWith(first?.token), 'AUTH02', 401)
    await expectStatus(await setWith(second?.token), 204)
  })

  it('mails once when asked many times at once', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await Promise.all(Array.from({ length: 10 }, () => ask(node, 'ana')))
    assert.equal(await mailsTo(node, 'ana'), 1)
    const [{ token } = { token: '' }] = node.mails
    assert.equal(await count(node, 'password_reset_token WHERE token = ?', [sha256(token)]), 1)
  })

  it('mails again at once when the token is spent', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    await ask(node, 'ana')
    assert.equal(await mailsTo(node, 'ana'), 1)
    const [{ token } = { token: '' }] = node.mails
    await expectStatus(await post(node, '/password', { password: 'a new password', token }), 204)
    await ask(node, 'ana')
    assert.equal(await mailsTo(node, 'ana'), 2)
  })

  it('mails 3 times a day and account at most', async (t) => {
    const node = await startNode(t)
    await Promise.all([node.signUp('ana'), node.signUp('ben')])
    for (const mails of [1, 2, 3, 3, 3]) {
      await expectStatus(await ask(node, 'ana'), 204)
      assert.equal(await mailsTo(node, 'ana'), mails)
      node.advance(HOUR)
    }
    // The mail that was not sent has not made the last token void.
    await ask(node, 'ben')
    assert.equal(await mailsTo(node, 'ben'), 1)
    node.advance(19 * HOUR)
    await ask(node, 'ana')
    assert.equal(await mailsTo(node, 'ana'), 4)
  })

  it('leaves a token that was mailed good when no further mail is sent', async (t) => {
    const node = await startNode(t)
    await node.signUp('ana')
    for (const mails of [1, 2, 3, 3]) {
      await ask(node, 'ana')
      assert.equal(await mailsTo(node, 'ana'), mails)
      node.advance(20 * MINUTE)
    }
    const token = node.mails.findLast(({ address }) => address === 'ana')?.token
    await expectStatus(await post(node, '/password', { password: 'a new password', token }), 204)
  })

  it('does nothing without a mail server', async (t) => {
    const node = await startReal(t)
    await node.signUp('ana@example.org')
    await expectStatus(await node.post('/resetpassword', { id: 'ana@example.org' }), 204)
    await expectStatus(await node.post('/auth', { id: 'ana@example.org', password: PASSWORD }), 200)
    const { rows } = await node.running.deps.database.execute('SELECT * FROM password_reset_token')
    assert.equal(rows.length, 0)
  })
})
