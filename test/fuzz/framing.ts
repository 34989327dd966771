// Owns how a request stands on the wire: with its length, in chunks, or broken in the ways by which
// requests are smuggled past proxies; and what becomes of it when bytes change.
import type { Dice } from './dice.ts'
import type { Draft, Made } from './grammar.ts'

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')

/** The request to the letter of HTTP. */
export function frame(draft: Draft, dice: Dice): Made {
  const { method, target, body, kind } = draft
  const isChunked = body !== undefined && dice.once(3)
  const lines = [...draft.lines]
  if (isChunked) lines.push('Transfer-Encoding: chunked')
  else if (body !== undefined) lines.push(`Content-Length: ${body.length}`)
  const head = bytes(`${method} ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
  const path = target.split('?', 1)[0] as string
  const content = body === undefined ? [] : isChunked ? toChunks(body, dice) : [body]
  return { bytes: Buffer.concat([head, ...content]), method, path, kind }
}

const EXTENSIONS = ['', '', '', ';a', ';a=b', ';a="b;c"']

function toChunks(body: Buffer, { below, pick, once }: Dice): Buffer[] {
  const parts: Buffer[] = []
  for (let at = 0; at < body.length;) {
    const chunk = body.subarray(at, at + 1 + below(once(4) ? 10 : 30_000))
    at += chunk.length
    const size = chunk.length.toString(16)
    const zeros = pick(['', '0', '000'])
    parts.push(bytes(`${zeros}${once(2) ? size.toUpperCase() : size}${pick(EXTENSIONS)}\r\n`))
    parts.push(chunk, bytes('\r\n'))
  }
  return [...parts, bytes(once(5) ? '0\r\nX-Trailer: x\r\n\r\n' : '0\r\n\r\n')]
}

type Break = (draft: Draft, dice: Dice) => string | Buffer[]

const text = ({ method, target, lines }: Draft, more: string, version = 'HTTP/1.1'): string =>
  `${method} ${target} ${version}\r\n${[...lines, more].filter(Boolean).join('\r\n')}\r\n\r\n`

const INNER = 'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'
const CHUNKED = 'Transfer-Encoding: chunked'

/** A head with these lines of its own, and a body that is told in two ways. */
const twice =
  (lines: string, rest = `0\r\n\r\n${INNER}`): Break =>
  (draft) =>
    text(draft, lines) + rest

const chunks =
  (rest: string): Break =>
  (draft) =>
    text(draft, CHUNKED) + rest

const BREAKS: Break[] = [
  twice(`Content-Length: 5\r\n${CHUNKED}`),
  twice(`${CHUNKED}\r\nContent-Length: ${INNER.length}`),
  twice('Content-Length: 0\r\nContent-Length: 43', INNER),
  twice('Content-Length: 5\r\nContent-Length: 5', 'value'),
  twice('Content-Length: 5, 5', 'value'),
  twice('Content-Length: +5', 'value'),
  twice('Content-Length: -1', INNER),
  twice('Content-Length: 5 ', 'value'),
  twice('Content-Length: 0x5', 'value'),
  twice('Content-Length: 5e0', 'value'),
  twice('Content-Length: 18446744073709551621', 'value'),
  twice('Content-Length:', INNER),
  twice('Content-Length : 5', 'value'),
  twice('Content-Length\0: 5', 'value'),
  twice('Content_Length: 5', INNER),
  twice('Transfer-Encoding: chunked, identity'),
  twice('Transfer-Encoding: identity, chunked'),
  twice('Transfer-Encoding: xchunked'),
  twice('Transfer-Encoding: CHUNKED\r\nTransfer-Encoding: identity'),
  twice('Transfer-Encoding:\x0bchunked'),
  twice('Transfer-Encoding: "chunked"'),
  twice('Transfer-Encoding\x20: chunked'),
  twice('Transfer-Encoding: gzip, chunked', '3\r\nabc\r\n0\r\n\r\n'),
  twice(' Transfer-Encoding: chunked'),
  twice(`X: y\r\n ${CHUNKED}`),
  twice(`X: y\n${CHUNKED}`),
  twice(`X: y\r${CHUNKED}`),
  twice('X: y\r\n\tfolded: z', INNER),
  twice('Host: other.example', INNER),
  twice('Host: a@b:c', INNER),
  twice('Authorization: Bearer x', INNER),
  twice('Expect: 200-maybe', INNER),
  twice('Expect: 100-continue\r\nContent-Length: 5', ''),
  twice('X'.repeat(140_000), ''),
  twice(`X: ${'x'.repeat(140_000)}`, ''),
  twice('Connection: close', INNER),
  twice('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk', INNER),
  chunks('g\r\nvalue\r\n0\r\n\r\n'),
  chunks('-5\r\nvalue\r\n0\r\n\r\n'),
  chunks('0x5\r\nvalue\r\n0\r\n\r\n'),
  chunks('5 \r\nvalue\r\n0\r\n\r\n'),
  chunks('5\nvalue\n0\n\n'),
  chunks('5\r\nvalue0\r\n\r\n'),
  chunks('6\r\nvalue\r\n0\r\n\r\n'),
  chunks('ffffffffffffffff5\r\nvalue\r\n0\r\n\r\n'),
  chunks('7fffffffffffffff\r\nvalue'),
  chunks('5;\0\r\nvalue\r\n0\r\n\r\n'),
  chunks(`5;${'x'.repeat(70_000)}\r\nvalue\r\n0\r\n\r\n`),
  chunks(`5\r\nvalue\r\n0\r\n${'X: y\r\n'.repeat(3000)}\r\n`),
  chunks('5\r\nvalue\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n'),
  chunks('5\r\nvalue\r\n00000\r\n\r\n'),
  chunks('\r\n5\r\nvalue\r\n0\r\n\r\n'),
  (draft) => text({ ...draft, lines: draft.lines.slice(1) }, ''),
  (draft) => text(draft, '', 'HTTP/1.0'),
  (draft) => text(draft, 'Connection: keep-alive', 'HTTP/1.0') + INNER,
  (draft) => text(draft, '', 'HTTP/0.9'),
  (draft) => text(draft, '', 'HTTP/2.0'),
  (draft) => text(draft, '', 'HTTP/1.10'),
  (draft) => text(draft, '', 'http/1.1'),
  (draft) => text(draft, '', ''),
  (draft) => text({ ...draft, target: `http://localhost${draft.target}` }, '') + INNER,
  (draft) => text({ ...draft, target: `http://[::1${draft.target}` }, ''),
  (draft) => text({ ...draft, target: '*' }, ''),
  (draft) => text({ ...draft, target: '' }, ''),
  (draft) => text({ ...draft, target: `//evil.example${draft.target}` }, ''),
  (draft) => text({ ...draft, target: `${draft.target}#fragment` }, ''),
  (draft) => text({ ...draft, target: draft.target.replaceAll('/', '\\') }, ''),
  (draft) => text({ ...draft, target: `/store/${'x'.repeat(140_000)}` }, ''),
  (draft) => text({ ...draft, method: 'CONNECT', target: 'localhost:80' }, '') + INNER,
  (draft) => text({ ...draft, method: 'G=T' }, ''),
  (draft) => `\r\n\r\n${text(draft, '')}`,
  (draft) => text(draft, '').replaceAll('\r\n', '\n'),
  (draft) => text(draft, '').replace(' ', '\t'),
  (draft) => text(draft, '').replace('HTTP/1.1', 'HTTP/1.1 '),
  () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0',
  (_, { below }) => [
    Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
    Buffer.alloc(below(500)),
  ],
  (_, { below }) => [Buffer.alloc(1 + below(3000), below(256))],
  () => INNER.repeat(200),
]

/** A request that a proxy and a server may read differently. */
export function breakFraming(draft: Draft, dice: Dice): Made {
  const broken = dice.pick(BREAKS)(draft, dice)
  const content = typeof broken === 'string' ? bytes(broken) : Buffer.concat(broken)
  return { bytes: content, method: draft.method, path: draft.target, kind: 'loose' }
}

const PIECES = [
  '\r\n',
  '\n',
  '\0',
  ' ',
  ':',
  '%',
  '%00',
  '..',
  '/',
  '\xff',
  '0',
  ',',
  '?',
  '"',
  '*',
]
  .concat(['chunked', '\r\n\r\n', 'HTTP/1.1', 'Content-Length: 1\r\n', '\t', '\x7f', '{', ']'])
  .map(bytes)
const MOST_CHANGES = 4

/** The same request with some of its bytes put in, left out, or changed. */
export function mutate(made: Made, { below, pick }: Dice): Made {
  let changed = made.bytes
  for (let left = 1 + below(MOST_CHANGES); left > 0; left--) {
    const at = below(changed.length + 1)
    const [before, after] = [changed.subarray(0, at), changed.subarray(at)]
    const ways = [
      () => Buffer.concat([before, pick(PIECES), after]),
      () => Buffer.concat([before, after.subarray(1 + below(8))]),
      () => Buffer.concat([before, Buffer.from([below(256)]), after.subarray(1)]),
      () =>
        Buffer.concat([
          before,
          Buffer.from([(after[0] ?? 0) ^ (1 << below(8))]),
          after.subarray(1),
        ]),
      () => Buffer.concat([before, after.subarray(0, below(40)), after]),
      () => before,
    ]
    changed = pick(ways)()
  }
  return { ...made, bytes: changed, kind: 'loose' }
}
