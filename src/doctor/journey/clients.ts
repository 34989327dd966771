// Owns the look at whether the server sees who comes: it counts failed logins by the client's address,
// and so shows whether it knows one, and whether a client can choose it.
import { randomInt } from 'node:crypto'
import { networkInterfaces } from 'node:os'
import type { Config } from '../../config.ts'
import { ask as askHere } from '../../local.ts'
import { ok, warning, type Finding } from '../finding.ts'
import { faulty, type Traveller } from './traveller.ts'

/** So many of one account and address are let pass: see src/account.ts. */
const FAILURES = 10
const PATIENCE_MS = 10_000

export async function checkClients(traveller: Traveller, config: Config): Promise<Finding> {
  for (let failures = 0; failures <= FAILURES; failures++) {
    const status = await failToLogIn(traveller)
    if (status === 429) return checkSpoofing(traveller, config)
    if (status !== 401) return warning('clients', `a login is answered ${status}: try again later`)
  }
  const text =
    'the server cannot tell clients apart, so nobody who guesses passwords is slowed down: the proxy has to send X-Forwarded-For, and one on another machine has to stand in TRUSTED_PROXIES'
  return faulty(traveller, 'clients', { fault: 'forwarded', text })
}

/** The same client under an address that it made up. */
async function checkSpoofing(traveller: Traveller, config: Config): Promise<Finding> {
  // https://www.rfc-editor.org/rfc/rfc5737
  const made = `203.0.113.${randomInt(1, 255)}`
  const status = await failToLogIn(traveller, { 'X-Forwarded-For': made })
  if (status === 429) return ok('clients', 'the server tells them apart by their address')
  if (await isSeenAsProxy(traveller, config)) {
    const text =
      'the server tells them apart; whether one can choose its address cannot be seen from this machine, which counts as a proxy'
    return ok('clients', text)
  }
  const text =
    'a client can choose the address that it is counted by: the outermost proxy has to write X-Forwarded-For itself'
  return faulty(traveller, 'clients', { fault: 'forwarded', text })
}

/** Where this machine's own address is one of a trusted proxy, what it claims is believed rightly. */
async function isSeenAsProxy({ visitor }: Traveller, config: Config): Promise<boolean> {
  const own = Object.values(networkInterfaces()).flatMap((all) => all ?? [])
  const trusted = own.filter(
    ({ address, family, internal }) =>
      internal || config.trustedProxies.check(address, family === 'IPv4' ? 'ipv4' : 'ipv6'),
  )
  for (const { address } of trusted) {
    const answer = await askHere(config, '/auth', {
      method: 'POST',
      headers: { 'X-Forwarded-For': address },
      body: JSON.stringify({ id: visitor.id, password: WRONG }),
    })
    // Failed under this address before: it is the one that the server saw.
    if (!('status' in answer) || answer.status === 429) return true
  }
  return false
}

const WRONG = 'not the password'

async function failToLogIn(
  { way, visitor }: Traveller,
  headers: Record<string, string> = {},
): Promise<number> {
  const body = JSON.stringify({ id: visitor.id, password: WRONG })
  const asked = { body, headers, isAnonymous: true, patienceMs: PATIENCE_MS }
  return (await way.ask('POST', '/auth', asked)).status
}
