// Owns what somebody without a session can do: log in, register, ask for a reset, finish one.
import { client, device, enterAs, leave, registration } from './app.ts'
import { announce, byId, onSubmit } from './dom.ts'

export function wireGuest(): void {
  const login = onSubmit('login', {
    async submit({ id = '', password = '' }) {
      enterAs(await client.login({ id, password, device }), id)
      login.reset()
    },
  })

  const register = onSubmit('register', {
    words: {
      ACCT01:
        'The invitation was used already, is older than a week, or is not one of this server.',
    },
    async submit({ id = '', password = '', invitation = '' }) {
      const invited = invitation.trim() === '' ? {} : { invitation: invitation.trim() }
      enterAs(await client.register({ id, password, device, ...invited }), id)
      register.reset()
      announce('Welcome: your account is made.')
    },
  })

  const forgot = onSubmit('forgot', {
    async submit({ id = '' }) {
      await client.requestReset(id)
      forgot.reset()
      announce('If there is such an account, and this server sends mail, a link is on its way.')
    },
  })

  const reset = onSubmit('reset', {
    words: { AUTH02: 'This link or token was used already, or is too old. Ask for another.' },
    async submit({ id = '', password = '', token = '' }) {
      await client.resetPassword({ password, token: token.trim() })
      reset.reset()
      try {
        enterAs(await client.login({ id, password, device }), id)
        announce('The new password is set.')
      } catch {
        // The token says whose it is, not the name: that may be mistyped.
        leave('The new password is set. Log in with it.')
      }
    },
  })
}

/** Makes the form ready for an invitation that a link brought, or none. */
export function prepareRegistration(invitation: string): void {
  const isAsked = invitation !== '' || registration === 'invite'
  const field = byId<HTMLInputElement>('register-invitation')
  byId('invitation-field').hidden = !isAsked
  byId('register').hidden = registration === 'closed'
  field.required = registration === 'invite'
  field.value = invitation
}

/** The same for a reset token; without one, it is asked for. */
export function prepareReset(token: string): void {
  byId('token-field').hidden = token !== ''
  byId<HTMLInputElement>('reset-token').value = token
}
