// Owns the client's entry: connect(), and all else that an app imports from here.
import { passwordCalls, sessionCalls } from './account.ts'
import { runBatch } from './batch.ts'
import { canStream, readFeed } from './changes.ts'
import { identity, withName } from './meta.ts'
import { RemoteStore } from './store.ts'
import { Transport } from './transport.ts'
import type { Client, ConnectOptions, ServerInfo, StoreInfo } from './types.ts'

export { ConflictError, SyncError } from './errors.ts'
export { passphraseCodec } from './passphrase.ts'
export type * from './types.ts'
export type { Problem } from './errors.ts'
export type { PassphraseOptions } from './passphrase.ts'

/** A client of the server at `url`. Asks nothing until it is told to. */
export function connect(o: ConnectOptions): Client {
  const { codec = identity } = o
  const transport = new Transport(o)
  return {
    get token() {
      return transport.session.token
    },
    get user() {
      return transport.session.user
    },
    onSession: (listener) => transport.watch(listener),
    ...sessionCalls(transport),
    ...passwordCalls(transport),
    store: (nameOrKey) => new RemoteStore(transport, codec, nameOrKey),
    async info({ signal } = {}) {
      const asked = { method: 'GET', path: '/info', read: 'json', signal } as const
      return (await transport.call({ ...asked, anonymous: true })).body as ServerInfo
    },
    async list({ signal } = {}) {
      const asked = { method: 'GET', path: '/store', read: 'json', signal } as const
      const { body, headers } = await transport.call(asked)
      const limit = headers.get('x-sync-quota-limit')
      return {
        stores: await Promise.all((body as StoreInfo[]).map((info) => withName(codec, info))),
        used: Number(headers.get('x-sync-quota-used')),
        limit: limit === null ? null : Number(limit),
      }
    },
    changes: (options = {}) =>
      readFeed({
        ...options,
        transport,
        codec,
        mayStream: o.stream ?? canStream(),
        ends: o.signal,
      }),
    batch: (operations, options) => runBatch(transport, codec, operations, options),
  }
}
