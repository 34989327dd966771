// Owns how a JSON schema is written for people: `{ id: string, device?: string }`, with what is said of
// a member above it.
type Schema = Record<string, unknown>

const INDENT = '  '

export function notation(schema: Schema, indent = ''): string {
  const { type, properties, items, anyOf, oneOf, prefixItems } = schema
  const union = (anyOf ?? oneOf) as Schema[] | undefined
  if (union !== undefined) return ofUnion(union, indent)
  if (properties !== undefined) return ofObject(schema, indent)
  if (prefixItems !== undefined) {
    return `[${(prefixItems as Schema[]).map((one) => notation(one, indent)).join(', ')}]`
  }
  if (type === 'array') return `[${notation((items ?? {}) as Schema, indent)}, …]`
  return ofScalar(schema)
}

function ofUnion(union: Schema[], indent: string): string {
  const parts = union.map((one) => notation(one, indent))
  return parts.some((part) => part.includes('\n'))
    ? parts.join(`\n${indent}or `)
    : parts.join(' | ')
}

function ofObject({ properties, required = [] }: Schema, indent: string): string {
  const inner = indent + INDENT
  const lines = Object.entries(properties as Record<string, Schema>).map(([name, member]) => {
    const mark = (required as string[]).includes(name) ? '' : '?'
    const said = descriptionOf(member)
    const comment = said === undefined ? '' : `${inner}// ${said}\n`
    return `${comment}${inner}${name}${mark}: ${notation(member, inner)}`
  })
  return `{\n${lines.join('\n')}\n${indent}}`
}

const descriptionOf = ({ description, properties, type }: Schema): string | undefined =>
  properties === undefined && type !== 'array' ? (description as string | undefined) : undefined

function ofScalar({ type, const: only, enum: some, minimum, maximum }: Schema): string {
  if (only !== undefined) return JSON.stringify(only)
  if (Array.isArray(some)) return some.map((one) => JSON.stringify(one)).join(' | ')
  const isBounded = typeof minimum === 'number' && typeof maximum === 'number'
  return `${typeof type === 'string' ? type : 'anything'}${isBounded ? ` (${minimum} to ${maximum})` : ''}`
}
