// Owns JSON bodies: made from the schema that the server publishes, then distorted in their shape, then
// in their text.
import type { Dice } from './dice.ts'
import { MARK } from './people.ts'

export type Schema = Record<string, unknown>
/** A good value of a member of this name, or undefined where any will do. */
export type Named = (name: string) => unknown

const MOST_ITEMS = 300

/** A value that the schema takes, as far as JSON Schema says it. */
export function valueOf(schema: Schema, dice: Dice, named: Named, name = ''): unknown {
  const { anyOf, type, properties, items, enum: some, const: only, required = [] } = schema
  if (anyOf !== undefined) return valueOf(dice.pick(anyOf as Schema[]), dice, named, name)
  if (only !== undefined) return only
  if (some !== undefined) return dice.pick(some as unknown[])
  if (properties !== undefined) {
    const members = Object.entries(properties as Record<string, Schema>)
      .filter(([one]) => (required as string[]).includes(one) || dice.once(2))
      .map(([one, member]) => [one, valueOf(member, dice, named, one)])
    return Object.fromEntries(members)
  }
  if (type === 'array') {
    const length = dice.once(200) ? dice.below(MOST_ITEMS) : dice.below(4)
    return Array.from({ length }, () => valueOf((items ?? {}) as Schema, dice, named, name))
  }
  if (type === 'null') return null
  return named(name)
}

const WRONG: unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  1e308,
  Number.MAX_SAFE_INTEGER + 2,
  '',
  ' ',
  '\0',
  '*',
  'null',
  '~',
  `~${'A'.repeat(43)}`,
  '\ud800',
  '\udfff x',
  '\u202e\ufeff',
  'İıſK',
  '../../secret',
  "'; DROP TABLE sync_account; --",
  '%00%2e%2e',
  'x'.repeat(9000),
  '\u{1f980}'.repeat(4000),
  [],
  {},
  [[]],
  [null],
  { toString: null },
  { length: 1e9 },
]

const NAMES = [
  MARK,
  MARK,
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'length',
  'then',
  '',
  '0',
]

/** The same value with something in it that is not as it should be. */
export function distort(value: unknown, dice: Dice): unknown {
  if (typeof value !== 'object' || value === null || dice.once(15)) return dice.pick(WRONG)
  if (Array.isArray(value)) {
    const list = [...(value as unknown[])]
    const at = dice.below(list.length)
    if (list.length === 0 || dice.once(6)) list.push(dice.once(2) ? list[0] : dice.pick(WRONG))
    else list[at] = distort(list[at], dice)
    return list
  }
  const members = Object.entries(value)
  const [name = 'id', one] = members.length === 0 ? [] : dice.pick(members)
  const rest = members.filter(([other]) => other !== name)
  // No literal has a member of the name __proto__ but by a definition.
  const made = (all: [string, unknown][]): unknown => Object.fromEntries(all)
  if (dice.once(8)) return made(rest)
  if (dice.once(8)) return made([...members, [dice.pick(NAMES), dice.pick(WRONG)]])
  if (dice.once(20)) return made([...rest, [name.toUpperCase(), one]])
  return made([...rest, [name, distort(one, dice)]])
}

type Texting = (text: string, dice: Dice) => string | Buffer

const nested = (text: string, dice: Dice): string => {
  const depth = 1 + dice.below(dice.once(5) ? 60_000 : 500)
  const [open, close] = dice.pick([
    ['[', ']'],
    ['{"a":', '}'],
    ['{"operations":[', ']}'],
  ])
  return open.repeat(depth) + (dice.once(2) ? text : '') + close.repeat(dice.once(3) ? 0 : depth)
}

const TEXTS: Texting[] = [
  nested,
  (text) => text.replace('{', '{"__proto__":{"isAdmin":true},'),
  (text) => text.replace('{', '{"constructor":{"prototype":{"id":1}},'),
  (text) => text.replace(/"(\w+)":/, '"$1":null,"$1":'),
  (text) => text.replace(/:("[^"]*"|\d+)/, ':1e400'),
  (text) => text.replace(/:("[^"]*"|\d+)/, ':-0.0000000001E+999999999999'),
  (text, { below }) => text.replace(/:("[^"]*"|\d+)/, `:${'9'.repeat(1 + below(3000))}`),
  (text) => text.replace(/"([^"]*)"\s*([,}\]])/, '"\\ud800$1\\udc00\\ud800"$2'),
  (text) => text.replace(/"([^"]*)"\s*([,}\]])/, '"\\u0000$1"$2'),
  (text) => text.replace(/"/, "'"),
  (text) => text.replaceAll(',', ', /* */ '),
  (text) => text.replace(/([}\]])$/, ',$1'),
  (text) => `${text}${text}`,
  (text) => `${text}\0`,
  (text, { below }) => text.slice(0, below(text.length + 1)),
  (text, { below }) => `${' '.repeat(below(3000))}${text}\n`,
  (text) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(text)]),
  (text) => Buffer.from(text, 'utf16le'),
  (text) => Buffer.from(text.replace(/"(.)/, '"\xff\xc0\xaf$1'), 'latin1'),
  (text) => Buffer.from(text.replace(/"(.)/, '"\xed\xa0\x80$1'), 'latin1'),
  (text, { below }) => text + ' '.repeat(64 * 1024 + below(3)),
  (_, { below }) => `[${'0,'.repeat(below(40_000))}0]`,
  (_, { below }) => `"${'\\u0041'.repeat(below(12_000))}"`,
  () => 'NaN',
  () => '',
]

/** The text of a body; one in some is not what JSON.stringify would make of it. */
export function textOf(value: unknown, dice: Dice): Buffer {
  const text = JSON.stringify(value) ?? ''
  return Buffer.from((dice.once(8) ? dice.pick(TEXTS)(text, dice) : text) as string)
}
