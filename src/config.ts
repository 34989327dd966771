// Owns the configuration: environment variables in, a checked and frozen Config out.
import { existsSync, readFileSync } from 'node:fs'
import { BlockList, isIP } from 'node:net'
import { join, resolve } from 'node:path'
import type { Place } from './blobs/calls.ts'

export type Environment = Record<string, string | undefined>

type Registration = 'open' | 'invite' | 'closed'

/** Of a database server: http: or https:, without any secret in it. */
export interface DatabaseServer {
  url: string
  authToken: string | null
}

export interface Config {
  host: string
  port: number
  /** Of the listener for Prometheus, or null for none. */
  metricsPort: number | null
  /** Absolute path. */
  root: string
  registration: Registration
  /** Bytes an account may own, or null for no limit. */
  quota: number | null
  /** Bytes */
  maxValueSize: number
  publicUrl: string | null
  trustedProxies: BlockList
  secretKey: string | null
  /** Null for the file in `root`. */
  database: DatabaseServer | null
  /** The bucket where values above 16 KiB are, or null for `root`. */
  blobUrl: Place | null
  logLevel: (typeof LOG_LEVELS)[number]
  smtpUrl: string | null
  mailFrom: string | null
}

/** A wrong setting: the message is one line that names the variable and what it takes. */
export class ConfigError extends Error {}

const GIB = 1024 ** 3
const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const
const REGISTRATIONS = ['open', 'invite', 'closed'] as const
const UNITS: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: GIB, t: 1024 ** 4 }
const MIN_SECRET_CHARACTERS = 32
// 10,000 parts of 8 MiB: see src/blobs/s3.ts.
const MOST_IN_BUCKET = 78 * GIB

export function readConfig(environment: Environment): Config {
  const read = reader(environment)
  const registration = read('REGISTRATION', oneOf(REGISTRATIONS)) ?? 'open'
  const publicUrl = read('PUBLIC_URL', httpUrl)
  const smtpUrl = read('SMTP_URL', smtpServer)
  const mailFrom = read('MAIL_FROM', address)
  if (smtpUrl !== null && mailFrom === null) {
    throw new ConfigError('MAIL_FROM is needed beside SMTP_URL: the address that mail comes from.')
  }
  const secretKey = read('SECRET_KEY', longText)
  const blobUrl = readPlace(read)
  const maxValueSize = read('MAX_VALUE_SIZE', size) ?? GIB
  if (blobUrl !== null && maxValueSize > MOST_IN_BUCKET) {
    throw new ConfigError('MAX_VALUE_SIZE is wrong: it takes at most 78G beside BLOB_URL.')
  }
  const database = readDatabase(read)
  if (database !== null) requireBeside({ SECRET_KEY: secretKey, BLOB_URL: blobUrl })
  return Object.freeze({
    host: read('HOST', hostName) ?? '::',
    port: read('PORT', wholeNumber(0, 65_535)) ?? 8080,
    metricsPort: read('METRICS_PORT', wholeNumber(0, 65_535)),
    root: resolve(read('STATIC_ROOT', anyText) ?? './data'),
    registration,
    quota: readQuota(read, registration),
    maxValueSize,
    publicUrl,
    trustedProxies: read('TRUSTED_PROXIES', proxies) ?? new BlockList(),
    secretKey,
    database,
    blobUrl,
    logLevel: read('LOG_LEVEL', oneOf(LOG_LEVELS)) ?? 'info',
    smtpUrl,
    mailFrom,
  })
}

/** Null for the file in STATIC_ROOT. */
function readDatabase(read: Read): DatabaseServer | null {
  const url = read('DATABASE_URL', databaseUrl) ?? 'file:'
  const authToken = read('DATABASE_AUTH_TOKEN', word)
  if (url !== 'file:') return { url, authToken }
  if (authToken === null) return null
  throw new ConfigError('DATABASE_AUTH_TOKEN is set, but DATABASE_URL names no database server.')
}

/** Of what all nodes on a database server have in common. */
function requireBeside(settings: Record<keyof typeof SHARED, string | Place | null>): void {
  for (const [name, why] of Object.entries(SHARED)) {
    if (settings[name as keyof typeof SHARED] !== null) continue
    throw new ConfigError(`${name} is needed beside DATABASE_URL: ${why}.`)
  }
}

const SHARED = {
  SECRET_KEY: 'all nodes hash names under the same one',
  BLOB_URL: 'large values cannot be on the disk of one node',
}

/** Null for the folder of the data. */
function readPlace(read: Read): Place | null {
  const place = read('BLOB_URL', bucketUrl)
  const accessKeyId = read('AWS_ACCESS_KEY_ID', word)
  const secretAccessKey = read('AWS_SECRET_ACCESS_KEY', word)
  const sessionToken = read('AWS_SESSION_TOKEN', word)
  if (place === null) return null
  if (accessKeyId === null || secretAccessKey === null) {
    const name = accessKeyId === null ? 'AWS_ACCESS_KEY_ID' : 'AWS_SECRET_ACCESS_KEY'
    throw new ConfigError(`${name} is needed beside BLOB_URL: the bucket asks for it.`)
  }
  const credentials = { accessKeyId, secretAccessKey }
  return { ...place, ...credentials, ...(sessionToken === null ? {} : { sessionToken }) }
}

interface Kind<T> {
  (text: string): T | undefined
  takes?: string
}

type Read = <T>(name: string, parse: Kind<T>, told?: { takes: string }) => T | null

function reader(environment: Environment): Read {
  return function read(name, parse, told) {
    const text = readText(environment, name)
    if (text === undefined) return null
    const value = parse(text)
    if (value !== undefined) return value
    throw new ConfigError(`${name} is wrong: it takes ${told?.takes ?? parse.takes}.`)
  }
}

/** What the variable says, or a file that stands for it. */
function readText(environment: Environment, name: string): string | undefined {
  const [source, other] = sourcesOf(environment, name)
  if (source === undefined) return undefined
  if (other !== undefined) {
    throw new ConfigError(`${source.name} and ${other.name} are both set: it takes one of them.`)
  }
  if (source.file === undefined) return source.text
  try {
    return readFileSync(source.file, 'utf8').trim() || undefined
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError(`${source.name} is wrong: it takes a file that can be read (${code}).`)
  }
}

/** Where a setting comes from. */
export function sourceOf(environment: Environment, name: string): string {
  const [source] = sourcesOf(environment, name)
  if (source === undefined) return 'default'
  return source.file === undefined ? 'environment' : source.name
}

interface Source {
  name: string
  text?: string
  file?: string
}

/** All that set it: the variable, NAME_FILE, a credential of systemd. An empty variable is unset, as in a unit. */
function sourcesOf(environment: Environment, name: string): Source[] {
  const sources: Source[] = []
  const text = environment[name]?.trim()
  if (text) sources.push({ name, text })
  const file = environment[`${name}_FILE`]?.trim()
  if (file) sources.push({ name: `${name}_FILE`, file })
  const folder = environment['CREDENTIALS_DIRECTORY']
  if (folder && existsSync(join(folder, name))) {
    sources.push({ name: `the credential ${name}`, file: join(folder, name) })
  }
  return sources
}

function readQuota(read: Read, registration: Registration): number | null {
  const quota = read('QUOTA', (text) => (text.toLowerCase() === 'none' ? 'none' : size(text)), {
    takes: 'bytes an account may own, such as 500M or 10G, or none',
  })
  if (quota === 'none') return null
  return quota ?? (registration === 'open' ? GIB : null)
}

const kind = <T>(takes: string, parse: (text: string) => T | undefined): Kind<T> =>
  Object.assign((text: string) => parse(text), { takes })

const anyText = kind('a path', (text) => text)

const longText = kind(`at least ${MIN_SECRET_CHARACTERS} characters, random`, (text) =>
  text.length >= MIN_SECRET_CHARACTERS ? text : undefined,
)

const oneOf = <const T extends readonly string[]>(values: T): Kind<T[number]> =>
  kind(values.join(', '), (text) => values.find((value) => value === text.toLowerCase()))

const wholeNumber = (least: number, most: number): Kind<number> =>
  kind(`a whole number from ${least} to ${most}`, (text) => {
    const number = Number(text)
    return /^\d+$/.test(text) && number >= least && number <= most ? number : undefined
  })

const size = kind('a size in bytes, such as 1048576, 500M or 2G', (text) => {
  const match = /^(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?$/i.exec(text)
  if (match === null) return undefined
  const bytes = Math.floor(Number(match[1]) * (UNITS[(match[2] as string).toLowerCase()] as number))
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined
})

const hostName = kind('an IP address or host name to listen on', (text) =>
  isIP(text) !== 0 || /^[\w.-]+$/.test(text) ? text : undefined,
)

const httpUrl = kind('an address such as https://sync.example.org', (text) => {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol) || /[?#]/.test(text)) return undefined
  if (url.username !== '' || url.password !== '') return undefined
  return url.href.replace(/\/$/, '')
})

const databaseUrl = kind(
  'file: (the database in STATIC_ROOT), or a libSQL server such as libsql://name.example.org or http://10.0.0.1:8080',
  (text) => {
    if (text === 'file:') return text
    const url = URL.parse(text.replace(/^libsql:/, 'https:'))
    if (url === null || !/^https?:$/.test(url.protocol) || /[?#@]/.test(text)) return undefined
    return url.href
  },
)

const word = kind('printable characters without blanks', (text) =>
  /^[!-~]+$/.test(text) ? text : undefined,
)

const bucketUrl = kind(
  's3://bucket/prefix?endpoint=https://host&region=name (only the bucket has to be there)',
  (text) => {
    const url = URL.parse(text)
    const [, bucket = '', path = ''] =
      /^s3:\/\/([\w.-]+)((?:\/[\w.-]+)*)\/?(?:\?|$)/.exec(text) ?? []
    if (url === null || bucket === '' || /\/\.\.?(?:\/|$)/.test(path) || url.hash !== '')
      return undefined
    if ([...url.searchParams.keys()].some((name) => !/^(?:endpoint|region)$/.test(name)))
      return undefined
    const region = url.searchParams.get('region') ?? 'us-east-1'
    const endpoint = httpUrl(
      url.searchParams.get('endpoint') ?? `https://s3.${region}.amazonaws.com`,
    )
    if (endpoint === undefined || !/^[\w-]+$/.test(region)) return undefined
    return { bucket, prefix: path === '' ? '' : `${path.slice(1)}/`, endpoint, region }
  },
)

const smtpServer = kind('smtp://user:password@host:587 or smtps://…', (text) => {
  const url = URL.parse(text)
  return url !== null && /^smtps?:$/.test(url.protocol) && url.hostname !== '' ? text : undefined
})

const address = kind('a mail address, such as sync@example.org', (text) =>
  /^(?:[^<>\r\n]* <[^\s@<>]+@[^\s@<>]+>|[^\s@<>]+@[^\s@<>]+)$/.test(text) ? text : undefined,
)

const proxies = kind('IP addresses and networks, such as 10.0.0.1, 192.168.0.0/16', (text) => {
  const list = new BlockList()
  for (const entry of text.split(/[\s,]+/).filter(Boolean)) {
    const [ip = '', prefix, ...rest] = entry.split('/')
    const family = isIP(ip)
    const most = family === 4 ? 32 : 128
    const isPrefix = prefix === undefined || (/^\d+$/.test(prefix) && Number(prefix) <= most)
    if (family === 0 || rest.length > 0 || !isPrefix) return undefined
    list.addSubnet(ip, prefix === undefined ? most : Number(prefix), family === 4 ? 'ipv4' : 'ipv6')
  }
  return list
})
