// Owns `sync-node doctor`.
import { ConfigError, readConfig, type Config, type Environment } from '../config.ts'
import type { Deps } from '../deps.ts'
import { lockIfThere } from '../database/lock.ts'
import { checkup } from '../doctor/checkup.ts'
import { ok, problem, type Finding } from '../doctor/finding.ts'
import { journey } from '../doctor/journey/journey.ts'
import { makeVisitor } from '../doctor/journey/visitor.ts'
import * as operator from '../operator.ts'
import { asOwner } from '../installed.ts'
import { count } from '../units.ts'
import {
  CommandError,
  JSON_OPTION,
  UsageError,
  interruptible,
  placeOf,
  print,
  printJson,
  printable,
  say,
  withData,
  type Command,
} from './command.ts'
import { openBar } from './progress.ts'

export const doctor: Command = {
  name: 'doctor',
  takes: ['[URL]'],
  options: {
    ...JSON_OPTION,
    deep: { summary: 'read every value, and compare it with its digest' },
  },
  summary:
    'find out what is wrong with the installation, and what to do; exit code 1 when something is',
  details: `Without URL it looks at STATIC_ROOT and the machine, beside a running server or without one, and
changes nothing; only when no server runs, files that belong to no store go to trash/.

With URL (https://sync.example.org) it goes the way that people's devices go, on the server's machine:
through the network and the reverse proxy to the running server and back, as a temporary account, and
prints what to write into nginx, Caddy or Apache for what does not work.`,
  async run({ positionals: [url], options }, environment) {
    if (url !== undefined && options['deep'] === true) {
      throw new UsageError('--deep is for the look at STATIC_ROOT, without URL')
    }
    const findings: Finding[] = []
    const isJson = options['json'] === true
    const tell = (finding: Finding): void => {
      findings.push(finding)
      if (!isJson) show(finding)
    }
    if (url === undefined) {
      await lookAt(environment, options['deep'] === true, tell)
    } else await travel(environment, readUrl(url), tell)
    if (isJson) printJson(findings)
    conclude(findings)
  },
}

function readUrl(text: string): URL {
  const url = URL.parse(text)
  if (url !== null && /^https?:$/.test(url.protocol) && !/[?#]/.test(text)) return url
  throw new UsageError('takes an address such as https://sync.example.org')
}

const MOST_MS = 58_000

/** Whatever happens, the temporary account goes; only a kill -9 leaves it. */
async function travel(
  environment: Environment,
  url: URL,
  tell: (finding: Finding) => void,
): Promise<void> {
  const work = (stopped: AbortSignal) => async (deps: Deps, config: Config) => {
    if (config.database === null && !isServed(config.root)) {
      throw new CommandError('No server runs on this data: start it, and ask again on its machine.')
    }
    const late = AbortSignal.timeout(MOST_MS)
    const signal = AbortSignal.any([stopped, late])
    const visitor = await makeVisitor(deps)
    try {
      signal.throwIfAborted()
      for await (const finding of journey({ url, config, visitor, signal })) tell(finding)
    } catch (error) {
      if (!late.aborted || stopped.aborted) throw error
      tell(problem('time', 'not all could be looked at in a minute: the way is slow'))
    } finally {
      await operator.remove(deps, visitor).catch(() => {
        say(`The temporary account is still there: sync-node account delete ${visitor.user} --yes`)
      })
    }
  }
  await interruptible((stopped) => withData(environment, work(stopped)))
}

function isServed(root: string): boolean {
  const lock = lockIfThere(root)
  if (lock === 'taken') return true
  lock?.close()
  return false
}

async function lookAt(
  environment: Environment,
  isDeep: boolean,
  tell: (finding: Finding) => void,
): Promise<void> {
  const { config, errors } = settingsOf(environment)
  for (const text of new Set(errors.map(({ message }) => message))) tell(problem('settings', text))
  if (errors.length === 0) tell(ok('settings', '`sync-node config` prints them'))
  if (config === null) return
  say(`Data: ${placeOf(config)}`)
  const bar = openBar()
  try {
    await asOwner(config.root, async () => {
      for await (const finding of checkup({ config, isDeep, progress: bar })) {
        bar.end()
        tell(finding)
      }
    })
  } finally {
    bar.end()
  }
}

/** Wrong settings stop the server, but not the look at what the others name. */
function settingsOf(environment: Environment): { config: Config | null; errors: ConfigError[] } {
  const errors: ConfigError[] = []
  function read(some: Environment): Config | null {
    try {
      return readConfig(some)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      errors.push(error)
      return null
    }
  }
  const config = read(environment)
  if (config !== null) return { config, errors }
  const right = Object.entries(environment).filter(
    ([name, value]) => read({ [name]: value }) !== null,
  )
  return { config: read(Object.fromEntries(right)), errors }
}

function show({ check, level, text, items = [] }: Finding): void {
  print(printable(`${level.padEnd(7)}  ${check}: ${text}`))
  for (const item of items) print(`         ${printable(item)}`)
}

function conclude(findings: Finding[]): void {
  const of = (level: Finding['level']): number =>
    findings.filter((finding) => finding.level === level).length
  const warnings = of('warning')
  if (of('problem') > 0) throw new CommandError(`${count(of('problem'), 'problem')} found.`)
  say(warnings === 0 ? 'Nothing is wrong.' : `Nothing is wrong, but ${count(warnings, 'warning')}.`)
}
