// Owns an upload that a test holds open: its body is sent piece by piece, while other things happen.
import { request as httpRequest } from 'node:http'
import { encodeKey, type Client } from './client.ts'
import { eventually } from './eventually.ts'
import type { TestNode } from './node.ts'
import { blobFiles } from './rows.ts'

export interface Upload {
  write(chunk: Uint8Array): void
  end(): void
  /** Comes when the server answers, be the body ended or not. */
  answer: Promise<Response>
  abort(): void
}

/** Starts a PUT in chunks. */
export function startUpload(
  node: TestNode,
  self: Client,
  key: string,
  headers: Record<string, string> = {},
): Upload {
  const request = httpRequest(`${node.url}/store/${encodeKey(key)}`, {
    method: 'PUT',
    agent: false,
    headers: { ...self.headers, ...headers },
  })
  const answer = new Promise<Response>((resolve, reject) => {
    request.on('response', (incoming) => {
      const chunks: Buffer[] = []
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
      incoming.on('error', reject)
      incoming.on('end', () => {
        const { statusCode: status = 0, headersDistinct } = incoming
        const flat = Object.entries(headersDistinct).map(
          ([name, values = []]) => [name, values.join(', ')] as [string, string],
        )
        const body = status === 204 ? null : Buffer.concat(chunks)
        resolve(new Response(body, { status, headers: flat }))
        request.destroy()
      })
    })
    // A server that has answered may close before the body has been sent: the answer came first.
    request.on('error', reject)
  })
  answer.catch(() => undefined)
  request.flushHeaders()
  return {
    write: (chunk) => void request.write(chunk),
    end: () => void request.end(),
    answer,
    abort: () => void request.destroy(),
  }
}

/** Starts one of so many bytes; resolves when the server has let it in and keeps it in a file. */
export async function hold(
  node: TestNode,
  self: Client,
  key: string,
  { size = 100_000, headers = {} }: { size?: number; headers?: Record<string, string> } = {},
): Promise<Upload> {
  const before = blobFiles(node).length
  const upload = startUpload(node, self, key, headers)
  upload.write(Buffer.alloc(size))
  await eventually(() => blobFiles(node).length, before + 1)
  return upload
}

export function finish(upload: Upload): Promise<Response> {
  upload.end()
  return upload.answer
}
