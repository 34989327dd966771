// Owns the routes under /auth.
import * as v from 'valibot'
import * as account from '../../account.ts'
import * as session from '../../session.ts'
import { empty, json } from '../answer.ts'
import { route } from '../route.ts'
import { device, id, openedSession, password } from '../schemas.ts'

export const authRoutes = [
  route({
    method: 'POST',
    path: '/auth',
    summary: 'Log in',
    session: false,
    body: v.strictObject({ id, password, device }),
    answers: { 200: { description: 'The session.', schema: openedSession } },
    errors: ['AUTH02', 'RATE01', 'SIZE01', 'ERR04', 'ERR05'],
    handle: async ({ deps, body, address }) => json(await account.login(deps, body, address)),
  }),
  route({
    method: 'DELETE',
    path: '/auth',
    summary: 'End this session',
    session: true,
    answers: { 204: { description: 'The session has ended.' } },
    errors: ['ERR04', 'ERR05'],
    handle: async ({ deps, self }) => {
      await session.end(deps, self, self.token)
      return empty()
    },
  }),
  route({
    method: 'DELETE',
    path: '/auth/{handle}',
    summary: 'End another session of the same account',
    session: true,
    answers: { 204: { description: 'That session has ended.' } },
    errors: ['ERR01', 'ERR04', 'ERR05'],
    handle: async ({ deps, self, handle }) => {
      await session.end(deps, self, handle)
      return empty()
    },
  }),
]
