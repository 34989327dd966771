// Owns the round trip through the public address: what is looked at on the way, in order, as far as
// the way leads.
import { TimeSpan } from 'oslo'
import type { Config } from '../../config.ts'
import { version } from '../../packed.ts'
import { toSpan } from '../../units.ts'
import { attempt, ok, problem, warning, type Finding } from '../finding.ts'
import { checkAddress, checkCertificate, checkPlain } from './address.ts'
import { checkBodies, checkRanges, checkVersions } from './bodies.ts'
import { checkClients } from './clients.ts'
import { checkCors } from './cors.ts'
import { checkEvents, checkPolls } from './feed.ts'
import { proxyOf, type Proxy } from './lines.ts'
import { checkHeaders, checkMeta, checkMethods, checkNames, checkWrite } from './names.ts'
import { faulty, outcome, type Traveller } from './traveller.ts'
import type { Visitor } from './visitor.ts'
import { openWay, tell, type Answer, type Way } from './way.ts'

export interface Journey {
  url: URL
  config: Config
  visitor: Visitor
  /** Ends it all. */
  signal: AbortSignal
}

type Findings = AsyncGenerator<Finding>

/** What the account stores beside the value whose way is looked at. */
const OTHER_BYTES = 256 * 1024
const MOST_SKEW_MS = new TimeSpan(1, 'm').milliseconds()

export async function* journey(journey: Journey): Findings {
  const { url, visitor, signal, config } = journey
  const { address, findings } = await checkAddress(url)
  yield* findings
  if (address === undefined) return
  const way = openWay({ url, address, token: visitor.token, signal })
  try {
    for await (const finding of through(journey, way, address)) yield fitted(finding)
  } finally {
    way.close()
  }

  /** The lines for a proxy with this installation's name and port. */
  function fitted(finding: Finding): Finding {
    if (finding.items === undefined) return finding
    const items = finding.items.map((line) =>
      line.replaceAll('NAME', url.hostname).replaceAll(':8080', `:${config.port}`),
    )
    return { ...finding, items }
  }
}

async function* through(
  { url, visitor, signal, config }: Journey,
  way: Way,
  address: string,
): Findings {
  const health = await outcome(way.ask('GET', '/health', { isAnonymous: true }))
  const proxy = typeof health === 'string' ? null : proxyOf(health)
  yield* await attempt('certificate', () => checkCertificate(url, address, proxy))
  yield* await attempt('http', () => checkPlain(url, address, proxy))
  if (typeof health === 'string') {
    yield problem('server', `there is no answer to GET /health: ${health}`)
    return
  }
  const limits = yield* checkServer(way, health)
  if (limits === null) return
  const stranger = await checkSession({ way, visitor, proxy })
  yield stranger ?? ok('session', 'the address leads to the server that runs on this data')
  if (stranger !== null) return
  const traveller = { way, proxy, visitor, mostBytes: limits.mostBytes }
  const writing = await checkWrite(traveller)
  yield writing
  if (writing.level === 'problem') return
  for (const [check, look] of CHECKS) {
    const found = await attempt(check, () => look(traveller, config))
    signal.throwIfAborted()
    yield* found
  }
}

const CHECKS: [string, (traveller: Traveller, config: Config) => Promise<Finding>][] = [
  ['methods', checkMethods],
  ['names', checkNames],
  ['headers', checkHeaders],
  ['meta', checkMeta],
  ['versions', checkVersions],
  ['ranges', checkRanges],
  ['CORS', checkCors],
  ['events', checkEvents],
  ['polls', checkPolls],
  ['bodies', checkBodies],
  ['clients', checkClients],
]

interface Info {
  name: string
  version: string
  limits: { value: number; quota: number | null }
}

/** Answers the server's limits; null where no Sync Node answers. */
async function* checkServer(
  way: Way,
  health: Answer,
): AsyncGenerator<Finding, { mostBytes: number } | null> {
  const answer = await outcome(way.ask('GET', '/info', { isAnonymous: true }))
  const info = typeof answer === 'string' ? undefined : readInfo(answer)
  if (typeof answer !== 'string') yield checkDate(answer)
  if (info === undefined) {
    yield strange(way, health)
    return null
  }
  if (health.status !== 200) {
    yield problem('server', `it is not well: \`sync-node doctor\` without an address says why`)
  } else if (info.version !== version) {
    const text = `sync-node ${info.version} answers, and this program is ${version}: restart the server`
    yield warning('server', text)
  } else yield ok('server', `sync-node ${version} answers, and is well`)
  const { value, quota } = info.limits
  const room = quota === null ? value : Math.max(quota - OTHER_BYTES, 1)
  return { mostBytes: Math.min(value, room) }
}

function readInfo({ status, body }: Answer): Info | undefined {
  if (status !== 200) return undefined
  try {
    const info = JSON.parse(body.toString()) as Info
    return info.name === 'sync-node' ? info : undefined
  } catch {
    return undefined
  }
}

function strange({ url }: Way, health: Answer): Finding {
  if (health.status >= 300 && health.status < 400) {
    const to = URL.parse(health.header('location'), url)?.origin ?? 'elsewhere'
    const text = `the address leads on to ${to}, and on such a way requests lose their values: use that address`
    return problem('server', text)
  }
  const text = `no Sync Node answers at ${url.origin} (GET /health: ${tell(health)}): lead the proxy to the server's HOST and PORT`
  return problem('server', text)
}

function checkDate(answer: Answer): Finding {
  const skew = Math.abs(Date.now() - Date.parse(answer.header('date')))
  if (!(skew > MOST_SKEW_MS)) return ok('clock', 'the same there and here')
  return warning(
    'clock',
    `there it is ${toSpan(skew)} off from here: set both (timedatectl set-ntp true)`,
  )
}

/** What keeps the session from being known; null when it is. */
async function checkSession({
  way,
  visitor,
  proxy,
}: {
  way: Way
  visitor: Visitor
  proxy: Proxy | null
}): Promise<Finding | null> {
  const answer = await outcome(way.ask('GET', '/account'))
  if (typeof answer !== 'string' && answer.status === 200) return null
  // A login needs no Authorization: the server that knows this account takes it.
  const { id, password } = visitor
  const body = JSON.stringify({ id, password })
  const login = await outcome(way.ask('POST', '/auth', { body, isAnonymous: true }))
  if (typeof login !== 'string' && login.status === 200) {
    const text = 'the header Authorization is lost on the way: nobody can log in'
    return faulty({ proxy }, 'session', { fault: 'authorization', text })
  }
  if (typeof login !== 'string' && login.status === 429) {
    return problem('session', 'too many logins failed from here: ask again in 15 minutes')
  }
  if (typeof answer !== 'string' && answer.code === undefined) {
    const text = `a request with a session is refused: ${tell(answer)}`
    return faulty({ proxy }, 'session', { fault: 'authorization', text })
  }
  const text =
    'this address leads to another server than the one that runs on this data: correct the DNS, the proxy, or STATIC_ROOT'
  return problem('session', typeof answer === 'string' ? `there is no answer: ${answer}` : text)
}
