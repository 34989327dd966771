// Owns what the page says to people: errors in plain words, sizes, times, devices.

/** One for each code of the protocol, and the client's own. */
export const MESSAGES: Record<string, string> = {
  REQ01: 'The server did not understand this. Reload the page and try again.',
  AUTH01: 'You are logged out. Log in again.',
  AUTH02: 'The user name or the password is wrong.',
  AUTH03: 'For this, log in once more.',
  ACCT01: 'This server takes new accounts only with an invitation that is still good.',
  ACCT02:
    'This user name or password cannot be used. A password has 8 to 1024 characters and is not the user name; a user name has 1 to 320 characters and does not start with ~.',
  ACCT03: 'This user name is taken. Choose another, or log in if it is yours.',
  PERM01: 'You are not allowed to do this with this store.',
  PERM02:
    'You are the only owner of this store. Make somebody else an owner first, or delete the store.',
  KEY01: 'Somebody changed this store just now. Look at it again before you go on.',
  FEED01: 'What this page knows is too old. Reload it.',
  SIZE01: 'This is larger than the server takes.',
  SIZE02: 'Your storage is full. Delete something first.',
  SIZE03: "The server's disk is full. Tell whoever runs it.",
  RATE01: 'Too many attempts. Wait a while and try again.',
  ERR01: 'This is not there any more. Reload the page.',
  ERR02: 'Something went wrong on the server. Tell whoever runs it.',
  ERR03: 'The server does not know this action. Reload the page.',
  ERR04: 'The disk of the server failed. Reload the page to see whether this was done.',
  ERR05: 'The server is too busy. Nothing was changed: try again in a moment.',
  NETWORK: 'The server cannot be reached. Check your connection and try again.',
  PROXY: 'Something on the way to the server answered in its place. Try again later.',
}

const UNEXPECTED = 'Something went wrong on this page. Reload it and try again.'

/** What to tell of an error; `instead` has the words of one form for some codes. */
export function messageOf(error: unknown, instead: Record<string, string> = {}): string {
  const { code, retryAfterMs } = (error ?? {}) as { code?: string; retryAfterMs?: number }
  const message = instead[code ?? ''] ?? MESSAGES[code ?? ''] ?? UNEXPECTED
  if (code !== 'RATE01' || retryAfterMs === undefined) return message
  return `Too many attempts. Try again in ${waitOf(retryAfterMs)}.`
}

function waitOf(ms: number): string {
  const minutes = Math.ceil(ms / 60_000)
  return minutes <= 1 ? 'a minute' : minutes < 90 ? `${minutes} minutes` : 'a few hours'
}

const UNITS = ['bytes', 'KB', 'MB', 'GB', 'TB']

/** In units of 1024, as QUOTA is set. */
export function sizeOf(bytes: number): string {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1)
  const value = bytes / 1024 ** power
  const digits = power === 0 || value >= 100 ? 0 : 1
  const text = value.toLocaleString(undefined, { maximumFractionDigits: digits })
  return bytes === 1 ? '1 byte' : `${text} ${UNITS[power]}`
}

export const percentOf = (part: number, whole: number): string =>
  (whole === 0 ? 1 : part / whole).toLocaleString(undefined, {
    style: 'percent',
    maximumFractionDigits: 0,
  })

export const RIGHTS: Record<string, string> = {
  OWN: 'owner',
  WRITE: 'can change it',
  READ: 'can read it',
}

/** A store key or a handle, to be told from others at a glance. */
export const shortened = (key: string): string => `${key.slice(0, 9)}…`

/** What a session that was opened here is called in the list. */
export function deviceOf(agent: string): string {
  const find = (names: [RegExp, string][]): string | undefined =>
    names.find(([pattern]) => pattern.test(agent))?.[1]
  const browser = find([
    [/Edg\//, 'Edge'],
    [/Firefox\//, 'Firefox'],
    [/Chrom(?:e|ium)\//, 'Chrome'],
    [/Safari\//, 'Safari'],
  ])
  const system = find([
    [/Android/, 'Android'],
    [/iPhone|iPad/, 'iOS'],
    [/Windows/, 'Windows'],
    [/Mac OS/, 'macOS'],
    [/Linux|X11/, 'Linux'],
  ])
  return `${browser ?? 'Browser'}${system === undefined ? '' : ` on ${system}`}, account page`
}
