// Owns reading what a server sends, and takes nothing for an answer that is not HTTP to the letter.

export interface Answer {
  status: number
  /** By lower-case name. */
  headers: Map<string, string>
  body: Buffer
}

/** Bytes that are no answer. */
export class NotHttp extends Error {}

const HEAD_END = '\r\n\r\n'
const FIRST = /^HTTP\/1\.1 ([1-5]\d\d) [ -~]*$/
const FIELD = /^([!#$%&'*+.^_`|~\w-]+): ?([\t -~]*)$/
const CHUNK_SIZE = /^[\da-f]+$/i
const BARE = new Set([204, 304])
const MOST_HEAD_BYTES = 64 * 1024

/**
 * The answer that `bytes` begin with, and its length there; null when there is more to come. Whether it
 * is to a HEAD is not always known: then what comes next tells.
 */
export function readAnswer(
  bytes: Buffer,
  toHead: boolean | 'unknown',
): { answer: Answer; length: number } | null {
  const headEnd = bytes.indexOf(HEAD_END)
  if (headEnd < 0) {
    if (bytes.length > MOST_HEAD_BYTES) throw new NotHttp('no end of the headers')
    return null
  }
  const [first = '', ...lines] = bytes.toString('latin1', 0, headEnd).split('\r\n')
  const status = Number(FIRST.exec(first)?.[1])
  if (Number.isNaN(status)) throw new NotHttp(`not a status line: ${JSON.stringify(first)}`)
  const headers = readFields(lines)
  const start = headEnd + HEAD_END.length
  const answer = (body: Buffer, end: number) => ({
    answer: { status, headers, body },
    length: end,
  })
  const isNext = toHead === 'unknown' && bytes.subarray(start, start + 9).equals(NEXT)
  if (status < 200 || BARE.has(status) || toHead === true || isNext) {
    return answer(Buffer.alloc(0), start)
  }
  if (headers.get('transfer-encoding') === 'chunked') {
    const chunks = readChunks(bytes, start)
    return chunks && answer(chunks.body, chunks.end)
  }
  const end = start + lengthOf(headers, toHead)
  return bytes.length < end ? null : answer(bytes.subarray(start, end), end)
}

function lengthOf(headers: Map<string, string>, toHead: boolean | 'unknown'): number {
  const length = headers.get('content-length') ?? ''
  if (length === '' && toHead === 'unknown') return 0
  if (!/^\d+$/.test(length)) throw new NotHttp('an answer without its length')
  return Number(length)
}

const NEXT = Buffer.from('HTTP/1.1 ')

function readFields(lines: string[]): Map<string, string> {
  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name = '', value = ''] = FIELD.exec(line) ?? []
    if (name === '') throw new NotHttp(`not a header: ${JSON.stringify(line)}`)
    if (headers.has(name.toLowerCase())) throw new NotHttp(`a header stands twice: ${name}`)
    headers.set(name.toLowerCase(), value)
  }
  if (headers.has('transfer-encoding') && headers.has('content-length')) {
    throw new NotHttp('two lengths of one body')
  }
  return headers
}

function readChunks(bytes: Buffer, start: number): { body: Buffer; end: number } | null {
  const chunks: Buffer[] = []
  for (let at = start; ;) {
    const lineEnd = bytes.indexOf('\r\n', at)
    if (lineEnd < 0) return null
    const line = bytes.toString('latin1', at, lineEnd)
    if (!CHUNK_SIZE.test(line)) throw new NotHttp(`not the size of a chunk: ${line.slice(0, 40)}`)
    const from = lineEnd + 2
    const to = from + parseInt(line, 16)
    if (bytes.length < to + 2) return null
    if (bytes.toString('latin1', to, to + 2) !== '\r\n')
      throw new NotHttp('a chunk without its end')
    if (to === from) return { body: Buffer.concat(chunks), end: to + 2 }
    chunks.push(bytes.subarray(from, to))
    at = to + 2
  }
}
