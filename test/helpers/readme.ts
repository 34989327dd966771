// Owns what tests run of README.md: its blocks of commands, by the name that stands behind their language.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'

export const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')

/** The commands of a block. */
export function block(name: string): string {
  const found = new RegExp(`^\`\`\`sh ${name}\\n([^]*?)\`\`\``, 'm').exec(readme)
  assert.ok(found, `there is no block ${name}`)
  return found[1] as string
}
