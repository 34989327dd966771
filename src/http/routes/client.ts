// Owns the route of the TypeScript client, built for browsers: what scripts/client.ts made of src/client/.
import { readAsset } from '../../packed.ts'
import { INERT } from '../answer.ts'
import { pageRoute } from '../page.ts'

export const clientRoutes = [
  pageRoute({
    path: '/client.js',
    summary: 'The TypeScript client, an ES module',
    type: 'text/javascript; charset=utf-8',
    content: () => ({ body: readAsset('client.js'), csp: INERT }),
  }),
]
