// Owns the calls on the account and its sessions.
import type { SyncError } from './errors.ts'
import type { Reply, Transport } from './transport.ts'
import type { Client, Credentials, OpenedSession, SessionInfo } from './types.ts'

type SessionCalls = Pick<Client, 'register' | 'login' | 'logout' | 'deleteAccount'>

type OtherCalls = Pick<
  Client,
  'sessions' | 'endSession' | 'changePassword' | 'resetPassword' | 'requestReset'
>

/** The calls that open and end the session of this client. */
export function sessionCalls(transport: Transport): SessionCalls {
  function remember({ body }: Reply): OpenedSession {
    const opened = body as OpenedSession
    transport.enter(opened)
    return opened
  }

  const forget = (): void => transport.enter({ token: null, user: null })

  const login = async ({ signal, ...json }: Credentials): Promise<OpenedSession> =>
    remember(await transport.call({ ...OPENING, path: '/auth', json, signal }))

  return {
    login,
    async register({ signal, ...json }) {
      const reply = await transport.ask({ ...OPENING, path: '/account', json, signal })
      if (reply.error === null) return remember(reply)
      // The id is in use, or the invitation spent: by an attempt whose answer was lost, if the password fits.
      if (!reply.isRepeat || !['ACCT01', 'ACCT03'].includes(reply.error.code)) throw reply.error
      const { invitation: _, ...credentials } = json
      return login({ ...credentials, signal }).catch(() => {
        throw reply.error as SyncError
      })
    },
    async logout({ signal } = {}) {
      const { token } = transport.session
      if (token === null) return
      // At once: by the time of the answer somebody else may have logged in.
      forget()
      // Anonymous: a session that has ended already is no error here, nor one to renew.
      const headers = { Authorization: `Bearer ${token}` }
      const asked = { method: 'DELETE', path: '/auth', headers, anonymous: true, signal } as const
      const { error } = await transport.ask(asked)
      if (error !== null && error.code !== 'AUTH01') throw error
    },
    async deleteAccount({ signal } = {}) {
      const { line } = transport.session
      const asked = { method: 'DELETE', path: '/account', signal } as const
      const { error, isRepeat } = await transport.ask(asked)
      if (error !== null && !(isRepeat && error.code === 'AUTH01')) throw error
      if (transport.session.line === line) forget()
    },
  }
}

/** The calls on other sessions and on the password. */
export function passwordCalls(transport: Transport): OtherCalls {
  return {
    async sessions({ signal } = {}) {
      const { session } = transport
      const reply = await transport.call({ method: 'GET', path: '/account', read: 'json', signal })
      const sessions = reply.body as SessionInfo[]
      if (transport.session === session) {
        session.user = sessions.find(({ current }) => current)?.user ?? null
      }
      return sessions
    },
    async endSession(handle, { signal } = {}) {
      const path = `/auth/${encodeURIComponent(handle)}`
      const { error, isRepeat } = await transport.ask({ method: 'DELETE', path, signal })
      if (error !== null && !(isRepeat && error.status === 404)) throw error
    },
    // Neither is sent twice: the second would be told that the old password, or the token, is wrong.
    async changePassword({ signal, ...json }) {
      await transport.call({ method: 'POST', path: '/password', json, once: true, signal })
    },
    async resetPassword({ signal, ...json }) {
      const asked = { method: 'POST', path: '/password', json, signal } as const
      await transport.call({ ...asked, once: true, anonymous: true })
    },
    async requestReset(id, { signal } = {}) {
      const asked = { method: 'POST', path: '/resetpassword', json: { id }, signal } as const
      await transport.call({ ...asked, anonymous: true })
    },
  }
}

const OPENING = { method: 'POST', read: 'json', anonymous: true } as const
