// Owns the look at the database: whether it is whole, made as this program makes it, and adds up.
import { statSync } from 'node:fs'
import type { Database } from '../database/database.ts'
import { ownSchema, schemaOf } from '../database/inspect.ts'
import { checkSchema, isFresh } from '../database/migrate.ts'
import { Refusal } from '../errors.ts'
import { deriveKeys } from '../secret.ts'
import * as secrets from '../secret.ts'
import { count, toSize } from '../units.ts'
import { ok, problem, warning, type Finding } from './finding.ts'

const MOST_NAMED = 20
const MOST_LOG_BYTES = 128 * 1024 * 1024

/** Reads every page; `isDeep` compares each index with its table too. */
export async function checkIntegrity(database: Database, isDeep: boolean): Promise<Finding> {
  const pragma = isDeep ? 'integrity_check' : 'quick_check'
  const { rows } = await database.execute(`PRAGMA ${pragma}(${MOST_NAMED})`)
  const found = rows.map((row) => String(row[pragma])).filter((line) => line !== 'ok')
  if (found.length === 0) return ok('database', isDeep ? 'whole, indexes too' : 'whole')
  return problem('database', 'sync-node.db is damaged: restore a backup', found)
}

/** Rows that refer to what is not there. */
export async function checkReferences(database: Database): Promise<Finding> {
  const { rows } = await database.execute(
    'SELECT "table" AS name, count(*) AS rows FROM pragma_foreign_key_check GROUP BY 1',
  )
  if (rows.length === 0) return ok('references', 'all rows refer to what is there')
  const named = rows.map((row) => `${String(row['name'])}: ${count(Number(row['rows']), 'row')}`)
  return problem('references', 'rows refer to what is not there: restore a backup', named)
}

/** Only on this program's own schema can the rest be asked for. */
export async function checkSchemaOf(database: Database): Promise<Finding> {
  if (await isFresh(database)) {
    return problem('schema', 'sync-node.db is empty: restore a backup, or start the server')
  }
  try {
    await checkSchema(database)
  } catch (error) {
    if (error instanceof Refusal) return problem('schema', error.message)
    throw error
  }
  const [expected, found] = [await ownSchema(), await schemaOf(database)]
  const names = [...new Set([...expected.keys(), ...found.keys()])]
  const different = names.flatMap((name) => {
    if (expected.get(name) === found.get(name)) return []
    const how = found.has(name) ? (expected.has(name) ? 'changed' : 'added') : 'missing'
    return `${name}: ${how}`
  })
  if (different.length === 0) return ok('schema', 'as this program makes it')
  const text = 'something else than sync-node changed the schema: restore a backup'
  return problem('schema', text, different.slice(0, MOST_NAMED))
}

/** `made` is what the database says of the secret it was made with. */
export function checkSecret(
  { root, secretKey }: { root: string; secretKey: string | null },
  made: string | undefined,
): Finding {
  const secret = secretKey ?? secrets.read(root)
  if (secret === undefined) {
    const text =
      'the file secret is missing: restore it, or set SECRET_KEY; never let a new one be made'
    return problem('secret', text)
  }
  if (secret === null) return problem('secret', 'the file secret holds no secret: restore it')
  if (made === undefined) return ok('secret', 'there; no data says whether it is the right one')
  if (deriveKeys(secret).check === made) return ok('secret', 'the one this data was made with')
  const where = secretKey === null ? 'the file secret' : 'SECRET_KEY'
  return problem('secret', `${where} is not the one this data was made with: restore that one`)
}

export function checkLog(path: string, isServing: boolean): Finding {
  const bytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0
  if (bytes > MOST_LOG_BYTES) {
    const text = `sync-node.db-wal has grown to ${toSize(bytes)}: another program may keep the database open; restart the server`
    return warning('log', text)
  }
  if (bytes === 0 || isServing) return ok('log', toSize(bytes))
  return ok(
    'log',
    `${toSize(bytes)} of a server that did not stop cleanly: the next start takes it in`,
  )
}

const ACCOUNT_SUMS = `
  SELECT a.id, a.used, a.dead, coalesce(sum(s.size), 0) AS real
  FROM sync_account a
  LEFT JOIN account_permission p ON p.sync_account_id = a.number AND p.permission = 'OWN'
  LEFT JOIN sync_store s ON s.store_key = p.store_key
  GROUP BY a.number HAVING a.used <> real`

// One statement, so that nothing is written between one sum and the next.
const NODE_SUMS = `
  SELECT n.stores, n.bytes, n.garbage, s.stores AS real_stores, s.bytes AS real_bytes,
    (SELECT count(*) FROM blob_garbage) AS real_garbage
  FROM node n, (SELECT count(*) AS stores, coalesce(sum(size), 0) AS bytes FROM sync_store) s`

/** What is kept with each write, added up anew. */
export async function checkSums(database: Database): Promise<Finding> {
  const accounts = await database.execute(ACCOUNT_SUMS)
  const [node] = (await database.execute(NODE_SUMS)).rows
  const wrong = accounts.rows.map((row) => {
    const whose = row['dead'] === 1 ? 'a deleted account' : String(row['id'])
    return `${whose}: ${String(row['used'])} bytes are counted, it owns ${String(row['real'])}`
  })
  for (const name of ['stores', 'bytes', 'garbage']) {
    const [kept, real] = [String(node?.[name]), String(node?.[`real_${name}`])]
    if (kept !== real) wrong.push(`node: ${name} is ${kept}, and should be ${real}`)
  }
  if (wrong.length === 0) return ok('sums', 'each account is counted what it owns')
  const text = 'what is counted is not what is stored, so quotas are wrong: report this fault'
  return problem('sums', text, wrong.slice(0, MOST_NAMED))
}
