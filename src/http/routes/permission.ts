// Owns the routes under /permission.
import * as v from 'valibot'
import * as permission from '../../permission.ts'
import { empty, json } from '../answer.ts'
import { route } from '../route.ts'
import { handle, permission as level, text } from '../schemas.ts'

const granted = v.object({ user: handle, permission: level })

// 1,000 members, each id up to 320 characters of up to 4 bytes.
const MAX_BODY_BYTES = 2 * 1024 * 1024

export const permissionRoutes = [
  route({
    method: 'GET',
    path: '/permission/{key}',
    summary: 'List who has a permission on a store',
    session: true,
    answers: {
      200: {
        description: 'Everyone with a permission; `current` is who asks.',
        schema: v.array(v.object({ ...granted.entries, current: v.boolean() })),
      },
    },
    errors: ['ERR01'],
    handle: async ({ deps, self, key }) => json(await permission.list(deps, self, key)),
  }),
  route({
    method: 'PUT',
    path: '/permission/{key}',
    summary: 'Grant or change permissions, all or nothing',
    session: true,
    body: v.pipe(
      v.array(
        v.strictObject({
          user: v.pipe(text, v.description('An account id or a handle.')),
          permission: level,
        }),
      ),
      v.minLength(1),
    ),
    maxBodyBytes: MAX_BODY_BYTES,
    answers: {
      200: { description: 'What was granted, in the order sent.', schema: v.array(granted) },
    },
    errors: ['ERR01', 'PERM01', 'PERM02', 'RATE01', 'SIZE01', 'SIZE02', 'SIZE03', 'ERR04', 'ERR05'],
    handle: async ({ deps, self, key, body }) => json(await permission.put(deps, self, key, body)),
  }),
  route({
    method: 'DELETE',
    path: '/permission/{key}',
    summary: "Take others' permission, or leave",
    description: 'Needs OWN, but anyone may name itself. Users without a permission are ignored.',
    session: true,
    query: v.strictObject({ users: v.pipe(v.array(text), v.minLength(1), v.maxLength(1000)) }),
    answers: { 204: { description: 'They have none.' } },
    errors: ['ERR01', 'PERM01', 'PERM02', 'ERR04', 'ERR05'],
    handle: async ({ deps, self, key, query }) => {
      await permission.remove(deps, self, key, query.users)
      return empty()
    },
  }),
]
