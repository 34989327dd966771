// Owns what the rest of the server may ask of the place where large values are, be it a folder or a bucket.

export interface Upload {
  name: string
  write(chunk: Uint8Array): Promise<void>
  /** Resolves when the value survives a power cut, as far as its place promises that. */
  finish(): Promise<void>
  /** What is there stays as it is, for the next start to look at. */
  leave(): Promise<void>
  discard(): Promise<void>
  /** Throws ERR05 for one so old that it may be taken for left over: no row may name it any more. */
  checkAge(): void
}

export interface Part {
  start: number
  /** Inclusive. */
  end: number
}

/** A value that is open. */
export interface Reading {
  /** Bytes of the whole value, as they are there. */
  size: number
  /** Reads the next bytes of the part that was asked for, and answers how many: fewer only at its end. */
  read(buffer: Uint8Array, length: number, position: number): Promise<number>
  close(): Promise<void>
}

/** `unreachable` passes by itself; what is `refused` needs its operator. */
export type State = 'ok' | 'unreachable' | 'refused'

export interface Blobs {
  /** Values found damaged since the start: they are not sent again. */
  damaged: Set<string>
  /** How long a superseded value stays. */
  graceMs: number
  /** Other nodes may write there: what is left over is looked for once a day, by one of them. */
  isShared: boolean
  /** `length` is what the client says, in bytes. Throws ERR05, SIZE03. */
  create(length?: number): Promise<Upload>
  /** Undefined when it is not there. */
  read(name: string, part: Part): Promise<Reading | undefined>
  /** Its bytes, or undefined when it is not there. */
  size(name: string): Promise<number | undefined>
  /** The same of some at once, whose names are in order; what is not there is left out. */
  sizes(names: string[]): Promise<Map<string, number>>
  remove(names: string[]): Promise<void>
  /** What others than this start wrote, so long ago that what has no row is left over. */
  listEarlier(): AsyncIterable<string[]>
  /** Takes away what is left over; `now` names the day. False when it is not there. */
  setAside(name: string, now: number): Promise<boolean>
  /** Removes for good what is known to be left over. */
  tidy(now: number): Promise<void>
  state(): Promise<State>
  close(): Promise<void>
}

/** The bytes of an open value, in chunks of their own. */
export async function* chunksOf(
  reading: Reading,
  chunkBytes: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let position = 0; position < reading.size;) {
    const buffer = new Uint8Array(Math.min(chunkBytes, reading.size - position))
    const bytes = await reading.read(buffer, buffer.length, position)
    if (bytes === 0) return
    position += bytes
    yield buffer.subarray(0, bytes)
  }
}
