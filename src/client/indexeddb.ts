// Owns the local store in a browser's IndexedDB, which its tabs share.
import { NO_STATE, type LocalEntry, type LocalState, type LocalStore } from './local.ts'

// Just what is used of IndexedDB: these types must not ask for a browser's.
interface Request<T> {
  result: T
  error: Error | null
  onsuccess: (() => void) | null
  onerror: (() => void) | null
}

interface ObjectStore {
  get(key: string): Request<unknown>
  getAll(): Request<unknown[]>
  put(value: unknown, key: string): Request<unknown>
  delete(key: string): Request<unknown>
}

interface Transaction {
  objectStore(name: string): ObjectStore
  abort(): void
  error: Error | null
  oncomplete: (() => void) | null
  onabort: (() => void) | null
}

interface Database {
  createObjectStore(name: string): unknown
  transaction(stores: string, mode: string, o: { durability: string }): Transaction
  close(): void
  onversionchange: (() => void) | null
}

interface Factory {
  open(name: string, version: number): Request<Database> & { onupgradeneeded: (() => void) | null }
}

/** One database: name it after the app and the account, as another account needs another. */
export async function indexedDbStore(name: string): Promise<LocalStore> {
  const { indexedDB } = globalThis as unknown as { indexedDB: Factory }
  const opening = indexedDB.open(name, 1)
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore('entries')
    opening.result.createObjectStore('state')
  }
  const database = await settled(opening)
  // Else deleting the database, or a later version of this code, would wait for this tab.
  database.onversionchange = () => database.close()

  function begin(store: string, mode: 'readonly' | 'readwrite') {
    // "strict": on the disk, not only on its way there.
    const transaction = database.transaction(store, mode, { durability: 'strict' })
    return { store: transaction.objectStore(store), transaction, done: completed(transaction) }
  }

  return {
    name,
    async read(id) {
      const { store } = begin('entries', 'readonly')
      return ((await settled(store.get(id))) ?? null) as LocalEntry | null
    },
    async update(id, change) {
      const { store, transaction, done } = begin('entries', 'readwrite')
      done.catch(() => undefined) // waited for below, unless `change` throws
      const now = ((await settled(store.get(id))) ?? null) as LocalEntry | null
      let next: LocalEntry | null
      try {
        next = change(now)
      } catch (error) {
        transaction.abort()
        throw error
      }
      if (next === null) store.delete(id)
      else if (next !== now) store.put(next, id)
      await done
      return next
    },
    async all() {
      return (await settled(begin('entries', 'readonly').store.getAll())) as LocalEntry[]
    },
    async readState() {
      const { store } = begin('state', 'readonly')
      return ((await settled(store.get('state'))) ?? NO_STATE) as LocalState
    },
    async writeState(state) {
      const { store, done } = begin('state', 'readwrite')
      store.put(state, 'state')
      await done
    },
    async close() {
      database.close()
    },
  }
}

const settled = <T>(request: Request<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error ?? new Error('IndexedDB failed'))
  })

const completed = (transaction: Transaction): Promise<void> =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    transaction.onabort = () => reject(transaction.error ?? new Error('IndexedDB gave up'))
  })
