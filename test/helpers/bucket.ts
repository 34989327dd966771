// Owns a store that speaks S3, in memory, for tests: it checks signatures and digests as strictly as the
// strictest, and fails as it is told.
import { createHash, createHmac, hash, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { TestContext } from 'node:test'

interface Kept {
  bytes: Buffer
  modified: number
}

/** A status, with the code S3 gives it; a connection that is cut, or never answered; an answer cut in half. */
export type Fault = { status: number; code: string } | 'cut' | 'hang' | 'half'

export interface FakeBucket {
  /** For BLOB_URL, with its credentials. */
  environment: Record<string, string>
  endpoint: string
  objects: Map<string, Kept>
  uploads: Map<string, { key: string; begun: number; parts: Map<number, Buffer> }>
  /** Values that the node has begun to take, and how much of them it has. */
  unfinished: Map<string, number>
  /** How many the node reads at this moment. */
  reading: number
  /** What it was asked, as `PUT name`. */
  calls: string[]
  /** Asked before each call; undefined is to do it. */
  fault: ((call: string) => Fault | undefined) | null
  /** The values among the objects. */
  values(): string[]
  /** Its clock goes ahead. */
  advance(ms: number): void
  /** Breaks every connection off, until `comeBack`: its port stays its own. */
  goAway(): void
  comeBack(): void
}

const BUCKET = 'values'
const REGION = 'garage'
const PAGE = 1000

export async function startBucket(
  t: Pick<TestContext, 'after'>,
  { page = PAGE, prefix = 'of/ana', sessionToken = '' } = {},
): Promise<FakeBucket> {
  const keyId = randomBytes(8).toString('hex')
  const secret = randomBytes(16).toString('hex')
  let ahead = 0
  let isAway = false
  const now = (): number => Date.now() + ahead
  const fake: FakeBucket = {
    environment: {},
    endpoint: '',
    objects: new Map(),
    uploads: new Map(),
    unfinished: new Map(),
    reading: 0,
    calls: [],
    fault: null,
    values: () => [...fake.objects.keys()].filter((key) => /\d+-\w{26}$/.test(key)).sort(),
    advance(ms) {
      ahead += ms
    },
    goAway() {
      isAway = true
      server.closeAllConnections()
    },
    comeBack() {
      isAway = false
    },
  }

  async function take(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const call = nameOf(incoming)
    fake.calls.push(call)
    const fault = fake.fault?.(call)
    if (fault === 'hang') return
    if (fault === 'cut') return void incoming.socket.destroy()
    const body = await buffer(incoming)
    const refusal = check(incoming, body, { keyId, secret, sessionToken })
    const answer =
      typeof fault === 'object' ? fault : (refusal ?? answerTo({ fake, page, now }, incoming, body))
    send(outgoing, answer, { incoming, now, isHalf: fault === 'half' })
  }

  const server = createServer((incoming, outgoing) => {
    take(incoming, outgoing).catch(() => outgoing.destroy())
  })
  server.on('connection', (socket) => {
    if (isAway) socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  fake.endpoint = `http://127.0.0.1:${port}`
  fake.environment = {
    BLOB_URL: `s3://${BUCKET}/${prefix}?endpoint=${fake.endpoint}&region=${REGION}`,
    AWS_ACCESS_KEY_ID: keyId,
    AWS_SECRET_ACCESS_KEY: secret,
    AWS_SESSION_TOKEN: sessionToken,
  }
  return fake
}

/** The method and the last part of the path, or what of the bucket is asked for. */
function nameOf({ method, url = '' }: IncomingMessage): string {
  const { pathname, searchParams } = new URL(url, 'http://s3')
  const query = [...searchParams.keys()].filter((name) => !/^(?:prefix|max-)/.test(name))
  return [method, pathname.split('/').at(-1), ...query].filter(Boolean).join(' ')
}

interface Reply {
  status: number
  code?: string
  body?: Buffer
  headers?: Record<string, string>
}

function send(
  outgoing: ServerResponse,
  { status, code, body, headers = {} }: Reply,
  { incoming, now, isHalf }: { incoming: IncomingMessage; now: () => number; isHalf: boolean },
): void {
  const bytes =
    code === undefined ? (body ?? Buffer.alloc(0)) : Buffer.from(xml('Error', { Code: code }))
  outgoing.writeHead(status, {
    Date: new Date(now()).toUTCString(),
    'Content-Length': bytes.length,
    ...headers,
  })
  if (!isHalf || bytes.length < 2) outgoing.end(incoming.method === 'HEAD' ? undefined : bytes)
  else outgoing.write(bytes.subarray(0, bytes.length / 2), () => outgoing.destroy())
}

const xml = (name: string, members: Record<string, string>): string =>
  `<${name}>${Object.entries(members)
    .map(([key, value]) => `<${key}>${value}</${key}>`)
    .join('')}</${name}>`

interface Keys {
  keyId: string
  secret: string
  /** Empty for keys that last. */
  sessionToken: string
}

/** What is wrong with a call, or undefined. */
function check(incoming: IncomingMessage, body: Buffer, keys: Keys): Reply | undefined {
  const { headers, method = '' } = incoming
  const refusal = checkSignature(incoming, keys)
  if (refusal !== undefined) return refusal
  if (headers['x-amz-content-sha256'] !== hash('sha256', body)) {
    return { status: 400, code: 'XAmzContentSHA256Mismatch' }
  }
  if (headers['if-match'] !== undefined || headers['if-none-match'] !== undefined) {
    return { status: 501, code: 'NotImplemented' }
  }
  const isSized = headers['content-length'] !== undefined || !/PUT|POST/.test(method)
  return isSized ? undefined : { status: 411, code: 'MissingContentLength' }
}

/** As AWS documents it: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
function checkSignature(
  { method, url = '', headers }: IncomingMessage,
  { keyId, secret, sessionToken }: Keys,
): Reply | undefined {
  const [, id, scope = '', signed = '', signature] =
    /^AWS4-HMAC-SHA256 Credential=(\w+)\/([^,]+), SignedHeaders=([^,]+), Signature=(\w+)$/.exec(
      headers.authorization ?? '',
    ) ?? []
  if (id !== keyId) return { status: 403, code: 'InvalidAccessKeyId' }
  const name = signed.split(';').find((one) => one === 'x-amz-security-token')
  const token = name === undefined ? '' : headers[name]
  if (token !== sessionToken) return { status: 403, code: 'InvalidToken' }
  const [date = '', region = '', service = ''] = scope.split('/')
  if (region !== REGION) return { status: 400, code: 'AuthorizationHeaderMalformed' }
  const [path, query = ''] = url.split('?')
  const pairs = query.split('&').filter(Boolean)
  const canonical = [
    method,
    path,
    pairs
      .map((pair) => (pair.includes('=') ? pair : `${pair}=`))
      .sort()
      .join('&'),
    ...signed.split(';').map((name) => `${name}:${String(headers[name])}`),
    '',
    signed,
    headers['x-amz-content-sha256'],
  ].join('\n')
  const digest = hash('sha256', canonical)
  const text = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, digest].join('\n')
  const key = [date, region, service, 'aws4_request'].reduce<string | Buffer>(
    (last, part) => createHmac('sha256', last).update(part).digest(),
    `AWS4${secret}`,
  )
  const expected = createHmac('sha256', key).update(text).digest('hex')
  return signature === expected ? undefined : { status: 403, code: 'SignatureDoesNotMatch' }
}

interface Place {
  fake: FakeBucket
  page: number
  now: () => number
}

function answerTo(
  place: Place,
  { method, url = '', headers }: IncomingMessage,
  body: Buffer,
): Reply {
  const { pathname, searchParams } = new URL(url, 'http://s3')
  const [, bucket, ...rest] = decodeURIComponent(pathname).split('/')
  if (bucket !== BUCKET) return { status: 404, code: 'NoSuchBucket' }
  const key = rest.join('/')
  if (key === '')
    return searchParams.has('uploads') ? uploadsOf(place) : listOf(place, searchParams)
  const { fake, now } = place
  if (searchParams.has('uploads') || searchParams.has('uploadId')) {
    return inParts(place, { method, key, searchParams, body })
  }
  if (method === 'PUT') fake.objects.set(key, { bytes: body, modified: now() })
  if (method === 'DELETE') fake.objects.delete(key)
  if (method === 'PUT' || method === 'DELETE') return { status: method === 'PUT' ? 200 : 204 }
  const kept = fake.objects.get(key)
  if (kept === undefined) return { status: 404, code: 'NoSuchKey' }
  return rangeOf(kept.bytes, headers.range)
}

function rangeOf(bytes: Buffer, range: string | undefined): Reply {
  if (range === undefined) {
    return { status: 200, body: bytes, headers: { 'Content-Length': String(bytes.length) } }
  }
  const [, start, end] = (/^bytes=(\d+)-(\d+)$/.exec(range) ?? []).map(Number)
  if (start === undefined || end === undefined || start >= bytes.length) {
    return { status: 416, code: 'InvalidRange' }
  }
  const body = bytes.subarray(start, end + 1)
  const headers = { 'Content-Range': `bytes ${start}-${start + body.length - 1}/${bytes.length}` }
  return { status: 206, body, headers }
}

function listOf({ fake, page }: Place, query: URLSearchParams): Reply {
  const prefix = query.get('prefix') ?? ''
  const after = query.get('continuation-token') ?? query.get('start-after') ?? ''
  const keys = [...fake.objects.keys()]
    .filter((key) => key.startsWith(prefix) && key > after)
    .sort()
  const some = keys.slice(0, Math.min(page, Number(query.get('max-keys'))))
  const items = some.map((key) =>
    xml('Contents', {
      Key: key,
      LastModified: new Date(fake.objects.get(key)?.modified ?? 0).toISOString(),
      Size: String(fake.objects.get(key)?.bytes.length),
    }),
  )
  const isMore = some.length < keys.length
  const more = isMore ? `<NextContinuationToken>${some.at(-1)}</NextContinuationToken>` : ''
  const text = `<ListBucketResult><IsTruncated>${isMore}</IsTruncated>${more}${items.join('')}</ListBucketResult>`
  return { status: 200, body: Buffer.from(text) }
}

function uploadsOf({ fake }: Place): Reply {
  const items = [...fake.uploads].map(([id, { key, begun }]) =>
    xml('Upload', { Key: key, UploadId: id, Initiated: new Date(begun).toISOString() }),
  )
  const text = `<ListMultipartUploadsResult>${items.join('')}</ListMultipartUploadsResult>`
  return { status: 200, body: Buffer.from(text) }
}

const LEAST_PART = 5 * 1024 * 1024

function inParts(
  { fake, now }: Place,
  call: { method: string | undefined; key: string; searchParams: URLSearchParams; body: Buffer },
): Reply {
  const { method, key, searchParams, body } = call
  if (searchParams.has('uploads')) {
    const id = randomBytes(8).toString('base64')
    fake.uploads.set(id, { key, begun: now(), parts: new Map() })
    const text = xml('InitiateMultipartUploadResult', { UploadId: id })
    return { status: 200, body: Buffer.from(text) }
  }
  const id = searchParams.get('uploadId') ?? ''
  const upload = fake.uploads.get(id)
  if (upload?.key !== key) return { status: 404, code: 'NoSuchUpload' }
  if (method === 'PUT') {
    upload.parts.set(Number(searchParams.get('partNumber')), body)
    return { status: 200, headers: { ETag: `"${hash('md5', body)}"` } }
  }
  fake.uploads.delete(id)
  if (method === 'DELETE') return { status: 204 }
  const named = [...body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>"(\w+)"/g)]
  const parts = named.map(([, number, etag]) => {
    const part = upload.parts.get(Number(number))
    return part !== undefined && createHash('md5').update(part).digest('hex') === etag ? part : null
  })
  const isWhole = parts.length > 0 && parts.every((part) => part !== null)
  if (!isWhole) return { status: 400, code: 'InvalidPart' }
  if (parts.slice(0, -1).some((part) => (part?.length ?? 0) < LEAST_PART)) {
    return { status: 400, code: 'EntityTooSmall' }
  }
  fake.objects.set(key, { bytes: Buffer.concat(parts as Buffer[]), modified: now() })
  return { status: 200, body: Buffer.from(xml('CompleteMultipartUploadResult', { Key: key })) }
}
