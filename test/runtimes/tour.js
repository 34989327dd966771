// Owns what the built client does in every runtime: the arguments are the server's address and a folder
// for a replica; what went wrong is thrown.
import assert from 'node:assert/strict'
import { ConflictError, connect, passphraseCodec } from '../../dist/client.js'
import { fileStore } from '../../dist/file.js'
import { openReplica } from '../../dist/replica.js'

const [, , url, folder] = globalThis.process.argv
const toText = (bytes) => new TextDecoder().decode(bytes)
const id = globalThis.crypto.randomUUID()
const client = connect({ url, codec: passphraseCodec('a passphrase', { salt: id }) })
await client.register({ id, password: 'correct horse battery' })

const todo = client.store('notes/todo')
await todo.put('milk')
await assert.rejects(todo.put('bread', { token: '0' }), ConflictError)
await todo.update((now) => `${toText(now)}, bread`)
assert.equal(toText((await todo.get()).value), 'milk, bread')

// A change arrives while the feed is open.
let written
for await (const event of client.changes({ live: true })) {
  if (event.type === 'live') written ??= client.store('second').put('2')
  if (event.type === 'change' && event.change.name === 'second') break
}
await written

const options = { client, merge: ({ local }) => local }
const replica = await openReplica({ ...options, local: await fileStore(folder) })
await replica.put('third', 'written here first')
await replica.synced()
await replica.stop()
const names = (await client.list()).stores.map(({ name }) => name)
assert.deepEqual(new Set(names), new Set(['notes/todo', 'second', 'third']))

const again = await openReplica({ ...options, local: await fileStore(folder) })
assert.equal(toText(await again.get('third')), 'written here first')
await again.stop()
