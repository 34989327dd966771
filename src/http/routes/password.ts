// Owns the routes /password and /resetpassword.
import * as v from 'valibot'
import * as account from '../../account.ts'
import { SyncError } from '../../errors.ts'
import * as resetToken from '../../reset-token.ts'
import { empty } from '../answer.ts'
import { route } from '../route.ts'
import { id, password, text } from '../schemas.ts'

export const passwordRoutes = [
  route({
    method: 'POST',
    path: '/password',
    summary: 'Set a new password',
    description:
      'With `current` and a session: every other session ends. With `token`, a reset token: every session ends.',
    session: false,
    body: v.union(
      [v.strictObject({ password, current: text }), v.strictObject({ password, token: text })],
      'a password with current or token',
    ),
    answers: { 204: { description: 'The password is set.' } },
    errors: ['AUTH01', 'AUTH02', 'ACCT02', 'RATE01', 'SIZE01', 'ERR04', 'ERR05'],
    handle: async ({ deps, body, address, findSession }) => {
      if ('token' in body) await account.resetPassword(deps, body)
      else await account.changePassword(deps, await findSession(), { ...body, address })
      return empty()
    },
  }),
  route({
    method: 'POST',
    path: '/resetpassword',
    summary: 'Ask for a reset token by mail',
    description: 'Answers alike whether the account exists or not, and before it looks.',
    session: false,
    body: v.strictObject({ id }),
    answers: { 204: { description: 'Heard.' } },
    errors: ['SIZE01'],
    handle: ({ deps, body, outgoing }) => {
      outgoing.once('finish', () => {
        resetToken.mail(deps, body.id).catch((error: unknown) => {
          // A limit that is reached is anybody's doing, and nobody's news.
          if (error instanceof SyncError) return
          deps.log.warn({ reason: nameOf(error) }, 'a reset mail was not sent')
        })
      })
      return empty()
    },
  }),
]

// The message of a mail server can repeat the address.
const nameOf = (error: unknown): string => {
  const { code, name } = error as { code?: unknown; name?: unknown }
  return String(code ?? name)
}
