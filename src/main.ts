// Owns the process: arguments in, a command, an exit code.
import { accountAdd } from './commands/account.ts'
import { CommandError, UsageError, print, say, type Command } from './commands/command.ts'
import { invite } from './commands/invite.ts'
import { reset } from './commands/reset.ts'
import { serve } from './commands/serve.ts'
import { ConfigError } from './config.ts'
import { SyncError } from './errors.ts'
import { StartError } from './node.ts'
import { version } from './packed.ts'

const COMMANDS: Command[] = [serve, accountAdd, invite, reset]

/** Answers the exit code: 0, 1 when it could not be done, 2 when it was called wrongly. */
async function main(argv: string[]): Promise<number> {
  // Before anything uses the pool: four threads are too few beside syncs and password hashes.
  process.env['UV_THREADPOOL_SIZE'] ||= '16'
  const [first = 'serve', ...rest] = argv
  if (first === 'version' || first === '--version') {
    print(version)
    return 0
  }
  if (first === 'help' || argv.includes('--help') || argv.includes('-h')) {
    print(help())
    return 0
  }
  const words = [first, ...rest]
  const command = COMMANDS.find(({ name }) => words.join(' ').concat(' ').startsWith(`${name} `))
  if (command === undefined) {
    say(`sync-node: there is no command ${words.slice(0, 2).join(' ')}; see sync-node --help`)
    return 2
  }
  try {
    await command.run(words.slice(command.name.split(' ').length), process.env)
    return 0
  } catch (error) {
    return explain(command, error)
  }
}

function explain(command: Command, error: unknown): number {
  if (error instanceof UsageError) {
    say(`sync-node ${command.name}: ${error.message}; see sync-node --help`)
    return 2
  }
  const isKnown = [CommandError, ConfigError, StartError, SyncError].some(
    (kind) => error instanceof kind,
  )
  const { message, stack, code } = error as NodeJS.ErrnoException
  // What the system refuses (a port in use, a folder that may not be read) says so in its message.
  say(`sync-node: ${isKnown || code !== undefined ? message : (stack ?? message)}`)
  return 1
}

function help(): string {
  const lines = COMMANDS.map(
    ({ name, takes, summary }) => `  ${`${name} ${takes}`.trim().padEnd(16)}  ${summary}`,
  )
  return `sync-node ${version}: a sync server for local-first apps

Usage: sync-node [command]

${lines.join('\n')}
  version           print the version

Settings are environment variables (PORT, STATIC_ROOT, REGISTRATION, …), each also as NAME_FILE.
Their list, and all else, is in the README.`
}

void main(process.argv.slice(2)).then((code) => {
  process.exitCode = code
})
