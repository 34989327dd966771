// Owns the requests: for every route of the table, as a client would send them and as none would.
import { createHash } from 'node:crypto'
import { PASSWORD } from '../helpers/node.ts'
import type { Openapi } from '../helpers/openapi.ts'
import { distort, textOf, valueOf, type Schema } from './json.ts'
import type { Dice } from './dice.ts'
import { NAMES, RAW_NAMES } from './names.ts'
import { MARK, type Scene } from './people.ts'

export interface Made {
  bytes: Buffer
  method: string
  path: string
  /**
   * `whole` has exactly one answer; after `last` the connection may close; what comes after `loose` is
   * anybody's guess.
   */
  kind: 'whole' | 'last' | 'loose'
}

type Document = Openapi['document']

interface Parameter {
  name: string
  in: string
}

interface Operation {
  parameters?: Parameter[]
  requestBody?: { content: Record<string, { schema: Schema }> }
}

interface Call {
  method: string
  template: string
  operation: Operation
  weight: number
}

export interface Draft {
  method: string
  target: string
  lines: string[]
  body: Buffer | undefined
  kind: Made['kind']
}

/** Who asks, and what may be asked for. */
interface Asking {
  dice: Dice
  scene: Scene
  speaker: Scene['people'][number]
  /** The speaker may lose its sessions, its password and its account. */
  mayEnd: boolean
}

// What costs a hash of a password, or is a page of kilobytes, comes less often.
const RARE =
  /^\/(account|auth|auth\/.*|password|resetpassword|docs|openapi.json|client.js|page.*)?$/
const OFTEN = 12
const METHODS = 'GET HEAD PUT POST DELETE OPTIONS PATCH TRACE PROPFIND LOCK QUERY'.split(' ')
const ENDS = new Set(['DELETE /account', 'DELETE /auth', 'DELETE /auth/{handle}', 'POST /password'])

export function grammarOf(document: Document) {
  const calls: Call[] = Object.entries(document.paths).flatMap(([template, methods]) =>
    Object.entries(methods)
      .filter(([method]) => method !== 'parameters')
      .map(([method, operation]) => ({
        method: method.toUpperCase(),
        template,
        operation: operation as Operation,
        weight: RARE.test(template) ? 1 : 'requestBody' in operation ? 2 * OFTEN : OFTEN,
      })),
  )
  const all = calls.flatMap((call) => Array.from({ length: call.weight }, () => call))

  /** The next request, before its framing. */
  return function draft(dice: Dice, scene: Scene): Draft {
    const call = dice.pick(all)
    const { method, template, operation } = call
    const isEnd = ENDS.has(`${method} ${template}`)
    const last = scene.people.length - 1
    // Who has lost all says little more.
    const one = isEnd || dice.once(20) ? last : dice.below(last)
    const speaker = scene.people[one] as Asking['speaker']
    const asking: Asking = { dice, scene, speaker, mayEnd: one === last }
    const isOther = !isEnd && dice.once(25)
    const made: Draft = {
      method: isOther ? dice.pick(METHODS) : method,
      target: pathOf(template, asking) + queryOf(operation, asking),
      lines: headersOf(operation, asking),
      body: bodyOf(call, asking),
      kind: 'whole',
    }
    // Whoever says DELETE may end a session.
    if (isOther && made.method === 'DELETE' && !asking.mayEnd) made.method = 'PATCH'
    if (/event-stream/.test(made.lines.join())) made.kind = 'loose'
    if (/[^!-~]|#|\\/.test(made.target)) made.kind = 'last'
    return made
  }
}

function pathOf(template: string, { dice, scene, speaker }: Asking): string {
  if (template.endsWith('{handle}')) {
    const own = createHash('sha256').update(speaker.token).digest('base64url')
    return template.replace('{handle}', dice.pick([own, 'x'.repeat(43), '..', '%', '', MARK]))
  }
  if (!template.endsWith('{key}')) return template
  const raw = dice.once(5) ? dice.pick(RAW_NAMES) : rawName(dice, scene)
  return template.replace('{key}', () => raw)
}

function rawName(dice: Dice, scene: Scene): string {
  const known = dice.pick([scene.shared, scene.keys.at(-1 - dice.below(8)) ?? scene.shared])
  const name = dice.once(4) ? known : dice.pick(NAMES)
  return name.split('/').map(encodeURIComponent).join('/')
}

function queryOf({ parameters = [] }: Operation, { dice, scene, speaker }: Asking): string {
  const pairs = parameters
    .filter((one) => one.in === 'query' && dice.below(3) > 0)
    .map(({ name }) => `${name}=${dice.pick(QUERY[name] ?? [() => MARK])(scene, speaker)}`)
  if (dice.once(25)) pairs.push(dice.pick(ODD_PAIRS))
  if (pairs.length > 0 && dice.once(30)) pairs.push(dice.pick(pairs))
  return pairs.length === 0 && !dice.once(40) ? '' : `?${pairs.join('&')}`
}

type Given = (scene: Scene, speaker: Asking['speaker']) => string
const last = (list: string[]): string => list.at(-1) ?? 'none'
const said = (...texts: string[]): Given[] => texts.map((text) => () => text)

const QUERY: Record<string, Given[]> = {
  since: [
    ({ cursors }) => last(cursors),
    ({ cursors }) => cursors[0] ?? '',
    ...said('', 'x', 'v'.repeat(64), '0'.repeat(65), '%00', '%ff', '*'),
  ],
  limit: said(
    '1',
    '2',
    '1000',
    '500',
    '0',
    '1001',
    '-1',
    '1e3',
    '',
    '%31',
    '%D9%A3',
    '0x10',
    '99999',
  ),
  wait: said('0', '0', '0', '00', '51', '-0', 'NaN', ''),
  include: said('data', 'data', 'Data', '', 'meta'),
  users: [
    (_, { user }) => encodeURIComponent(user),
    ({ people }) => encodeURIComponent(people[1]?.user ?? ''),
    ({ ids }) => encodeURIComponent(ids[0] ?? ''),
    ...said(MARK, `~${'A'.repeat(43)}`, '', '%', '+', '%ed%a0%80', 'x'.repeat(3000)),
  ],
}
const ODD_PAIRS = [
  `${MARK}=1`,
  'x=y',
  '__proto__=1',
  'limit',
  '=',
  'a=b=c',
  '%=1',
  '%00=1',
  '&&',
  'limit[]=1',
  '?',
]

function headersOf({ parameters = [] }: Operation, asking: Asking): string[] {
  const { dice, scene } = asking
  const lines = ['Host: localhost', `X-Forwarded-For: ${addressOf(dice)}`]
  const session = dice.once(12) ? dice.pick(SESSIONS)(scene, asking.speaker) : asking.speaker.token
  if (session !== '') lines.push(`Authorization: Bearer ${session}`)
  const known = parameters.filter((one) => one.in === 'header')
  const isPlain = dice.once(2)
  if (isPlain && known.some(({ name }) => name === 'X-Sync-Token')) lines.push('X-Sync-Token: *')
  for (const { name } of isPlain ? [] : known.filter(() => dice.once(4))) {
    lines.push(`${name}: ${dice.pick(HEADERS[name] ?? said('x'))(scene, asking.speaker)}`)
  }
  if (dice.once(10)) lines.push(dice.pick(EXTRAS))
  if (dice.once(40)) lines.push(`X-${dice.below(1e6)}: ${'x'.repeat(dice.below(20_000))}`)
  return lines
}

// By many addresses, as behind a proxy of this machine: no limit of one address is met.
function addressOf({ below, once, pick }: Dice): string {
  if (once(30))
    return pick(['unknown', '::ffff:1.2.3.4', '1.2.3.4:80', '[2001:db8::1%eth0]:8', ','])
  if (once(20)) return `2001:db8:${below(65_536).toString(16)}:${below(65_536).toString(16)}::1`
  return `198.18.${below(256)}.${below(256)}`
}

const SESSIONS: Given[] = said('', 'x', 'A'.repeat(43), `${'A'.repeat(43)} x`, 'Bearer', 'é')

const VERSION: Given[] = [
  ...said('*', '*', '*'),
  ({ tokens }) => last(tokens),
  ({ tokens }) => `"${last(tokens)}"`,
  ({ tokens }) => `W/"${last(tokens)}-gzip", "other"`,
  ({ tokens }) => tokens.join(', '),
  ...said('', '""', 'x', 'v'.repeat(65), ',,,', 'W/', '"\xff"', `"${'a,'.repeat(3000)}"`),
]
const sha = (kind: string, text: string): string =>
  `${kind === 'sha256' ? 'sha-256' : 'sha-512'}=:${createHash(kind).update(text).digest('base64')}:`

const HEADERS: Record<string, Given[]> = {
  'X-Sync-Token': VERSION,
  'If-Match': VERSION,
  'If-None-Match': [...said('*', '*', '*'), ...VERSION],
  'If-Range': VERSION,
  Range: said(
    'bytes=0-0',
    'bytes=-5',
    'bytes=5-',
    'bytes=0-99999999999999999999',
    'bytes=99999999999999999999-',
    'bytes=-0',
    'bytes=5-1',
    'bytes=0-1,3-4',
    'bytes=--1',
    'lines=1-2',
    'bytes=',
    `bytes=${'1-2,'.repeat(2000)}`,
  ),
  'X-Sync-Meta': said('m', 'm'.repeat(200), '', 'm'.repeat(8000), 'm'.repeat(8001), '\xe9', '\t'),
  'Content-Digest': said(sha('sha256', ''), sha('sha512', ''), 'md5=:aaaa:', 'sha-256=::', 'x', ''),
  'Repr-Digest': said(sha('sha256', ''), `${sha('sha512', '')}, md5=:aa:`, 'sha-256=:A:', '=', ','),
  Accept: said('text/event-stream', '*/*', 'application/json', 'text/html', ';q='),
  'Last-Event-ID': [({ cursors }) => last(cursors), ...said('', 'x', 'v'.repeat(64))],
}

const EXTRAS = [
  'Content-Type: text/plain; charset=utf-16',
  'Content-Type: multipart/form-data; boundary=x',
  'Content-Type: application/json; charset=\xff',
  'Content-Type: application/x-www-form-urlencoded',
  'Content-Encoding: gzip',
  'Content-Encoding: identity',
  'Content-Range: bytes 0-1/2',
  'Cookie: token=x; __proto__=1',
  'Origin: null',
  'Origin: http://evil.example',
  'X-HTTP-Method-Override: DELETE',
  'X-Original-URL: /account',
  'X-Forwarded-Host: evil.example',
  'X-Forwarded-Proto: javascript',
  'Forwarded: for=1.2.3.4;host=evil.example',
  'Accept-Encoding: gzip, br, zstd',
  'Accept-Language: \xff\xfe',
  'Upgrade: h2c',
  'Upgrade: websocket\r\nConnection: keep-alive, Upgrade',
  'Connection: keep-alive, x-sync-token, authorization',
  'Max-Forwards: 0',
  'Expect: 100-continue',
  'TE: trailers',
  '__proto__: 1',
  'constructor: x',
]

const SIZES = [0, 0, 1, 5, 100, 100, 100, 500, 2000, 16_384, 16_385, 20_000, 70_000]

function bodyOf({ operation }: Call, asking: Asking): Buffer | undefined {
  const { dice } = asking
  const content = operation.requestBody?.content
  const schema = content?.['application/json']?.schema
  if (schema !== undefined) {
    const value = valueOf(schema, dice, (name) => named(name, asking))
    return textOf(dice.once(2) ? distort(value, dice) : value, dice)
  }
  if (content === undefined && !dice.once(15)) return undefined
  // The mark, that only who may read it is answered.
  return Buffer.concat([Buffer.from(MARK), dice.bytes(dice.pick(SIZES))]).subarray(dice.below(8))
}

type Member = (asking: Asking) => unknown

const key: Member = ({ dice, scene }) => (dice.once(10) ? scene.shared : dice.pick(NAMES))

/** Good values of members, which a schema tells by their names alone. */
const MEMBERS: Record<string, Member> = {
  id: ({ dice, scene }) =>
    dice.pick([`${MARK} new ${dice.below(40)}`, dice.pick(scene.ids), `${MARK}?`]),
  password: ({ dice }) =>
    dice.pick([PASSWORD, PASSWORD, `${MARK} wrong`, 'short', 'x'.repeat(1025), ' '.repeat(9)]),
  current: ({ dice, mayEnd }) => (mayEnd && dice.once(4) ? PASSWORD : `${MARK} wrong`),
  user: ({ dice, scene }) =>
    dice.pick([...scene.people.map(({ user }) => user), ...scene.ids, `${MARK}?`]),
  token: ({ dice, scene }) => dice.pick(['*', '*', '*', last(scene.tokens), 'none']),
  data: ({ dice }) => dice.bytes(dice.once(50) ? 16_385 : dice.below(100)).toString('base64'),
  meta: ({ dice }) => 'm'.repeat(dice.below(20)),
  put: key,
  delete: key,
  check: key,
}

const named = (name: string, asking: Asking): unknown =>
  MEMBERS[name]?.(asking) ?? asking.dice.pick([MARK, 'a', ''])
