// Owns the look at what web pages of other origins are told.
import { ALLOWED, EXPOSED } from '../../headers.ts'
import { ok, type Finding } from '../finding.ts'
import { create, faulty, pathOf, type Traveller } from './traveller.ts'
import type { Answer } from './way.ts'

const METHODS = ['GET', 'HEAD', 'PUT', 'POST', 'DELETE']
const ORIGIN = { Origin: 'https://app.example' }

export async function checkCors(traveller: Traveller): Promise<Finding> {
  const { way } = traveller
  await create(traveller, 'cors')
  const preflight = await way.ask('OPTIONS', pathOf('cors'), {
    isAnonymous: true,
    headers: {
      ...ORIGIN,
      'Access-Control-Request-Method': 'PUT',
      'Access-Control-Request-Headers': ALLOWED.join(', ').toLowerCase(),
    },
  })
  const wrong = [
    ...originIn(preflight, 'the preflight'),
    ...missingIn(preflight, 'allow-headers', ALLOWED),
    ...missingIn(preflight, 'allow-methods', METHODS),
  ]
  if (preflight.status >= 300) wrong.push(`the preflight is answered ${preflight.status}`)
  for (const [raw, what] of [
    ['cors', 'an answer'],
    ['nothing-here', 'an error'],
  ] as const) {
    const answer = await way.ask('GET', pathOf(raw), { headers: ORIGIN })
    wrong.push(...originIn(answer, what), ...missingIn(answer, 'expose-headers', EXPOSED))
  }
  if (wrong.length === 0) return ok('CORS', 'web pages of any origin may ask')
  const text = `web pages cannot use this server: ${[...new Set(wrong)].join('; ')}`
  return faulty(traveller, 'CORS', { fault: 'cors', text })
}

/** Browsers refuse two, even if they are alike. */
function originIn(answer: Answer, what: string): string[] {
  const origins = answer.all('access-control-allow-origin')
  if (origins.length === 1 && origins[0] === '*') return []
  const how = origins.length > 1 ? 'twice' : origins.length === 0 ? 'missing' : 'not *'
  return [`Access-Control-Allow-Origin of ${what} is ${how}`]
}

function missingIn(answer: Answer, header: string, names: string[]): string[] {
  const there = answer
    .header(`access-control-${header}`)
    .toLowerCase()
    .split(/\s*,\s*/)
  const missing = names.filter((name) => !there.includes(name.toLowerCase()))
  return missing.length === 0 ? [] : [`Access-Control-${header} lacks ${missing.join(', ')}`]
}
