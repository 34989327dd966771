// Owns /docs: the OpenAPI document as a page for people, without a script.
import { hash } from 'node:crypto'
import { html, raw } from 'hono/html'
import { readAsset } from '../packed.ts'
import { documentOf, type Json } from './openapi.ts'
import { pageRoute } from './page.ts'
import type { Route } from './route.ts'
import { notation } from './notation.ts'

type Html = ReturnType<typeof html>

interface Operation {
  name: string
  id: string
  item: Json
  operation: Json
}

/** The route that shows all routes. */
export const docsRoute = (all: () => Route[]): Route =>
  pageRoute({
    path: '/docs',
    summary: 'The same, as a page',
    type: 'text/html; charset=utf-8',
    content: () => {
      const style = readAsset('docs.css')
      const allowed = `'sha256-${hash('sha256', style, 'base64')}'`
      return {
        body: String(toPage(documentOf(all()), style)),
        csp: `default-src 'none'; style-src ${allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
      }
    },
  })

function toPage(document: Json, style: string): Html {
  const { title, version, description } = document['info'] as Record<string, string>
  const operations = operationsOf(document)
  const errors = (document['components'] as Json)['x-errors'] as Json[]
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title}: the HTTP interface</title>
        ${raw(`<style>${style}</style>`)}
      </head>
      <body>
        <header>
          <h1>${title} <small>${version}</small></h1>
          <p>${description}</p>
          ${introduction()}
        </header>
        <nav aria-label="Contents">
          <h2 id="contents">Contents</h2>
          <ul>
            ${operations.map(
              ({ name, id, operation }) =>
                html`<li>
                  <a href="#${id}"><code>${name}</code></a> ${operation['summary']}
                </li>`,
            )}
            <li><a href="#errors">Errors</a></li>
          </ul>
        </nav>
        <main>${operations.map(toSection)} ${toErrors(errors)}</main>
      </body>
    </html>`
}

const introduction = (): Html => html`
  <p>
    Bodies are JSON in UTF-8, whatever <code>Content-Type</code> says, except a store’s value, which
    is bytes. Times are milliseconds since the Unix epoch. Where a session is needed, send
    <code>Authorization: Bearer</code> and the token that <code>POST /auth</code> answers. Members
    and parameters that are not known here are refused. The same for programs is in
    <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1); people see and change their account on
    <a href="/">the account page</a>.
  </p>
`

function operationsOf(document: Json): Operation[] {
  return Object.entries(document['paths'] as Record<string, Json>).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => method !== 'parameters')
      .map(([method, operation]) => ({
        name: `${method.toUpperCase()} ${path}`,
        id: String((operation as Json)['operationId']),
        item,
        operation: operation as Json,
      })),
  )
}

function toSection({ name, id, item, operation }: Operation): Html {
  const [method, path] = name.split(' ')
  const { summary, description, security } = operation
  const parameters = [item, operation].flatMap((of) => (of['parameters'] ?? []) as Json[])
  return html`<section aria-labelledby="${id}">
    <h2 id="${id}">
      <a href="#${id}"><b>${method}</b> <code>${path}</code></a>
    </h2>
    <p>${summary}.${security === undefined ? '' : ' Needs a session.'}</p>
    ${description === undefined ? '' : html`<p>${prose(String(description))}</p>`}
    ${parameters.length === 0 ? '' : toParameters(parameters)}
    ${toBody(operation['requestBody'] as Json | undefined)}
    ${toAnswers(operation['responses'] as Record<string, Json>)}
  </section>`
}

const toParameters = (parameters: Json[]): Html => html`
  <h3>Takes</h3>
  <dl>
    ${parameters.map(
      ({ name, in: place, required, description, schema }) =>
        html`<dt>
            <code>${name}</code> <small>${place}${required === true ? ', required' : ''}</small>
          </dt>
          <dd>
            ${prose(String(description ?? (schema as Json)['description'] ?? ''))}
            ${place === 'query' ? html`<code>${notation(itemOf(schema as Json))}</code>` : ''}
          </dd>`,
    )}
  </dl>
`

/** A query parameter is a list of its values, mostly of one. */
const itemOf = (schema: Json): Json => {
  const { items, prefixItems } = schema
  return ((prefixItems as Json[] | undefined)?.[0] ?? items ?? schema) as Json
}

const toBody = (body: Json | undefined): Html | string =>
  body === undefined
    ? ''
    : html`<h3>Body</h3>
        ${toContent(body['content'] as Record<string, Json>)}`

const toContent = (content: Record<string, Json> | undefined): Html[] =>
  Object.entries(content ?? {}).map(([type, { schema }]) =>
    type === 'application/json'
      ? html`<pre><code>${notation(schema as Json)}</code></pre>`
      : html`<p><code>${type}</code></p>`,
  )

function toAnswers(answers: Record<string, Json>): Html {
  const all = Object.entries(answers)
  const refusals = all.filter(
    ([, { content }]) => (content as Json | undefined)?.['application/problem+json'] !== undefined,
  )
  const good = all.filter((one) => !refusals.includes(one))
  return html`<h3>Answers</h3>
    <dl>
      ${good.map(
        ([status, { description, headers, content }]) =>
          html`<dt><b>${status}</b> ${prose(String(description))}</dt>
            <dd>
              ${toContent(content as Record<string, Json> | undefined)}
              ${headers === undefined ? '' : html`<p>${codes(Object.keys(headers as Json))}</p>`}
            </dd>`,
      )}
      <dt>Errors</dt>
      <dd>
        <p>
          ${refusals.map(
            ([status, { description }]) =>
              html`<span class="error"
                >${status} ${String(description).split(', ').map(toErrorLink)}</span
              > `,
          )}
        </p>
      </dd>
    </dl>`
}

const codes = (names: string[]): Html[] => names.map((name) => html`<code>${name}</code> `)

const toErrorLink = (code: string): Html => html`<a href="#${code}">${code}</a> `

const toErrors = (errors: Json[]): Html =>
  html`<section aria-labelledby="errors">
    <h2 id="errors"><a href="#errors">Errors</a></h2>
    <p>
      Every error is <code>application/problem+json</code> (RFC 9457): <code>type</code>,
      <code>title</code>, <code>status</code>, <code>detail</code>, which says what to do, and
      <code>code</code>. 429 and 503 carry <code>Retry-After</code>.
    </p>
    <table>
      <thead>
        <tr>
          <th scope="col">Code</th>
          <th scope="col">Status</th>
          <th scope="col">When</th>
        </tr>
      </thead>
      <tbody>
        ${errors.map(
          ({ code, statuses, title, description }) =>
            html`<tr id="${code}">
              <th scope="row"><code>${code}</code></th>
              <td>${(statuses as number[]).join(', ')}</td>
              <td><b>${title}.</b> ${prose(String(description))}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </section>`

/** Text in which `names` are set as such. */
const prose = (text: string): (Html | string)[] =>
  text.split('`').map((part, at) => (at % 2 === 1 ? html`<code>${part}</code>` : part))
