// Owns `sync-node migrate-data`.
import { join } from 'node:path'
import { ConfigError, readConfig, sourceOf, type Config, type Environment } from '../config.ts'
import { asOwner } from '../installed.ts'
import { move, type Moved } from '../move.ts'
import { count, toSize } from '../units.ts'
import { CommandError, UsageError, interruptible, print, say, type Command } from './command.ts'
import { openBar } from './progress.ts'

export const migrateData: Command = {
  name: 'migrate-data',
  takes: [],
  options: {
    to: {
      takes: 'URL',
      isList: true,
      summary: 's3://bucket/prefix or libsql://host; or both, each with its --to',
    },
  },
  summary: 'bring large values to a bucket, all else to a database server; the server is stopped',
  details: `Values go to --to s3://bucket/prefix, as in BLOB_URL, with AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY; all else stays in STATIC_ROOT, or goes to --to libsql://host (also https: and
http:), as in DATABASE_URL, with DATABASE_AUTH_TOKEN if that asks for one.

What it comes from is only read, and what has come is compared with it. One that was interrupted is run
again, and goes on. In the end it prints the settings to start the server with.`,
  async run({ options }, environment) {
    const asked = read(environment, (options['to'] ?? []) as string[])
    const { root } = asked.source
    say(`Data: ${root}`)
    await interruptible(async (signal) => {
      const bar = openBar()
      const moved = await asOwner(root, () =>
        move({ ...bar, ...asked, signal }).finally(() => bar.end()),
      )
      const { accounts, stores, bytes } = moved
      say(`${accounts} accounts, ${stores} stores, ${toSize(bytes)}: moved and compared`)
      tell(asked, environment)
      conclude(moved)
    })
  },
}

interface Asked {
  source: Config
  target: Config
  /** What is another setting then. */
  lines: Record<string, string>
}

/** Throws UsageError, ConfigError, CommandError. */
function read(environment: Environment, urls: string[]): Asked {
  const to = byName(urls)
  const isToServer = 'DATABASE_URL' in to
  const isToBucket = 'BLOB_URL' in to
  const alone = without(environment, ['DATABASE_AUTH_TOKEN'])
  const source = readConfig(alone)
  if (source.database !== null) {
    throw new CommandError('The database is on a server already: use its own tools to move it.')
  }
  if (source.blobUrl !== null && isToBucket) {
    throw new CommandError('The values are in a bucket already: use its own tools to copy them.')
  }
  if (source.blobUrl === null && !isToBucket) {
    throw new UsageError('takes --to s3://bucket/prefix too: nodes on a server share their values')
  }
  const isInFile = isToServer && source.secretKey === null
  const lines = { ...to, ...(isInFile ? { SECRET_KEY_FILE: join(source.root, 'secret') } : {}) }
  // The folder, which nobody has looked at yet, may hold none.
  const secret = isInFile ? { SECRET_KEY: '-'.repeat(32) } : {}
  const target = readTarget({ ...(isToServer ? environment : alone), ...secret }, to)
  return { source, target, lines }
}

const TAKES = 'takes --to s3://bucket/prefix, --to libsql://host, or one of each'

function byName(urls: string[]): Record<string, string> {
  const named = urls.map((url) => {
    if (/^s3:/i.test(url)) return ['BLOB_URL', url] as const
    if (/^(?:libsql|https?):/i.test(url)) return ['DATABASE_URL', url] as const
    throw new UsageError(TAKES)
  })
  const to = Object.fromEntries(named)
  if (named.length === 0 || Object.keys(to).length < named.length) throw new UsageError(TAKES)
  return to
}

function readTarget(environment: Environment, to: Record<string, string>): Config {
  const names = Object.keys(to)
  try {
    return readConfig({ ...without(environment, names), ...to })
  } catch (error) {
    const { message } = error as Error
    const [, name = '', takes] = /^(\w+) is wrong: it takes (.*)\.$/.exec(message) ?? []
    if (!(error instanceof ConfigError) || !names.includes(name)) throw error
    // Of a database in a file nothing is said: it comes from there.
    throw new UsageError(`--to takes ${takes?.replace(/^file: .*, or /, '')}`)
  }
}

const without = (environment: Environment, names: string[]): Environment =>
  Object.fromEntries(
    Object.entries(environment).filter(([name]) => !names.includes(name.replace(/_FILE$/, ''))),
  )

const OF_BUCKETS = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']
const OF_SERVERS = ['DATABASE_AUTH_TOKEN', 'SECRET_KEY']

/** What to write down, but no secret. */
function tell({ source, target, lines }: Asked, environment: Environment): void {
  say('Put these lines into /etc/default/sync-node, or the environment, and start the server:')
  for (const [name, value] of Object.entries(lines)) print(`${name}='${value}'`)
  const names = target.database === null ? OF_BUCKETS : [...OF_BUCKETS, ...OF_SERVERS]
  const set = names.filter((name) => sourceOf(environment, name) === 'environment')
  for (const name of names) {
    const file = `${name}_FILE`
    if (sourceOf(environment, name) === file) print(`${file}='${environment[file]}'`)
  }
  if (set.length > 0) say(`and beside them what is set here: ${set.join(', ')}`)
  if (target.database === null) return
  say(`Every other node takes the same, and the same secret. ${source.root} is as it was.`)
}

function conclude({ damaged }: Moved): void {
  if (damaged.size === 0) return
  for (const [store, file] of damaged) {
    say(`damaged: ${store}${file === null ? '' : `, blobs/${file}`}`)
  }
  throw new CommandError(
    `All is there but for ${count(damaged.size, 'damaged value')}: see sync-node doctor --deep.`,
  )
}
