// Owns what is wrong with an answer, or with what a server has said of itself.
import type { Openapi } from '../helpers/openapi.ts'
import type { Answer } from './answers.ts'
import { MARK, PRIVATE } from './people.ts'

/** What may be answered at all, by the document's table of errors. */
type Codes = Map<string, number[]>

/** Of what is no fault of a client, only these come about here: a hash must wait, a quota is full. */
const EXPECTED = new Set(['ERR05', 'SIZE02'])
const ERROR_LEVEL = 50
// The addresses that requests say they come from.
const ADDRESS = /198\.18\.\d|2001:db8/

interface Asked {
  method: string
  path: string
}

export interface Judge {
  /** Throws unless this may be answered, whatever was asked. */
  any(answer: Answer, isBare: boolean): void
  /** Throws unless the document says that this is answered to that. */
  one(answer: Answer, asked: Asked): Promise<void>
}

export class Fault extends Error {}

function expect(isSo: boolean, why: string): void {
  if (!isSo) throw new Fault(why)
}

export function judgeBy({ document, check }: Openapi): Judge {
  const { components } = document as unknown as {
    components: { 'x-errors': { code: string; statuses: number[] }[] }
  }
  const codes: Codes = new Map(
    components['x-errors'].map(({ code, statuses }) => [code, statuses] as const),
  )
  return {
    any(answer, isBare) {
      const { status, headers, body } = answer
      if (status < 200) return expect(status === 100, `answered ${status}`)
      expect(headers.get('access-control-allow-origin') === '*', 'no CORS')
      expect(!body.includes(PRIVATE), "answered what is the bystander's alone")
      if (status >= 400) judgeProblem(answer, codes, isBare)
    },
    async one({ status, headers, body }, { method, path }) {
      // Of HEAD the document has only that of values: the rest is as GET, without the body.
      if (method === 'OPTIONS' || (method === 'HEAD' && !path.startsWith('/store/'))) return
      const isEmpty = [204, 205, 304].includes(status)
      const response = new Response(isEmpty ? null : (body as Uint8Array<ArrayBuffer>), {
        status,
        headers: [...headers],
      })
      try {
        await check({ method, path }, response)
      } catch (error) {
        throw new Fault((error as Error).message)
      }
    },
  }
}

/** As RFC 9457 and the table of errors have it. */
function judgeProblem({ status, headers, body }: Answer, codes: Codes, isBare: boolean): void {
  const type = headers.get('content-type')
  expect(type === 'application/problem+json', `${status} as ${type}`)
  if (status === 401) expect(headers.get('www-authenticate') === 'Bearer', '401 says not how')
  if (status === 429 || status === 503) {
    expect(/^\d+$/.test(headers.get('retry-after') ?? ''), `${status} says not for how long`)
  }
  expect(status < 500 || isBare || body.length > 0, `${status} without a body`)
  if (isBare) return expect([503, 507].includes(status) || status < 500, `answered ${status}`)
  let problem: Record<string, unknown>
  try {
    problem = JSON.parse(body.toString()) as Record<string, unknown>
  } catch {
    throw new Fault(`${status} with a body that is not JSON: ${body.toString().slice(0, 100)}`)
  }
  const { type: about, title, status: told, detail, code } = problem
  const text = body.toString()
  expect(about === 'about:blank' && typeof title === 'string', `no problem: ${text}`)
  expect(told === status && typeof detail === 'string' && detail !== '', `no problem: ${text}`)
  expect(
    codes.get(String(code))?.includes(status) === true,
    `${status} with the code ${String(code)}`,
  )
  expect(status < 500 || EXPECTED.has(String(code)), `answered ${status} ${String(code)}`)
  expect(!text.includes(MARK), `repeats the request: ${text.slice(0, 200)}`)
}

/** What a log must not have: a fault, or anything of those who ask. */
export function faultsInLog(
  { stdout, stderr }: { stdout: string; stderr: string },
  secrets: string[],
): string[] {
  const lines = stdout.split('\n').filter(Boolean)
  const found = stderr === '' ? [] : [`on stderr: ${stderr.slice(0, 2000)}`]
  for (const line of lines) {
    let level = 0
    try {
      level = (JSON.parse(line) as { level: number }).level
    } catch {
      found.push(`a line of the log is not JSON: ${line}`)
    }
    if (level >= ERROR_LEVEL) found.push(`logged: ${line.slice(0, 2000)}`)
    const tells = [MARK, PRIVATE, ...secrets].some((secret) => line.includes(secret))
    if (tells || ADDRESS.test(line)) found.push(`the log tells who asks for what: ${line}`)
  }
  return found
}
