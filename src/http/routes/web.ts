// Owns the routes of the account page: its HTML, style and script, all from this server.
import { readAsset } from '../../packed.ts'
import { INERT } from '../answer.ts'
import { pageRoute } from '../page.ts'

// No value that an app stored can run here: only the two files below, from this origin.
const PAGE_CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ')

export const webRoutes = [
  pageRoute({
    path: '/',
    summary: 'The account page, for people',
    type: 'text/html; charset=utf-8',
    content: () => ({ body: readAsset('page.html'), csp: PAGE_CSP }),
  }),
  pageRoute({
    path: '/page.css',
    summary: 'The style of the account page',
    type: 'text/css; charset=utf-8',
    content: () => ({ body: readAsset('page.css'), csp: INERT }),
  }),
  pageRoute({
    path: '/page.js',
    summary: 'The script of the account page',
    type: 'text/javascript; charset=utf-8',
    content: () => ({ body: readAsset('page.js'), csp: INERT }),
  }),
]
