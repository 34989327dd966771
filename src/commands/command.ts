// Owns what a command is, and what all of them do alike: arguments, opening the data, talk on stderr,
// data on stdout.
import { createInterface } from 'node:readline/promises'
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util'
import { readConfig, type Config, type Environment } from '../config.ts'
import type { Deps } from '../deps.ts'
import { asOwner } from '../installed.ts'
import { openLog } from '../log.ts'
import { openForCommand } from '../node.ts'
import * as operator from '../operator.ts'
import type { AccountSummary } from '../operator.ts'

export interface Command {
  name: string
  /** What stands after the name: `ID`, or `[FILE]` where it may be left out. */
  takes: string[]
  options?: Options
  summary: string
  /** What `--help` says beyond that. */
  details?: string
  run(given: Given, environment: Environment): Promise<void>
}

/** By name; `takes` is what stands after an option that has a value, `isList`: which may come again. */
export type Options = Record<string, { takes?: string; isList?: true; summary: string }>

export interface Given {
  /** One for each of `takes`; those left out are missing at the end. */
  positionals: string[]
  options: Record<string, string | boolean | string[] | undefined>
}

/** The command was called wrongly: exit code 2. */
export class UsageError extends Error {}

/** The command could not do it: one line, exit code 1. */
export class CommandError extends Error {}

export const JSON_OPTION: Options = { json: { summary: 'as JSON' } }

export const YES_OPTION: Options = { yes: { summary: 'do it without asking' } }

/** Throws UsageError. */
export function readArguments(
  { takes, options = {} }: Pick<Command, 'takes' | 'options'>,
  args: string[],
): Given {
  const known = Object.entries(options).map(([name, option]) => [
    name,
    {
      type: option.takes === undefined ? 'boolean' : 'string',
      multiple: option.isList === true,
    },
  ])
  let given: Given
  try {
    const { positionals, values } = parseArgs({
      args,
      allowPositionals: true,
      options: Object.fromEntries(known) as ParseArgsOptionsConfig,
    })
    given = { positionals, options: values as Given['options'] }
  } catch (error) {
    // Node's own words go on about how to quote; the first sentence says what is wrong.
    throw new UsageError((error as Error).message.replace(/\. .*$/s, ''))
  }
  const least = takes.filter((name) => !name.startsWith('[')).length
  if (given.positionals.length < least || given.positionals.length > takes.length) {
    throw new UsageError(takes.length === 0 ? 'takes no arguments' : `takes ${takes.join(' ')}`)
  }
  return given
}

/** Runs `work` on the data, and names on stderr where that is. */
export async function withData(
  environment: Environment,
  work: (deps: Deps, config: Config) => Promise<void>,
): Promise<void> {
  const config = readConfig(environment)
  await asOwner(config.root, async () => {
    const { deps, close } = await openForCommand(config, openLog({ logLevel: 'silent' }))
    say(`Data: ${placeOf(config)}`)
    try {
      await work(deps, config)
    } finally {
      await close()
    }
  })
}

/** Where the data is. */
export const placeOf = ({ database, root }: Config): string => database?.url ?? root

/** For what works on files alone. Throws CommandError. */
export function refuseServer({ database }: Pick<Config, 'database'>): void {
  if (database === null) return
  throw new CommandError(
    'The database is on a server: use its own backups, and the versions that the bucket of values keeps.',
  )
}

/** Runs `work` on the account with this id or handle. */
export async function withAccount(
  environment: Environment,
  id: string,
  work: (deps: Deps, account: AccountSummary) => Promise<void>,
): Promise<void> {
  await withData(environment, async (deps) => {
    const account = await operator.findAccount(deps, id)
    if (account === undefined) throw new CommandError('There is no account with this id.')
    await work(deps, account)
  })
}

/** Asks on the terminal; throws CommandError when the answer is no, or nobody is there to ask. */
export async function confirm({ options }: Given, question: string): Promise<void> {
  if (options['yes'] === true) return
  if (!process.stdin.isTTY) {
    throw new CommandError(`Nothing was done: ${question} Say so by --yes.`)
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await terminal.question(`${question} [y/N] `)
  terminal.close()
  if (!/^y(es)?$/i.test(answer.trim())) throw new CommandError('Nothing was done.')
}

const STOPS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Runs `work` with what tells it to stop: a signal, or the end of the terminal. The second one of a kind ends all at once. */
export async function interruptible(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const abort = (): void => stop.abort(new CommandError('Interrupted.'))
  for (const name of STOPS) process.once(name, abort)
  try {
    await work(stop.signal)
  } catch (error) {
    throw stop.signal.aborted ? stop.signal.reason : error
  } finally {
    for (const name of STOPS) process.off(name, abort)
  }
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2))

/** Prints lines of columns, the first line as their heads. */
export function printTable(rows: string[][]): void {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  for (const row of rows) {
    print(
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
  }
}

/** What others have written (a device's name, a server's answer) may not steer the terminal. */
export const printable = (text: string): string => text.replace(/\p{C}/gu, '?')
