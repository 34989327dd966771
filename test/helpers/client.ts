// Owns the test's client: one session of one account, with a method for what an app would do.
import type { TestNode } from './node.ts'

export interface Client {
  id: string
  /** The handle of the account. */
  user: string
  token: string
  headers: Record<string, string>
  request(path: string, init?: RequestInit): Promise<Response>
  get(key: string, headers?: Record<string, string>): Promise<Response>
  head(key: string): Promise<Response>
  put(key: string, value: string | Uint8Array, headers?: Record<string, string>): Promise<Response>
  /** Puts, and answers the token and store key; throws unless it was taken. */
  save(
    key: string,
    value: string | Uint8Array,
    headers?: Record<string, string>,
  ): Promise<{ token: string; key: string }>
  delete(key: string, token?: string): Promise<Response>
  list(): Promise<Listed[]>
  grant(key: string, user: string, permission: string): Promise<Response>
  revoke(key: string, ...users: string[]): Promise<Response>
}

export interface Listed {
  key: string
  permission: string
  token: string
  meta?: string
  size: number
  modified: number
}

/** A key as it stands in a path; the slashes of a name may stay. */
export const encodeKey = (key: string): string => key.split('/').map(encodeURIComponent).join('/')

export function client(
  node: TestNode,
  id: string,
  { token, user }: { token: string; user: string },
): Client {
  const headers = { Authorization: `Bearer ${token}` }
  const self: Client = {
    id,
    user,
    token,
    headers,
    request: (path, init = {}) =>
      node.request(path, { ...init, headers: { ...headers, ...(init.headers as object) } }),
    get: (key, more = {}) => self.request(`/store/${encodeKey(key)}`, { headers: more }),
    head: (key) => self.request(`/store/${encodeKey(key)}`, { method: 'HEAD' }),
    put: (key, value, more = {}) =>
      self.request(`/store/${encodeKey(key)}`, {
        method: 'PUT',
        body: value as NonNullable<RequestInit['body']>,
        headers: more,
      }),
    async save(key, value, more) {
      const response = await self.put(key, value, more)
      if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
      const { headers: answered } = response
      return { token: answered.get('x-sync-token') ?? '', key: answered.get('x-sync-key') ?? '' }
    },
    delete: (key, version) =>
      self.request(`/store/${encodeKey(key)}`, {
        method: 'DELETE',
        headers: version === undefined ? {} : { 'X-Sync-Token': version },
      }),
    list: async () => (await (await self.request('/store')).json()) as Listed[],
    grant: (key, user, permission) =>
      self.request(`/permission/${encodeKey(key)}`, {
        method: 'PUT',
        body: JSON.stringify([{ user, permission }]),
      }),
    revoke: (key, ...users) =>
      self.request(
        `/permission/${encodeKey(key)}?${users.map((user) => `users=${encodeURIComponent(user)}`).join('&')}`,
        { method: 'DELETE' },
      ),
  }
  return self
}

/** The same session, through another node. */
export const through = (node: TestNode, { id, token, user }: Client): Client =>
  client(node, id, { token, user })
