// Owns the route table, and the way of a request through it: session, key, query, body, handler; and
// every refusal to its problem.
import type { HttpBindings } from '@hono/node-server'
import { Hono, type Context } from 'hono'
import type { IncomingMessage } from 'node:http'
import { safeParse, strictObject, type GenericSchema } from 'valibot'
import { refusal } from '../database/database.ts'
import type { Deps } from '../deps.ts'
import { SyncError, malformed, notFound, unauthorized } from '../errors.ts'
import * as key from '../key.ts'
import { openMemory, type Memory } from '../memory.ts'
import * as session from '../session.ts'
import { unique } from '../token.ts'
import { UPLOADS } from '../value.ts'
import { clientAddress } from './address.ts'
import { preflight, text } from './answer.ts'
import { SMALL_BYTES, contentLength, readJson } from './body.ts'
import { nameRoute } from './metrics.ts'
import { docsRoute } from './docs.ts'
import { openapiRoute } from './openapi.ts'
import { toProblem } from './problem.ts'
import type { Call, Route } from './route.ts'
import { accountRoutes } from './routes/account.ts'
import { authRoutes } from './routes/auth.ts'
import { batchRoutes } from './routes/batch.ts'
import { changesRoutes } from './routes/changes.ts'
import { clientRoutes } from './routes/client.ts'
import { infoRoutes } from './routes/info.ts'
import { passwordRoutes } from './routes/password.ts'
import { permissionRoutes } from './routes/permission.ts'
import { storeRoutes } from './routes/store.ts'
import { webRoutes } from './routes/web.ts'

/** Every route there is. Those of one path stand together, a path before the longer one it begins. */
export const routes: Route[] = [
  ...accountRoutes,
  ...authRoutes,
  ...passwordRoutes,
  ...storeRoutes,
  ...permissionRoutes,
  ...changesRoutes,
  ...batchRoutes,
  ...infoRoutes,
  openapiRoute(() => routes),
  docsRoute(() => routes),
  ...webRoutes,
  ...clientRoutes,
]

type Env = { Bindings: HttpBindings }

const NO_QUERY = strictObject({})
const BEARER = /^Bearer +([\w-]{43})$/i

export function createApp(deps: Deps): Hono<Env> {
  // The raw target, not the URL made from it: that has dot segments folded.
  const app = new Hono<Env>({
    getPath: (_, options) => pathOf((options as { env: HttpBindings }).env.incoming.url),
  })
  const findSession = session.finder(deps)
  const memory = openMemory()

  async function respond(route: Route, c: Context<Env>): Promise<Response> {
    const { incoming, outgoing } = c.env
    if (deps.metrics !== null) nameRoute(outgoing, route.path)
    const find = async (): Promise<session.Session> => {
      const [, bearer] = BEARER.exec(incoming.headers.authorization ?? '') ?? []
      if (bearer === undefined) throw unauthorized()
      return findSession(bearer)
    }
    const self = route.session ? await find() : undefined
    const held = new DisposableStack()
    try {
      const leave = isLarge(route, incoming)
        ? deps.limiter.enter(UPLOADS, String(self?.account))
        : () => undefined
      const given = await takeIn(route, c.env, { memory, held }).finally(leave)
      const address = clientAddress(incoming, deps.config.trustedProxies)
      const call = { deps, incoming, outgoing, self, address, findSession: find, ...given }
      return await route.handle(call as Call)
    } catch (error) {
      // A session that was remembered may have ended: that comes before all that is wrong beside it.
      const isEarly = error instanceof SyncError && ['REQ01', 'SIZE01'].includes(error.code)
      if (self !== undefined && isEarly) await session.check(deps, self)
      throw error
    } finally {
      held.dispose()
    }
  }

  app.options('*', preflight)
  for (const path of new Set(routes.map((route) => route.path))) {
    // To Hono /permission/* is /permission too.
    if (path.endsWith('/{key}')) app.all(path.slice(0, -'/{key}'.length), nothingHere)
    const pattern = path.replace('{key}', '*').replace('{handle}', ':handle')
    const ofPath = routes.filter((route) => route.path === path)
    // Hono answers HEAD by the GET handler; a route's own HEAD is there for the documents.
    for (const route of ofPath) {
      if (route.method !== 'HEAD') app.on(route.method, pattern, (c) => respond(route, c))
    }
    const methods = ofPath.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
    const allow = [...new Set([...methods, 'OPTIONS'])].join(', ')
    app.all(pattern, () => {
      throw methodNotAllowed(allow)
    })
  }
  app.notFound(nothingHere)
  app.onError((error) => refuse(deps, error))
  return app
}

/** A body of a few megabytes, or one that does not say how large it is. */
const isLarge = ({ maxBodyBytes }: Route, incoming: IncomingMessage): boolean =>
  maxBodyBytes !== undefined && (contentLength(incoming) ?? Infinity) > SMALL_BYTES

function nothingHere(): never {
  throw notFound()
}

export const methodNotAllowed = (allow: string): SyncError =>
  new SyncError('ERR03', 'This path does not take this method: Allow names those it takes.', {
    headers: { Allow: allow },
  })

/** The answer to a refusal or fault; a fault is logged under the request id that the answer carries. */
export function refuse({ log, random }: Pick<Deps, 'log' | 'random'>, thrown: unknown): Response {
  const error = refusal(thrown)
  const requestId = unique(random)
  const { status, headers, body } = toProblem(error, requestId)
  if (!(error instanceof SyncError)) log.error({ err: error, requestId }, 'unexpected error')
  // What clients can bring about at will (a full quota, a busy login) fills nobody's log.
  else if (status >= 500 && error.cause !== undefined) {
    log.warn({ code: error.code, requestId, cause: reason(error) }, 'refused')
  }
  return text(body, status, headers)
}

const reason = (error: SyncError): string | undefined =>
  error.cause instanceof Error ? error.cause.message : undefined

const pathOf = (target = '/'): string => target.split('?', 1)[0] as string

async function takeIn(
  route: Route,
  bindings: HttpBindings,
  room: { memory: Memory; held: DisposableStack },
) {
  const { incoming } = bindings
  const path = pathOf(incoming.url)
  const last = path.slice(route.path.indexOf('{'))
  return {
    key: route.path.endsWith('{key}') ? key.parse(last) : '',
    handle: last,
    query: parse(route.query ?? NO_QUERY, parseQuery(incoming.url ?? ''), 'query'),
    body:
      route.body &&
      parse(route.body, await readJson(bindings, route.maxBodyBytes ?? SMALL_BYTES, room), 'body'),
  }
}

function parseQuery(target: string): Record<string, string[]> {
  const query = target.slice(pathOf(target).length + 1)
  const values: Record<string, string[]> = Object.create(null) as Record<string, string[]>
  for (const pair of query.split('&').filter(Boolean)) {
    const [name = '', ...rest] = pair.split('=')
    const list = (values[decodeQuery(name)] ??= [])
    list.push(decodeQuery(rest.join('=')))
  }
  return values
}

function decodeQuery(part: string): string {
  // To some a blank, to others a plus: a user who is named by it would be missed in silence.
  if (part.includes('+')) throw malformed('In the query write %2B for a plus, %20 for a blank.')
  try {
    return decodeURIComponent(part)
  } catch {
    throw malformed('The query is not percent-encoded UTF-8.')
  }
}

/** What `schema` makes of a part of the request, or REQ01 that says where it is wrong, never what is. */
function parse(schema: GenericSchema, input: unknown, where: string): unknown {
  const result = safeParse(schema, input, { abortEarly: true })
  if (result.success) return result.output
  const [issue] = result.issues
  const known = issue.path?.map(({ key }) => String(key)) ?? []
  // An unknown member's name is the client's, not ours to repeat.
  const isUnknown = issue.expected === 'never'
  const place = [where, ...(isUnknown ? known.slice(0, -1) : known)].join('.')
  const what = isUnknown ? 'has a member that is not known here' : `takes ${issue.expected}`
  throw malformed(`The request is malformed: ${place} ${what}.`)
}
