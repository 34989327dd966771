// Owns accounts that tests need by the hundred: made as the server makes them, but for the Argon2 hash.
import * as account from '../../src/account.ts'
import { toHandle } from '../../src/handle.ts'
import * as session from '../../src/session.ts'
import { client, type Client } from './client.ts'
import type { TestNode } from './node.ts'

/** A new account without a password, and a session on it. */
export async function openAccount(node: TestNode, id: string): Promise<Client> {
  const { deps } = node.running
  const handle = toHandle(deps, id)
  await deps.database.batch(account.create(deps, { handle, phc: '' }), 'write')
  return openSession(node, { id, user: handle })
}

/** One more session of an account. */
export async function openSession(
  node: TestNode,
  { id, user }: Pick<Client, 'id' | 'user'>,
): Promise<Client> {
  const { deps } = node.running
  const { opened, statements } = session.open(deps, { handle: user, device: undefined })
  await deps.database.batch(statements, 'write')
  return client(node, id, opened)
}

export async function openAccounts<const Ids extends readonly string[]>(
  node: TestNode,
  ids: Ids,
): Promise<{ -readonly [Id in keyof Ids]: Client }> {
  const accounts = await Promise.all(ids.map((id) => openAccount(node, id)))
  return accounts as { -readonly [Id in keyof Ids]: Client }
}
