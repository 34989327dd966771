// Owns the look at how requests get through: headers, meta, the names of stores, methods.
import { toStoreKey } from '../../key.ts'
import { ok, problem, type Finding } from '../finding.ts'
import { create, faulty, outcome, pathOf, type Traveller } from './traveller.ts'
import { tell, type Answer } from './way.ts'

/** Of a value's answer: each means something to clients, or protects browsers. (ETag: see bodies.ts.) */
const ANSWERED = [
  'Accept-Ranges',
  'Cache-Control',
  'Content-Disposition',
  'Content-Length',
  'Content-Security-Policy',
  'Content-Type',
  'Last-Modified',
  'Repr-Digest',
  'X-Content-Type-Options',
  'X-Sync-Key',
  'X-Sync-Meta',
  'X-Sync-Token',
]
const WRONG_DIGEST = `sha-256=:${Buffer.alloc(32).toString('base64')}:`

/** Each header of the protocol has its effect there, and comes back. */
export async function checkHeaders(traveller: Traveller): Promise<Finding> {
  const { way } = traveller
  const path = pathOf('headers')
  const headers = { 'X-Sync-Meta': 'doctor' }
  const { token, key } = await create(traveller, 'headers', { body: 'doctor', headers })
  const read = await way.ask('GET', path)
  const missing = ANSWERED.filter((name) => read.header(name.toLowerCase()) === '')
  const lost: string[] = missing.map((name) => `${name} of answers`)
  for (const [name, value] of Object.entries({ 'X-Sync-Token': token, 'X-Sync-Key': key })) {
    if (value === '' && !missing.includes(name)) lost.push(`${name} of answers`)
  }
  // The server refuses a wrong digest, if it sees it; the token is wanted then, if that is seen.
  const wrong = { 'X-Sync-Token': token, 'Repr-Digest': WRONG_DIGEST }
  const refused = await way.ask('PUT', path, { body: 'next', headers: wrong })
  if (refused.status === 428) lost.push('X-Sync-Token of requests')
  else if (refused.code !== 'REQ01') lost.push('Repr-Digest of requests')
  if (read.status === 200 && !missing.includes('X-Sync-Meta')) {
    if (read.header('x-sync-meta') !== 'doctor') lost.push('X-Sync-Meta')
  }
  if (lost.length === 0) return ok('headers', 'all come and go')
  const text = `these are lost on the way: ${lost.join(', ')}`
  return faulty(traveller, 'headers', { fault: 'headers', text })
}

const LENGTHS = [2000, 8000]

/** Meta of the length that every proxy takes, and of the longest. */
export async function checkMeta(traveller: Traveller): Promise<Finding> {
  for (const length of LENGTHS) {
    const name = `meta-${length}`
    const headers = { 'X-Sync-Meta': 'm'.repeat(length) }
    const refuse = (how: string): Finding => {
      const text = `X-Sync-Meta of ${length} characters ${how}: its headers are too large for the proxy`
      return faulty(traveller, 'meta', { fault: 'meta', text })
    }
    const sent = await outcome(traveller.way.ask('PUT', pathOf(name), { body: 'doctor', headers }))
    if (isLost(sent, 201)) return refuse(`does not get through (${words(sent)})`)
    const read = await outcome(traveller.way.ask('GET', pathOf(name)))
    if (isLost(read, 200)) return refuse(`does not come back (${words(read)})`)
  }
  return ok('meta', `up to ${LENGTHS.at(-1)} characters go there and come back`)
}

const isLost = (result: Answer | string, status: number): boolean =>
  typeof result === 'string' || result.status !== status

const words = (result: Answer | string): string =>
  typeof result === 'string' ? result : tell(result)

/** Names, as they stand in the path and as they are: what a proxy makes of them shows in the store key. */
const NAMES: [string, string][] = [
  ['a%20b', 'a b'],
  ['%C3%BC%E2%82%AC%F0%9F%98%80', 'ü€😀'],
  ['a/b', 'a/b'],
  ['a%2Fc', 'a/c'],
  ['a%252Fb', 'a%2Fb'],
  ['100%25', '100%'],
  ['a+b', 'a+b'],
  ['a%2Bc', 'a+c'],
  ['a%3Fb', 'a?b'],
  ['a%23b', 'a#b'],
  ['a%5Cb', 'a\\b'],
  ["a;b:c@d&e=f,g$h!i*j'(k)", "a;b:c@d&e=f,g$h!i*j'(k)"],
]

export async function checkNames(traveller: Traveller): Promise<Finding> {
  const wrong: string[] = []
  for (const [raw, name] of NAMES) {
    const answer = await outcome(traveller.way.ask('PUT', pathOf(raw), { body: 'doctor' }))
    const key = typeof answer === 'string' ? '' : answer.header('x-sync-key')
    if (key !== toStoreKey(`doctor/${name}`, traveller.visitor.keySalt)) wrong.push(raw)
  }
  if (wrong.length === 0) return ok('names', 'paths arrive as they are')
  const text = `paths are rewritten on the way, so that names arrive as others or not at all: ${wrong.join(' ')}`
  return faulty(traveller, 'names', { fault: 'paths', text })
}

/** Whether a value can be written at all: without, nothing else can be looked at. */
export async function checkWrite(traveller: Traveller): Promise<Finding> {
  const answer = await outcome(traveller.way.ask('PUT', pathOf('write'), { body: 'doctor' }))
  if (!isLost(answer, 201)) return ok('writing', 'a value gets through')
  const text = `not even six bytes get through (PUT: ${words(answer)}): the rest cannot be looked at`
  const isOurs = typeof answer !== 'string' && answer.code !== undefined
  return isOurs
    ? problem('writing', text)
    : faulty(traveller, 'writing', { fault: 'methods', text })
}

export async function checkMethods(traveller: Traveller): Promise<Finding> {
  const { way } = traveller
  const { token } = await create(traveller, 'methods')
  const path = pathOf('methods')
  const lost: string[] = []
  const head = await outcome(way.ask('HEAD', path))
  if (isLost(head, 200)) lost.push(`HEAD (${words(head)})`)
  const body = JSON.stringify({ operations: [{ check: 'doctor/methods', token }] })
  const post = await outcome(way.ask('POST', '/batch', { body }))
  if (isLost(post, 200)) lost.push(`POST (${words(post)})`)
  const removed = await outcome(way.ask('DELETE', path, { headers: { 'X-Sync-Token': token } }))
  if (isLost(removed, 204)) lost.push(`DELETE (${words(removed)})`)
  if (lost.length === 0) return ok('methods', 'GET, HEAD, PUT, POST and DELETE get through')
  const text = `not all get through: ${lost.join(', ')}`
  return faulty(traveller, 'methods', { fault: 'methods', text })
}
