// Owns one well-formed request for each route of the table, which an OWN of a store may make.
import type { Route } from '../../src/http/route.ts'
import { PASSWORD } from './node.ts'

/** What a request is about. */
export interface Subject {
  /** The store, as it stands in a path. */
  key: string
  /** The token of that store. */
  token: string
  /** The handle of another member of it. */
  friend: string
  /** The handle of another session of the caller. */
  session: string
  /** An id that nobody has. */
  newId: string
  /** The id of an account with the password PASSWORD. */
  login: string
}

export interface Prepared {
  path: string
  query?: string
  headers?: Record<string, string>
  /** A JSON value. */
  json?: object
  body?: string
}

type Prepare = (subject: Subject) => Prepared

const REQUESTS: Record<string, Prepare> = {
  'POST /account': ({ newId: id }) => ({ path: '/account', json: { id, password: PASSWORD } }),
  'GET /account': () => ({ path: '/account' }),
  'DELETE /account': () => ({ path: '/account' }),
  'POST /auth': ({ login: id }) => ({ path: '/auth', json: { id, password: PASSWORD } }),
  'DELETE /auth': () => ({ path: '/auth' }),
  'DELETE /auth/{handle}': ({ session }) => ({ path: `/auth/${session}` }),
  'POST /password': () => ({
    path: '/password',
    json: { password: 'a new password', current: 'not the old one' },
  }),
  'POST /resetpassword': ({ login: id }) => ({ path: '/resetpassword', json: { id } }),
  'GET /store': () => ({ path: '/store' }),
  'GET /store/{key}': ({ key }) => ({ path: `/store/${key}` }),
  'HEAD /store/{key}': ({ key }) => ({ path: `/store/${key}` }),
  'PUT /store/{key}': ({ key, token }) => ({
    path: `/store/${key}`,
    headers: { 'X-Sync-Token': token },
    body: 'changed',
  }),
  'DELETE /store/{key}': ({ key, token }) => ({
    path: `/store/${key}`,
    headers: { 'X-Sync-Token': token },
  }),
  'GET /permission/{key}': ({ key }) => ({ path: `/permission/${key}` }),
  'PUT /permission/{key}': ({ key, friend }) => ({
    path: `/permission/${key}`,
    json: [{ user: friend, permission: 'WRITE' }],
  }),
  'DELETE /permission/{key}': ({ key, friend }) => ({
    path: `/permission/${key}`,
    query: `users=${friend}`,
  }),
  'GET /changes': () => ({ path: '/changes' }),
  'POST /batch': () => ({ path: '/batch', json: { operations: [] } }),
  'GET /': () => ({ path: '/' }),
  'GET /page.css': () => ({ path: '/page.css' }),
  'GET /page.js': () => ({ path: '/page.js' }),
  'GET /docs': () => ({ path: '/docs' }),
  'GET /client.js': () => ({ path: '/client.js' }),
  'GET /health': () => ({ path: '/health' }),
  'GET /info': () => ({ path: '/info' }),
  'GET /openapi.json': () => ({ path: '/openapi.json' }),
}

export const nameOf = ({ method, path }: Pick<Route, 'method' | 'path'>): string =>
  `${method} ${path}`

/** Throws for a route that nobody wrote a request for. */
export function requestFor(route: Pick<Route, 'method' | 'path'>, subject: Subject): Prepared {
  const prepare = REQUESTS[nameOf(route)]
  if (prepare === undefined) throw new Error(`test/helpers/requests.ts has no ${nameOf(route)}`)
  return prepare(subject)
}

export const targetOf = ({ path, query }: Prepared): string =>
  query === undefined ? path : `${path}?${query}`

/** As fetch takes it. */
export function initOf(
  method: string,
  { headers = {}, json, body = json && JSON.stringify(json) }: Prepared,
  more: Record<string, string>,
): RequestInit {
  return { method, headers: { ...headers, ...more }, ...(body === undefined ? {} : { body }) }
}
