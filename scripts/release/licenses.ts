// Owns the licences of all code in the executable that is not ours: of the bundled packages, and of Node.
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Component } from './bundled.ts'

/** Packages that come without the text of their licence (MIT or ISC), and whose copyright it is. */
const COPYRIGHT: Record<string, string> = {
  '@libsql/client': 'Copyright (c) 2023 libSQL',
  '@libsql/core': 'Copyright (c) 2023 libSQL',
  '@libsql/isomorphic-ws': 'Copyright 2023 the sqld authors',
  'promise-limit': 'Copyright (c) Tim Macfarlane',
}

export function thirdPartyLicenses(packages: Component[], node: string): string {
  const parts = packages.map((one) => [
    `${one.name} ${one.version} (${one.license})`,
    licenseOf(one).trim(),
  ])
  parts.push([
    `Node.js ${process.versions.node}, and what it contains`,
    readFileSync(join(node, 'LICENSE'), 'utf8').trim(),
  ])
  const intro = 'Sync Node contains the following, each under its own licence.'
  const rule = '-'.repeat(80)
  return (
    [intro, ...parts.map(([title, text]) => `${rule}\n${title}\n\n${text}`)].join('\n\n') + '\n'
  )
}

const ISC = `Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is
hereby granted, provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE
INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR
ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE,
DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN
CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

function licenseOf({ name, folder, license }: Component): string {
  const file = readdirSync(folder).find((one) => /^licen[cs]e(\.|$)/i.test(one))
  if (file !== undefined) return readFileSync(join(folder, file), 'utf8')
  const holder = COPYRIGHT[name]
  if (holder === undefined) throw new Error(`${folder} comes without its licence`)
  if (license === 'ISC') return `${holder}\n\n${ISC}`
  return readFileSync('LICENSE', 'utf8').replace(/^Copyright .*$/m, holder)
}
