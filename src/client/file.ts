// Owns the local store in a file, for Node, Deno and Bun: a journal of JSON lines, all of it in memory.
// oxlint-disable-next-line no-restricted-imports -- the one part that is not for browsers
import { appendFile, open, readFile, rename, type FileHandle } from 'node:fs/promises'
import { base64, fromBase64 } from './encoding.ts'
import { NO_STATE, type LocalEntry, type LocalState, type LocalStore } from './local.ts'

type Line = { id: string; entry: LocalEntry | null } | { state: LocalState }

// Before this much it is not worth rewriting.
const MIN_LINES = 1000

/**
 * One process at a time may have the file open; another account needs another file. Lines that a disk
 * damaged are put beside it, into `.damaged`.
 */
export async function fileStore(path: string): Promise<LocalStore> {
  const entries = new Map<string, LocalEntry>()
  let state = NO_STATE
  for (const line of await readLines(path)) {
    if ('state' in line) ({ state } = line)
    else if (line.entry === null) entries.delete(line.id)
    else entries.set(line.id, line.entry)
  }
  const journal = new Journal(path, () => [
    { state },
    ...[...entries].map(([id, entry]) => ({ id, entry })),
  ])
  await journal.rewrite()
  return {
    name: null,
    read: async (id) => entries.get(id) ?? null,
    async update(id, change) {
      const now = entries.get(id) ?? null
      const next = change(now)
      if (next === now) return next
      if (next === null) entries.delete(id)
      else entries.set(id, next)
      await journal.keep({ id, entry: next })
      return next
    },
    all: async () => [...entries.values()],
    readState: async () => state,
    async writeState(next) {
      state = next
      await journal.keep({ state })
    },
    close: () => journal.close(),
  }
}

class Journal {
  readonly #path: string
  readonly #all: () => Line[]
  #file: FileHandle | null = null
  #lines = 0
  #waiting: string[] = []
  #flushing: Promise<void> = Promise.resolve()
  #next: Promise<void> | null = null

  constructor(path: string, all: () => Line[]) {
    this.#path = path
    this.#all = all
  }

  /** Resolves when the line is on the disk. All that ask while one write is under way share the next. */
  keep(line: Line): Promise<void> {
    this.#waiting.push(toLine(line))
    this.#next ??= this.#flushing
      .catch(() => undefined) // those who waited for it were told
      .then(() => {
        this.#next = null
        return (this.#flushing = this.#flush())
      })
    return this.#next
  }

  /** Writes the whole anew, beside the old one until it is on the disk. */
  async rewrite(): Promise<void> {
    const unfinished = `${this.#path}.new`
    const lines = this.#all().map(toLine)
    const file = await open(unfinished, 'w', 0o600)
    try {
      await file.appendFile(lines.join(''))
      await file.sync()
      await rename(unfinished, this.#path)
      await syncFolderOf(this.#path)
    } catch (error) {
      await file.close()
      throw error
    }
    await this.#file?.close()
    this.#file = file
    this.#lines = 0
  }

  async close(): Promise<void> {
    await this.#next
    await this.#flushing
    await this.#file?.close()
  }

  async #flush(): Promise<void> {
    const lines = this.#waiting
    this.#waiting = []
    this.#lines += lines.length
    // Also after a write that failed, which may have left half a line.
    const isLong = this.#lines > MIN_LINES && this.#lines > this.#all().length * 4
    if (this.#file === null || isLong) {
      return this.rewrite()
    }
    const file = this.#file
    try {
      await file.appendFile(lines.join(''))
      await file.sync()
    } catch (error) {
      this.#file = null
      await file.close()
      throw error
    }
  }
}

async function readLines(path: string): Promise<Line[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return []
    throw error
  }
  // After the last newline stands what a crash tore: nobody was told that it is kept.
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  const damaged: string[] = []
  const lines = whole
    .split('\n')
    .filter(Boolean)
    .flatMap((one): Line[] => {
      try {
        return [fromLine(one)]
      } catch {
        damaged.push(`${one}\n`)
        return []
      }
    })
  if (damaged.length > 0) await appendFile(`${path}.damaged`, damaged.join(''), { mode: 0o600 })
  return lines
}

const toLine = (line: Line): string => `${JSON.stringify(line, replace)}\n`

const replace = (_: string, value: unknown): unknown =>
  value instanceof Uint8Array ? { $bytes: base64(value) } : value

/** Throws for what is none. Bytes are looked for only where they are: meta is whatever others made it. */
function fromLine(text: string): Line {
  const line = JSON.parse(text) as Line
  if ('state' in line) {
    if (line.state.cursor === undefined) throw new Error('no state')
    return line
  }
  const { id, entry } = line
  if (typeof id !== 'string') throw new Error('no entry')
  if (entry === null) return line
  const value = entry.value && unpack(entry.value)
  const base = entry.base && { ...entry.base, value: unpack(entry.base.value) }
  return { id, entry: { ...entry, value, base } }
}

const unpack = (packed: unknown): Uint8Array => fromBase64((packed as { $bytes: string }).$bytes)

/** Else a power cut could bring the old name back. Windows cannot open a folder. */
async function syncFolderOf(path: string): Promise<void> {
  const folder = await open(path.replace(/[^/\\]*$/, '') || '.', 'r').catch(() => null)
  await folder?.sync()
  await folder?.close()
}
