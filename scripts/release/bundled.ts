// Owns the list of packages whose code is in the executable, as scripts/build.ts found them.
import { readFileSync } from 'node:fs'

export interface Component {
  name: string
  version: string
  /** As SPDX writes it. */
  license: string
  integrity: string
  folder: string
  /** Names of the packages it asks for. */
  asksFor: string[]
}

interface Locked {
  version: string
  license: string
  integrity: string
  dependencies?: Record<string, string>
}

export function bundledPackages(): Component[] {
  const folders = JSON.parse(readFileSync('dist/bundled.json', 'utf8')) as string[]
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    packages: Record<string, Locked>
  }
  return folders.map((folder) => {
    const locked = packages[folder]
    if (locked === undefined) throw new Error(`package-lock.json has no ${folder}`)
    const { version, license, integrity, dependencies = {} } = locked
    const name = folder.replace(/^.*node_modules\//, '')
    return { name, version, license, integrity, folder, asksFor: Object.keys(dependencies) }
  })
}
