// Owns programs of other schemas: one that is newer by a migration, made of this one's source, and the
// data of an older one.
import { cpSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
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

/** Makes the data as the program before the last migration left it. */
export function takeBack(root: string): void {
  const database = new DatabaseSync(join(root, 'sync-node.db'))
  // At once: a cut between them would leave what no program ever did.
  database.exec(`BEGIN; ALTER TABLE node DROP COLUMN version;
    DELETE FROM migration WHERE number = 3; UPDATE node SET schema = 2; COMMIT`)
  database.close()
}
