// Owns the licences of all code in the executable that is not ours: of the bundled packages, and of Node.
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Component } from './bundled.ts'

/** Packages that come without the text of their MIT licence, and whose copyright it is. */
const COPYRIGHT: Record<string, string> = { '@libsql/core': 'Copyright (c) 2023 libSQL' }

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

function licenseOf({ name, folder }: Component): string {
  const file = readdirSync(folder).find((one) => /^licen[cs]e(\.|$)/i.test(one))
  if (file !== undefined) return readFileSync(join(folder, file), 'utf8')
  const holder = COPYRIGHT[name]
  if (holder === undefined) throw new Error(`${folder} comes without its licence`)
  return readFileSync('LICENSE', 'utf8').replace(/^Copyright .*$/m, holder)
}
