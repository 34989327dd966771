// Owns the look at the address itself: its name, what answers there, its certificate, and plain http.
import { lookup } from 'node:dns/promises'
import { request } from 'node:http'
import { connect, isIP } from 'node:net'
import { connect as connectTls, getCACertificates, type PeerCertificate } from 'node:tls'
import { TimeSpan } from 'oslo'
import { count } from '../../units.ts'
import { ok, problem, warning, type Finding } from '../finding.ts'
import { linesFor, type Proxy } from './lines.ts'

const PATIENCE_MS = 5000
const DAY_MS = new TimeSpan(1, 'd').milliseconds()
const SOON_DAYS = 14
/** What this machine cannot try: it has no way to such addresses. */
const NO_WAY = new Set(['ENETUNREACH', 'EADDRNOTAVAIL', 'EAFNOSUPPORT'])

const portOf = ({ port, protocol }: URL): number =>
  Number(port || (protocol === 'https:' ? 443 : 80))

const nameOf = ({ hostname }: URL): string => hostname.replace(/^\[(.*)\]$/, '$1')

/** The address that is asked from now on, or undefined where nothing answers. */
export async function checkAddress(
  url: URL,
): Promise<{ address: string | undefined; findings: Finding[] }> {
  const name = nameOf(url)
  let all: string[]
  try {
    all = (await lookup(name, { all: true })).map(({ address }) => address)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const text = `${name} has no address (${code}): enter it at your DNS provider`
    return { address: undefined, findings: [problem('address', text)] }
  }
  const tried = await Promise.all(
    all.map(async (address) => ({ address, failure: await reach(address, portOf(url)) })),
  )
  const address = tried.find(({ failure }) => failure === null)?.address
  const findings = tried.flatMap(({ address: one, failure }) => {
    if (failure === null) return []
    if (NO_WAY.has(failure)) return [warning('address', `${one} cannot be tried from this machine`)]
    return [problem('address', `${one} does not answer (${failure}): ${REMEDY}`)]
  })
  if (findings.length === 0) findings.push(ok('address', `${name} is ${all.join(', ')}`))
  return { address, findings }
}

const REMEDY =
  'start the proxy, open the port in firewall and router, or take the address out of the DNS; some routers just do not lead back from inside'

/** Null when something listens there, else why not. */
function reach(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: PATIENCE_MS })
    const end = (result: string | null): void => {
      socket.destroy()
      resolve(result)
    }
    socket.once('connect', () => end(null))
    socket.once('timeout', () => end('no answer'))
    socket.once('error', ({ code }: NodeJS.ErrnoException) => end(code ?? 'error'))
  })
}

const UNKNOWN =
  'the certificates between it and its authority are not sent (fullchain.pem), or that is a private one'

const MEANING: Record<string, string> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: 'it is self-signed',
  SELF_SIGNED_CERT_IN_CHAIN: 'it is signed by a private authority',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN,
  CERT_HAS_EXPIRED: 'it has expired',
  CERT_NOT_YET_VALID: 'it is not valid yet (or the clock is wrong)',
  ERR_TLS_CERT_ALTNAME_INVALID: 'it is for another name',
}

export async function checkCertificate(
  url: URL,
  address: string,
  proxy: Proxy | null,
): Promise<Finding> {
  if (url.protocol !== 'https:') {
    const text =
      'plain http: passwords and values can be read on the way, and browsers have no WebCrypto there; serve https'
    return warning('certificate', text, linesFor('certificate', proxy))
  }
  const seen = await shakeHands(url, address)
  if (seen instanceof Error) {
    const text = `there is no TLS at this address (${seen.message})`
    return problem('certificate', text, linesFor('certificate', proxy))
  }
  if (seen.failure !== null) {
    const text = `no browser or app takes it: ${MEANING[seen.failure] ?? seen.failure}`
    return problem('certificate', text, linesFor('certificate', proxy))
  }
  const days = Math.floor((Date.parse(seen.certificate.valid_to) - Date.now()) / DAY_MS)
  if (days >= SOON_DAYS) return ok('certificate', `good for ${count(days, 'day')}`)
  const text = `it ends in ${count(days, 'day')}: see why it was not renewed`
  return warning('certificate', text)
}

function shakeHands(
  url: URL,
  host: string,
): Promise<Error | { failure: string | null; certificate: PeerCertificate }> {
  const name = nameOf(url)
  return new Promise((resolve) => {
    const socket = connectTls({
      host,
      port: portOf(url),
      ...(isIP(name) === 0 ? { servername: name } : {}),
      // An authority that this machine was told to trust counts as well.
      ca: [...getCACertificates('default'), ...getCACertificates('system')],
      rejectUnauthorized: false,
      timeout: PATIENCE_MS,
    })
    const end = (result: Parameters<typeof resolve>[0]): void => {
      socket.destroy()
      resolve(result)
    }
    socket.once('error', end)
    socket.once('timeout', () => end(new Error('no answer')))
    socket.once('secureConnect', () => {
      // The type says Error, and Node gives the code.
      const failure = socket.authorized ? null : codeOf(socket.authorizationError)
      end({ failure, certificate: socket.getPeerCertificate() })
    })
  })
}

const codeOf = (error: Error | string): string =>
  typeof error === 'string' ? error : ((error as NodeJS.ErrnoException).code ?? error.message)

/** That a link without https leads to it; only where the ports are the usual ones. */
export async function checkPlain(
  url: URL,
  address: string,
  proxy: Proxy | null,
): Promise<Finding[]> {
  if (url.protocol !== 'https:' || url.port !== '') return []
  const answer = await askPlain(url, address)
  if (answer === null) return [ok('http', 'nothing answers without https')]
  const { status, location } = answer
  if (status >= 300 && status < 400 && location.startsWith('https:')) {
    return [ok('http', 'leads to https')]
  }
  const text = `http:// answers ${status} in place of a redirect: passwords can be sent in the clear`
  return [warning('http', text, linesFor('https', proxy))]
}

function askPlain(url: URL, host: string): Promise<{ status: number; location: string } | null> {
  return new Promise((resolve) => {
    const asked = request({
      host,
      path: '/health',
      headers: { Host: url.hostname },
      agent: false,
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    asked.once('error', () => resolve(null))
    asked.once('response', ({ statusCode = 0, headers }) => {
      resolve({ status: statusCode, location: headers.location ?? '' })
      asked.destroy()
    })
    asked.end()
  })
}
