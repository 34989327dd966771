// Owns how a page that is the same for everybody is answered: made once, and known by its ETag.
import { hash } from 'node:crypto'
import { pageHeaders } from './answer.ts'
import { readTags } from './conditions.ts'
import { route, type Route } from './route.ts'

interface Page {
  path: string
  summary: string
  type: string
  /** Called for the first answer; `csp` is its Content-Security-Policy. */
  content: () => { body: string; csp: string }
}

const CHARACTERS_OF_ETAG = 32

export function pageRoute({ path, summary, type, content }: Page): Route {
  let made: { body: string; csp: string; tag: string } | undefined
  function make() {
    const { body, csp } = content()
    return { body, csp, tag: hash('sha256', body).slice(0, CHARACTERS_OF_ETAG) }
  }
  return route({
    method: 'GET',
    path,
    summary,
    session: false,
    requestHeaders: [{ name: 'If-None-Match', description: 'ETags; 304 when one is current.' }],
    answers: {
      200: { description: 'All of it; nothing comes from elsewhere.', type: essence(type) },
      304: { description: 'Not changed.' },
    },
    errors: [],
    handle: ({ incoming }) => {
      made ??= make()
      const headers = pageHeaders(type, `"${made.tag}"`, made.csp)
      const isKnown = readTags(incoming.headers['if-none-match'] ?? '').includes(made.tag)
      return new Response(isKnown ? null : made.body, { status: isKnown ? 304 : 200, headers })
    },
  })
}

const essence = (type: string): string => type.split(';', 1)[0] as string
