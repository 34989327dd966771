// Owns the check of every answer in a test against the document that the server gives of itself.
import assert from 'node:assert/strict'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'

interface Document {
  paths: Record<string, Record<string, Operation>>
}

interface Operation {
  responses: Record<string, { content?: Record<string, unknown>; headers?: object }>
}

export interface Openapi {
  document: Document
  /** Throws unless the document knows this answer: its status, type, body and headers. */
  check(request: { method: string; path: string }, response: Response): Promise<void>
}

export async function openapiOf(url: string): Promise<Openapi> {
  const document = (await (await fetch(`${url}/openapi.json`)).json()) as Document
  const ajv = new Ajv2020({ strict: false })
  ajv.addSchema(document, 'openapi')
  const validators = new Map<string, ValidateFunction>()

  function validatorOf(pointer: string): ValidateFunction {
    let validator = validators.get(pointer)
    validator ??= ajv.compile({ $ref: `openapi#${pointer}` })
    validators.set(pointer, validator)
    return validator
  }

  return {
    document,
    async check({ method, path }, response) {
      assert.equal(response.headers.get('access-control-allow-origin'), '*', 'CORS on every answer')
      const template = templateOf(document, path.split('?', 1)[0] as string)
      const operation = document.paths[template ?? '']?.[method.toLowerCase()]
      if (template === undefined || operation === undefined) return checkOutside(method, response)
      const { status } = response
      const described = operation.responses[status]
      assert.ok(described, `${method} ${template} answered ${status}, which is not documented`)
      for (const name of Object.keys(described.headers ?? {})) {
        if (OPTIONAL.has(name)) continue
        assert.ok(response.headers.has(name), `${method} ${template} ${status} lacks ${name}`)
      }
      const type = response.headers.get('content-type')?.split(';', 1)[0] ?? ''
      const types = Object.keys(described.content ?? {})
      if (types.length === 0 || method === 'HEAD') return
      assert.ok(
        types.includes(type),
        `${method} ${template} ${status} is ${type}, not ${types.join()}`,
      )
      if (!type.endsWith('json')) return
      const pointer = [
        'paths',
        template,
        method.toLowerCase(),
        'responses',
        String(status),
        'content',
        type,
        'schema',
      ]
      const validate = validatorOf(`/${pointer.map(escapePointer).join('/')}`)
      const body: unknown = await response.clone().json()
      assert.ok(
        validate(body),
        `${method} ${template} ${status}: ${JSON.stringify(body)} ${ajv.errorsText(validate.errors)}`,
      )
    },
  }
}

// There only when there is something to say.
const OPTIONAL = new Set(['X-Sync-Meta', 'X-Sync-Quota-Limit', 'Content-Length'])

const escapePointer = (part: string): string =>
  encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))

function templateOf({ paths }: Document, path: string): string | undefined {
  if (paths[path] !== undefined) return path
  return Object.keys(paths).find((template) => {
    if (template.endsWith('{key}')) return path.startsWith(template.slice(0, -'{key}'.length))
    const [head = '', tail] = template.split('{handle}')
    return tail === '' && path.startsWith(head) && !path.slice(head.length).includes('/')
  })
}

/** What no operation describes: a preflight, an unknown path, a method that the path does not take. */
async function checkOutside(method: string, response: Response): Promise<void> {
  if (method === 'OPTIONS') {
    assert.equal(response.status, 204)
    return
  }
  assert.ok([400, 404, 405].includes(response.status), `${method}: ${response.status}`)
  assert.equal(response.headers.get('content-type'), 'application/problem+json')
  if (method !== 'HEAD') {
    const { status } = (await response.clone().json()) as { status: number }
    assert.equal(status, response.status)
  }
}
