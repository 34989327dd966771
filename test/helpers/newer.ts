// Owns a program that is newer than this one by a migration, made of this one's source.
import { cpSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from './node.ts'

const project = fileURLToPath(new URL('../..', import.meta.url))

/** The newest schema that this program knows. */
export const SCHEMA = readdirSync(join(project, 'src/database/migrations')).length

/** What to start it by: see install(). */
export function newerProgram(t: TestContext): string[] {
  const folder = temporaryFolder(t)
  cpSync(join(project, 'src'), join(folder, 'src'), { recursive: true })
  symlinkSync(join(project, 'node_modules'), join(folder, 'node_modules'))
  const manifest = readFileSync(join(project, 'package.json'), 'utf8')
  writeFileSync(
    join(folder, 'package.json'),
    manifest.replace(/"version": "[^"]*"/, '"version": "99.0.0"'),
  )
  const name = `${String(SCHEMA + 1).padStart(4, '0')}-made-up.sql`
  writeFileSync(
    join(folder, 'src/database/migrations', name),
    'ALTER TABLE sync_store ADD COLUMN made_up TEXT;\n',
  )
  return [process.execPath, join(folder, 'src/main.ts')]
}
