// Owns the shapes that several routes take or answer. They check the requests and make /openapi.json.
import * as v from 'valibot'

/** Text that UTF-8 can carry: a lone surrogate cannot be hashed as what it is. */
export const text = v.pipe(
  v.string(),
  v.check((value) => value.isWellFormed(), 'well-formed Unicode'),
)

// The protocol's rules are checked after normalisation, and a breach of them is ACCT02, not REQ01.
export const id = v.pipe(
  text,
  v.description(
    'User name or e-mail, 1 to 320 characters after NFKC; case and outer blanks do not count.',
  ),
)

export const password = v.pipe(text, v.description('8 to 1024 characters after NFKC, not the id.'))

export const device = v.optional(
  v.pipe(
    text,
    v.minLength(1),
    v.check((value) => [...value].length <= 100, 'at most 100 characters'),
    v.description('What the session is called in the list of sessions, 1 to 100 characters.'),
  ),
)

export const handle = v.pipe(
  v.string(),
  v.regex(/^~[A-Za-z0-9_-]{43}$/),
  v.description('An account as it is shown: ~ and 43 base64url characters.'),
)

export const time = v.pipe(
  v.number(),
  v.integer(),
  v.description('Milliseconds since the Unix epoch.'),
)

export const permission = v.picklist(['READ', 'WRITE', 'OWN'])

export const token = v.pipe(
  v.string(),
  v.regex(/^[0-9a-v]{1,64}$/),
  v.description('The version of a store, opaque.'),
)

export const bytes = v.pipe(v.number(), v.integer(), v.minValue(0), v.description('Bytes.'))

export const openedSession = v.object({
  token: v.pipe(v.string(), v.description('For `Authorization: Bearer`; shown only here.')),
  expiration: time,
  user: handle,
})

/** A store as listings and feeds show it. */
export const listedStore = v.object({
  key: v.string(),
  permission,
  token,
  meta: v.optional(v.string()),
  size: bytes,
  modified: time,
})
