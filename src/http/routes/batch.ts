// Owns the route /batch.
import * as v from 'valibot'
import * as batch from '../../batch.ts'
import { QUOTA_HEADERS, json, quotaHeaders } from '../answer.ts'
import { route } from '../route.ts'
import { text, token } from '../schemas.ts'

const MAX_BODY_BYTES = 8 * 1024 * 1024

const named = v.pipe(
  v.nullable(v.pipe(v.string(), v.regex(/^(?:\*|[0-9a-v]{1,64})$/))),
  v.description('A token, * for whatever is there, null for what must be new (or not exist).'),
)
// What a header can carry, in which blanks around it are lost.
const meta = v.pipe(
  v.string(),
  v.regex(/^(?:[!-~](?:[ -~]{0,7998}[!-~])?)?$/),
  v.description('Up to 8000 printable ASCII characters, without blanks around them.'),
)

const operation = v.union(
  [
    v.strictObject({
      put: text,
      token: v.optional(named),
      meta: v.optional(meta),
      data: v.pipe(v.string(), v.description('base64 of at most 16 KiB.')),
    }),
    v.strictObject({ delete: text, token: named }),
    v.strictObject({ check: text, token: named }),
  ],
  'put with data, delete with token, or check with token',
)

export const batchRoutes = [
  route({
    method: 'POST',
    path: '/batch',
    summary: 'Do many writes and checks, all or nothing',
    session: true,
    body: v.strictObject({ operations: v.array(operation) }),
    maxBodyBytes: MAX_BODY_BYTES,
    answers: {
      200: {
        description: 'All was done; results in the order sent.',
        headers: QUOTA_HEADERS,
        schema: v.object({
          results: v.array(v.object({ key: v.string(), token: v.optional(token) })),
        }),
      },
    },
    errors: ['ERR01', 'PERM01', 'KEY01', 'RATE01', 'SIZE01', 'SIZE02', 'SIZE03', 'ERR04', 'ERR05'],
    handle: async ({ deps, self, body }) => {
      const { results, used } = await batch.run(deps, self, body.operations)
      return json({ results }, quotaHeaders(deps, used))
    },
  }),
]
