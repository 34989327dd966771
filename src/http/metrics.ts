// Owns the listener for Prometheus, on this machine only, and what is measured of each request.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Deps } from '../deps.ts'
import { TEXT_FORMAT, type Metrics } from '../metrics.ts'
import type { Listening } from './server.ts'

// Others would be labels of a stranger's choice.
const METHODS = new Set(['GET', 'HEAD', 'PUT', 'POST', 'DELETE', 'OPTIONS'])

const routes = new WeakMap<ServerResponse, string>()

/** Says which route of the table answers here. */
export const nameRoute = (outgoing: ServerResponse, pattern: string): void => {
  routes.set(outgoing, pattern)
}

/** Counts this request when its answer has gone out, or its client away. */
export function measure(
  metrics: Metrics,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): void {
  const startMs = performance.now()
  outgoing.once('close', () => {
    const { method = '' } = incoming
    const isStream = String(outgoing.getHeader('content-type')) === 'text/event-stream'
    metrics.answered({
      method: METHODS.has(method) ? method : 'other',
      route: routes.get(outgoing) ?? 'none',
      status: outgoing.headersSent ? String(outgoing.statusCode) : 'none',
      seconds: isStream ? null : (performance.now() - startMs) / 1000,
    })
  })
}

/** Counts an event stream while it is open. */
export function measureStream(metrics: Metrics, outgoing: ServerResponse): void {
  metrics.streams(1)
  outgoing.once('close', () => metrics.streams(-1))
}

/** Answers /metrics on 127.0.0.1, without CORS: no web page may read it. */
export async function listenForMetrics(
  deps: Deps,
  metrics: Metrics,
  port: number,
): Promise<Listening> {
  const server = createServer((incoming, outgoing) => {
    answer(deps, metrics, incoming).then(
      ({ status, body }) => outgoing.writeHead(status, { 'Content-Type': TEXT_FORMAT }).end(body),
      (error: unknown) => {
        deps.log.warn({ err: error }, 'metrics could not be read')
        outgoing.writeHead(500).end()
      },
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

async function answer(deps: Deps, metrics: Metrics, { method, url }: IncomingMessage) {
  if (url?.split('?', 1)[0] !== '/metrics')
    return { status: 404, body: 'Metrics are at /metrics.\n' }
  if (method !== 'GET' && method !== 'HEAD') return { status: 405, body: 'GET only.\n' }
  return { status: 200, body: await metrics.text(deps) }
}
