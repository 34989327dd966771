// Owns gathering a small body in memory: one buffer, however finely the body is cut.

export interface Gathered {
  add(chunk: Uint8Array): void
  bytes(): Uint8Array
}

const FIRST_BYTES = 1024

/** A buffer that grows with what is added. A list of chunks would cost a hundred bytes for each one. */
export function gather(): Gathered {
  let buffer = new Uint8Array(FIRST_BYTES)
  let length = 0
  return {
    add(chunk) {
      if (length + chunk.length > buffer.length) {
        const grown = new Uint8Array(Math.max(buffer.length * 2, length + chunk.length))
        grown.set(buffer.subarray(0, length))
        buffer = grown
      }
      buffer.set(chunk, length)
      length += chunk.length
    },
    bytes: () => buffer.subarray(0, length),
  }
}
