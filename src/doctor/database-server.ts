// Owns the look at a database server: whether it answers, and has the data of these settings.
import type { Config, DatabaseServer } from '../config.ts'
import type { Database } from '../database/database.ts'
import { checkSchema } from '../database/migrate.ts'
import { open } from '../database/remote.ts'
import * as checks from './database.ts'
import { attempt, ok, warning, type Finding } from './finding.ts'

/** `checkMore` looks at what the database names, where that can be read. */
export async function* checkDatabaseServer(
  config: Config,
  server: DatabaseServer,
  checkMore: (database: Database) => AsyncGenerator<Finding>,
): AsyncGenerator<Finding> {
  const silent = { isServer: false, onWarning: () => undefined, onChange: () => undefined }
  const database = await open({ ...server, ...silent })
  try {
    const answer = await attempt('database', async () => {
      await database.execute('SELECT 1')
      return ok('database', 'the server answers')
    })
    yield* answer
    yield warning('durability', DURABILITY)
    if (answer.some(({ level }) => level === 'problem')) return
    const data = await checkData(config, database)
    yield* data
    if (data.every(({ check, level }) => check !== 'schema' || level === 'ok')) {
      yield* checkMore(database)
    }
  } finally {
    database.close()
  }
}

const DURABILITY =
  'a write is as safe as the database server makes it: sqld syncs at its checkpoints alone, and without them can stop taking writes while several wait, so start it with --checkpoint-interval-s 2, or use a service that replicates before it answers'

async function checkData(config: Config, database: Database): Promise<Finding[]> {
  const schema = await attempt('schema', async () => {
    await checkSchema(database)
    return ok('schema', "this program's")
  })
  if (schema.some(({ level }) => level === 'problem')) return schema
  const { rows } = await database.execute('SELECT secret_check FROM node')
  return [
    ...schema,
    checks.checkSecret(config, String(rows[0]?.['secret_check'])),
    ...(await attempt('references', () => checks.checkReferences(database))),
    ...(await attempt('sums', () => checks.checkSums(database))),
  ]
}
