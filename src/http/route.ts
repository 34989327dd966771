// Owns what a route is: a method and path, what it takes, what it answers, and what it does.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { GenericSchema, InferOutput } from 'valibot'
import type { Deps } from '../deps.ts'
import type { ErrorCode } from '../errors.ts'
import type { Session } from '../session.ts'

export interface Call<Body = unknown, Query = unknown> {
  deps: Deps
  incoming: IncomingMessage
  outgoing: ServerResponse
  /** Only on a route with `session: true`. */
  self: Session
  /** Decoded; only where the path ends in {key}. */
  key: string
  /** The last segment of the path, as it is; only where the path ends in {handle}. */
  handle: string
  query: Query
  body: Body
  /** Who is asking, for limits: see address.ts. */
  address: string | null
  /** Finds the session of a route that needs one only sometimes. Throws AUTH01. */
  findSession(): Promise<Session>
}

export interface Answer {
  description: string
  /** Of a JSON body; a body that is none is `bytes`. */
  schema?: GenericSchema
  bytes?: boolean
  /** Of a body that is neither JSON nor a value: its content type. */
  type?: string
  /** It can also come as server-sent events. */
  events?: boolean
  headers?: string[]
}

interface RequestHeader {
  name: string
  description: string
}

export interface Route<Body = unknown, Query = unknown> {
  method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  path: string
  summary: string
  description?: string
  session: boolean
  /** Of the query, each parameter a list of its values. */
  query?: GenericSchema<unknown, Query>
  /** Of a JSON body. */
  body?: GenericSchema<unknown, Body>
  maxBodyBytes?: number
  /** The body is a store's value. */
  takesValue?: boolean
  requestHeaders?: RequestHeader[]
  answers: Record<number, Answer>
  errors: ErrorCode[]
  handle(call: Call<Body, Query>): Response | Promise<Response>
}

/** Checks a route's types, then forgets its particulars. */
export const route = <
  Body extends GenericSchema | undefined = undefined,
  Query extends GenericSchema | undefined = undefined,
>(
  one: Omit<Route<Output<Body>, Output<Query>>, 'body' | 'query'> & {
    body?: Body
    query?: Query
  },
): Route => one as unknown as Route

type Output<Schema> = Schema extends GenericSchema ? InferOutput<Schema> : undefined
