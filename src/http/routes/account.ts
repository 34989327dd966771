// Owns the routes under /account.
import * as v from 'valibot'
import * as account from '../../account.ts'
import * as session from '../../session.ts'
import { empty, json } from '../answer.ts'
import { route } from '../route.ts'
import { device, handle, id, openedSession, password, text, time } from '../schemas.ts'

const listedSession = v.object({
  token: v.pipe(v.string(), v.description('A handle to end the session by; not the secret.')),
  user: handle,
  expiration: time,
  device: v.optional(v.string()),
  created: time,
  used: v.pipe(time, v.description('When it was last used, to the day.')),
  current: v.boolean(),
})

export const accountRoutes = [
  route({
    method: 'POST',
    path: '/account',
    summary: 'Create an account and a first session',
    session: false,
    body: v.strictObject({ id, password, device, invitation: v.optional(text) }),
    answers: { 200: { description: 'The session.', schema: openedSession } },
    errors: ['ACCT01', 'ACCT02', 'ACCT03', 'RATE01', 'SIZE01', 'SIZE03', 'ERR04', 'ERR05'],
    handle: async ({ deps, body, address }) => json(await account.register(deps, body, address)),
  }),
  route({
    method: 'GET',
    path: '/account',
    summary: "List the account's sessions",
    session: true,
    answers: { 200: { description: 'The sessions.', schema: v.array(listedSession) } },
    errors: [],
    handle: async ({ deps, self }) => json(await session.list(deps, self)),
  }),
  route({
    method: 'DELETE',
    path: '/account',
    summary: 'Delete the account and every store that it alone OWNs',
    description: 'Needs a session that was opened in the last 10 minutes.',
    session: true,
    answers: { 204: { description: 'The account is gone.' } },
    errors: ['AUTH03', 'ERR04', 'ERR05'],
    handle: async ({ deps, self }) => {
      await account.remove(deps, self)
      return empty()
    },
  }),
]
