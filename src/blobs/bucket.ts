// Owns what is asked of a bucket: objects by name, uploads in parts, and lists of both.
import { hash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Part, State } from './blobs.ts'
import { Away, Transient, judge, openCalls, readText, type Calls, type Place } from './calls.ts'
import { escaped, itemsOf, valueOf } from './xml.ts'

export type Bucket = ReturnType<typeof openBucket>

export interface Parts {
  name: string
  id: string
}

interface Listed {
  name: string
  /** By the bucket's clock, as `now` of a list is. */
  modified: number
}

interface Stored extends Listed {
  size: number
}

interface Opened {
  /** Bytes of the whole object. */
  size: number
  incoming: IncomingMessage
}

const LIST_PAGE = '1000'
// A store may look through all parts of a value before it says that it has put them together.
const COMPLETING_MS = 60_000

export function openBucket(place: Place, onState: (state: State, reason: string) => void) {
  const calls = openCalls(place, onState)
  const { state, quietMs, close } = calls
  return { state, quietMs, close, ...objects(calls), ...uploads(calls), ...lists(calls, place) }
}

function objects({ call, insist, send }: Calls) {
  return {
    async put(name: string, body: Uint8Array, sha256: string): Promise<void> {
      const { status } = await call({ method: 'PUT', name, body, sha256 })
      if (status === 404) throw new Away('refused', 'it answers 404')
    },

    /** The text of a small object, or null. */
    async getText(name: string): Promise<string | null> {
      const { status, text } = await call({ method: 'GET', name })
      return status === 404 ? null : text
    },

    /** Its bytes, or null. */
    async size(name: string): Promise<number | null> {
      const { status, headers } = await call({ method: 'HEAD', name })
      return status === 404 ? null : Number(headers['content-length'])
    },

    async remove(name: string): Promise<void> {
      await call({ method: 'DELETE', name })
    },

    /** A part of an object as it flows, or null. */
    get: (name: string, { start, end }: Part): Promise<Opened | null> =>
      insist(async () => {
        const headers = { range: `bytes=${start}-${end}` }
        const incoming = await send({ method: 'GET', name, headers })
        const status = incoming.statusCode ?? 0
        if (status === 206) {
          return { size: Number(incoming.headers['content-range']?.split('/')[1]), incoming }
        }
        const text = await readText(incoming)
        judge({ status, headers: incoming.headers, text })
        if (status === 404) return null
        // It ends before the part begins.
        if (status === 416) return { size: 0, incoming }
        throw new Away('refused', `it answers ${status} to a range`)
      }),
  }
}

function uploads({ ask, call, insist }: Calls) {
  return {
    async begin(name: string): Promise<Parts> {
      const { text } = await call({ method: 'POST', name, query: { uploads: '' } })
      const id = valueOf(text, 'UploadId')
      if (id === undefined) throw new Away('refused', 'it takes no uploads in parts')
      return { name, id }
    },

    /** Answers the ETag. */
    async putPart(
      { name, id, number }: Parts & { number: number },
      body: Uint8Array,
      sha256: string,
    ): Promise<string> {
      const query = { partNumber: String(number), uploadId: id }
      const { headers, status } = await call({ method: 'PUT', name, query, body, sha256 })
      if (status === 404 || headers.etag === undefined) throw lost()
      return headers.etag
    },

    /** Makes the parts with these ETags the object, of so many bytes. */
    async complete({ name, id }: Parts, etags: string[], bytes: number): Promise<void> {
      const parts = etags.map(
        (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escaped(etag)}</ETag></Part>`,
      )
      const xml = `<CompleteMultipartUpload>${parts.join('')}</CompleteMultipartUpload>`
      const body = Buffer.from(xml)
      const sha256 = hash('sha256', body)
      await insist(async (attempt) => {
        const query = { uploadId: id }
        const idleMs = COMPLETING_MS
        const { status, text } = await ask({ method: 'POST', name, query, body, sha256, idleMs })
        // A 200 comes before it knows.
        const code = valueOf(text, 'Code')
        if (status === 200 && code === undefined) return
        if (status === 200) throw new Transient(`it answers ${code}`)
        // An attempt before this one may have done it, and its answer was lost.
        const { headers } = await ask({ method: 'HEAD', name })
        if (attempt === 1 || Number(headers['content-length']) !== bytes) throw lost()
      })
    },

    async abort({ name, id }: Parts): Promise<void> {
      await call({ method: 'DELETE', name, query: { uploadId: id } })
    },
  }
}

const lost = (): Away => new Away('refused', 'it has lost an upload')

function lists({ call }: Calls, { prefix }: Place) {
  const nameIn = (item: string): string => (valueOf(item, 'Key') ?? '').slice(prefix.length)

  /** All objects in the order of their names, or those after one, a page at a time. */
  async function* list(after?: string): AsyncGenerator<{ now: number; objects: Stored[] }> {
    for (let token: string | undefined = ''; token !== undefined;) {
      const query = { 'list-type': '2', prefix, 'max-keys': LIST_PAGE }
      const first = after === undefined ? {} : { 'start-after': prefix + after }
      const more = token === '' ? first : { 'continuation-token': token }
      const { headers, text } = await call({ method: 'GET', query: { ...query, ...more } })
      const found = itemsOf(text, 'Contents').map((item) => ({
        name: nameIn(item),
        modified: Date.parse(valueOf(item, 'LastModified') ?? ''),
        size: Number(valueOf(item, 'Size')),
      }))
      yield { now: Date.parse(headers.date ?? ''), objects: found }
      const isMore = valueOf(text, 'IsTruncated') === 'true'
      token = isMore ? valueOf(text, 'NextContinuationToken') : undefined
    }
  }

  return {
    list,

    /** The bytes of those of these names, which are in order, that are there. */
    async sizes(names: string[]): Promise<Map<string, number>> {
      const found = new Map<string, number>()
      const [first = '', last = ''] = [names[0], names.at(-1)]
      const wanted = new Set(names)
      // What a name begins with comes before it.
      for await (const { objects } of list(first.slice(0, -1))) {
        for (const { name, size } of objects) if (wanted.has(name)) found.set(name, size)
        // A page may be empty, and not the last.
        if ((objects.at(-1)?.name ?? '') >= last) break
      }
      return found
    },

    /** Throws Away unless it can be listed. */
    async look(): Promise<void> {
      const query = { 'list-type': '2', prefix, 'max-keys': '1' }
      const { status } = await call({ method: 'GET', query })
      if (status === 404) throw new Away('refused', 'it answers 404')
    },

    /** Some of the uploads in parts that are neither complete nor aborted. */
    async listUploads(): Promise<{ now: number; uploads: (Listed & Parts)[] }> {
      const query = { uploads: '', prefix, 'max-uploads': LIST_PAGE }
      const { headers, text } = await call({ method: 'GET', query })
      const found = itemsOf(text, 'Upload').map((item) => ({
        name: nameIn(item),
        id: valueOf(item, 'UploadId') ?? '',
        modified: Date.parse(valueOf(item, 'Initiated') ?? ''),
      }))
      return { now: Date.parse(headers.date ?? ''), uploads: found }
    },
  }
}
