// Owns the temporary account that goes the way of people's devices, made and removed in the database.
import { create } from '../../account.ts'
import { sql, toBytes } from '../../database/database.ts'
import type { Deps } from '../../deps.ts'
import { toHandle } from '../../handle.ts'
import * as session from '../../session.ts'
import { unique } from '../../token.ts'

export interface Visitor {
  id: string
  password: string
  /** The handle. */
  user: string
  /** Of its session. */
  token: string
  keySalt: Uint8Array
}

export async function makeVisitor(deps: Deps): Promise<Visitor> {
  const { database, passwords, random } = deps
  const id = `doctor ${unique(random)}`
  const password = unique(random)
  const user = toHandle(deps, id)
  const phc = await passwords.hash(password)
  const { opened, statements } = session.open(deps, { handle: user, device: 'sync-node doctor' })
  await database.batch([...create(deps, { handle: user, phc }), ...statements], 'write')
  const { rows } = await database.execute(
    sql('SELECT key_salt FROM sync_account WHERE id = ?', [user]),
  )
  return { id, password, user, token: opened.token, keySalt: toBytes(rows[0]?.['key_salt']) }
}
