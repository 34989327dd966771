// Owns what a command is, and what all of them do alike: arguments, exit codes, opening the data.
import { parseArgs } from 'node:util'
import { readConfig, type Config, type Environment } from '../config.ts'
import type { Deps } from '../deps.ts'
import { openLog } from '../log.ts'
import { openForCommand } from '../node.ts'

export interface Command {
  name: string
  /** What stands after the name, such as `ID`. */
  takes: string
  summary: string
  run(args: string[], environment: Environment): Promise<void>
}

/** The command was called wrongly: exit code 2. */
export class UsageError extends Error {}

/** The command could not do it: one line, exit code 1. */
export class CommandError extends Error {}

/** The positional arguments, exactly as many as `names`. Throws UsageError. */
export function positionals(args: string[], names: string[]): string[] {
  let given: string[]
  try {
    given = parseArgs({ args, allowPositionals: true, options: {} }).positionals
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  if (given.length !== names.length) {
    throw new UsageError(names.length === 0 ? 'takes no arguments' : `takes ${names.join(' ')}`)
  }
  return given
}

/** Runs `work` on the data of STATIC_ROOT, which it names on stderr. Data goes to stdout. */
export async function withData(
  environment: Environment,
  work: (deps: Deps, config: Config) => Promise<void>,
): Promise<void> {
  const config = readConfig(environment)
  const { deps, close } = await openForCommand(config, openLog({ logLevel: 'silent' }))
  say(`Data: ${config.root}`)
  try {
    await work(deps, config)
  } finally {
    await close()
  }
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
