// Owns /openapi.json: the OpenAPI 3.1 document, made from the route table and the schemas that check
// the requests.
import { toJsonSchema } from '@valibot/to-json-schema'
import * as v from 'valibot'
import type { GenericSchema } from 'valibot'
import { version } from '../packed.ts'
import { json } from './answer.ts'
import { CODES, MEANING, statusOf, titleOf } from './problem.ts'
import { route, type Answer, type Route } from './route.ts'
import type { ErrorCode } from '../errors.ts'

export type Json = Record<string, unknown>

const OTHER_STATUSES: Partial<Record<ErrorCode, number[]>> = {
  REQ01: [400, 408, 416, 431],
  KEY01: [412, 428],
}

/** The route that answers the document of all routes. */
export const openapiRoute = (all: () => Route[]): Route =>
  route({
    method: 'GET',
    path: '/openapi.json',
    summary: 'The OpenAPI 3.1 document of all this',
    session: false,
    answers: {
      200: { description: 'OpenAPI 3.1.', schema: v.looseObject({ openapi: v.string() }) },
    },
    errors: [],
    handle: () => json(documentOf(all())),
  })

const documents = new WeakMap<Route[], Json>()

/** The document of these routes, made once. */
export function documentOf(routes: Route[]): Json {
  const document = documents.get(routes) ?? toDocument(routes)
  documents.set(routes, document)
  return document
}

function toDocument(routes: Route[]): Json {
  const paths: Record<string, Json> = {}
  for (const one of routes) {
    const path = (paths[one.path] ??= parametersOf(one.path))
    path[one.method.toLowerCase()] = toOperation(one)
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sync Node',
      version,
      description:
        'A sync server for local-first software: opaque values under keys, each with a version token, shared by READ, WRITE or OWN.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    paths,
    components: {
      securitySchemes: { session: { type: 'http', scheme: 'bearer' } },
      schemas: {
        Problem: {
          type: 'object',
          description: 'RFC 9457. `detail` says what to do.',
          required: ['type', 'title', 'status', 'detail', 'code'],
          properties: {
            type: { type: 'string' },
            title: { type: 'string' },
            status: { type: 'integer' },
            detail: { type: 'string' },
            code: { enum: CODES },
          },
        },
      },
      'x-errors': CODES.map((code) => ({
        code,
        statuses: statusesOf(code),
        title: titleOf(code),
        description: MEANING[code],
      })),
      headers: Object.fromEntries(
        Object.entries(HEADERS).map(([name, description]) => [
          name,
          { description, schema: { type: 'string' } },
        ]),
      ),
    },
  }
}

function parametersOf(path: string): Json {
  const name = /\{(\w+)\}/.exec(path)?.[1]
  if (name === undefined) return {}
  const description =
    name === 'key'
      ? 'All after the slash, percent-decoded once as UTF-8: 1 to 8000 code points; / is allowed. ~ and 43 base64url characters name a store key.'
      : 'A `token` of GET /account.'
  return { parameters: [{ name, in: 'path', required: true, description, schema: STRING }] }
}

const STRING = { type: 'string' }

function toOperation(one: Route): Json {
  const parameters = [
    ...(one.requestHeaders ?? []).map((header) => ({ ...header, in: 'header', schema: STRING })),
    ...queryParameters(one.query),
  ]
  return {
    operationId: `${one.method.toLowerCase()}${one.path.replace(/\W+(\w)/g, (_, letter: string) => letter.toUpperCase()).replace(/\W/g, '')}`,
    summary: one.summary,
    ...(one.description === undefined ? {} : { description: one.description }),
    ...(one.session ? { security: [{ session: [] }] } : {}),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...requestBody(one),
    responses: {
      ...Object.fromEntries(
        Object.entries(one.answers).map(([status, answer]) => [status, toResponse(answer)]),
      ),
      ...refusals(one),
    },
  }
}

function queryParameters(schema: GenericSchema | undefined): Json[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = toSchema(schema, 'input') as {
    properties?: Record<string, Json>
    required?: string[]
  }
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    explode: true,
    schema: property,
  }))
}

function requestBody({ body, takesValue }: Route): Json {
  if (takesValue === true) {
    const content = { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }
    return { requestBody: { required: true, content } }
  }
  if (body === undefined) return {}
  const content = { 'application/json': { schema: toSchema(body, 'input') } }
  return { requestBody: { required: true, content } }
}

function toResponse({ description, schema, type, bytes, events, headers = [] }: Answer): Json {
  const content =
    bytes === true
      ? { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }
      : type !== undefined
        ? { [type]: { schema: STRING } }
        : schema && {
            'application/json': { schema: toSchema(schema, 'output') },
            ...(events === true && { 'text/event-stream': { schema: { type: 'string' } } }),
          }
  return {
    description,
    ...(content && { content }),
    ...(headers.length > 0 && {
      headers: Object.fromEntries(
        headers.map((name) => [name, { $ref: `#/components/headers/${name}` }]),
      ),
    }),
  }
}

const statusesOf = (code: ErrorCode): number[] => OTHER_STATUSES[code] ?? [statusOf(code)]

/**
 * The problems of a route by status; every route can answer REQ01, ERR02 and, with a session, AUTH01, and
 * ERR05 while the database is away.
 */
function refusals({ session, errors }: Route): Json {
  const codes: ErrorCode[] = [
    'REQ01',
    ...(session ? (['AUTH01', 'ERR05'] as const) : []),
    ...errors,
    'ERR02',
  ]
  const byStatus = new Map<number, Set<ErrorCode>>()
  for (const code of codes) {
    for (const status of statusesOf(code)) {
      byStatus.set(status, (byStatus.get(status) ?? new Set()).add(code))
    }
  }
  return Object.fromEntries(
    [...byStatus].map(([status, of]) => [
      status,
      {
        description: [...of].join(', '),
        content: {
          'application/problem+json': {
            schema: {
              allOf: [
                { $ref: '#/components/schemas/Problem' },
                { properties: { code: { enum: [...of] } } },
              ],
            },
          },
        },
      },
    ]),
  )
}

function toSchema(schema: GenericSchema, typeMode: 'input' | 'output'): Json {
  const { $schema: _, ...rest } = toJsonSchema(schema as Parameters<typeof toJsonSchema>[0], {
    typeMode,
    target: 'draft-2020-12', // the dialect of OpenAPI 3.1
    // What JSON Schema cannot say (well-formed Unicode) is said in words.
    ignoreActions: ['check'],
  }) as Json
  return rest
}

const HEADERS = {
  'Accept-Ranges': 'bytes',
  'Content-Length': 'Bytes of the body.',
  'Content-Range': 'Which bytes of how many.',
  ETag: 'The token, quoted.',
  'Last-Modified': 'When the value was written.',
  'Repr-Digest': 'SHA-256 of the value (RFC 9530).',
  'X-Sync-Key': 'The store key.',
  'X-Sync-Meta': 'What the client put beside the value.',
  'X-Sync-Quota-Limit': 'Bytes the account may own; absent without a limit.',
  'X-Sync-Quota-Used': 'Bytes of the stores that the account OWNs.',
  'X-Sync-Token': 'The version of the store.',
}
