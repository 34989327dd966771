// Owns the process: arguments in, a command, an exit code.
import {
  accountAdd,
  accountDelete,
  accountDisable,
  accountEnable,
  accountList,
  accountShow,
} from './commands/account.ts'
import { backup } from './commands/backup.ts'
import {
  CommandError,
  UsageError,
  print,
  readArguments,
  say,
  type Command,
} from './commands/command.ts'
import { config } from './commands/config.ts'
import { doctor } from './commands/doctor.ts'
import { healthcheck } from './commands/healthcheck.ts'
import { commandHelp, help } from './commands/help.ts'
import { invite } from './commands/invite.ts'
import { migrateData } from './commands/migrate-data.ts'
import { reset } from './commands/reset.ts'
import { restore } from './commands/restore.ts'
import { rollback } from './commands/rollback.ts'
import { serve } from './commands/serve.ts'
import { sessions } from './commands/sessions.ts'
import { verify } from './commands/verify.ts'
import { version } from './commands/version.ts'
import { ConfigError } from './config.ts'
import { Refusal, StartError, SyncError } from './errors.ts'
import { withSettings } from './installed.ts'

const COMMANDS: Command[] = [
  serve,
  accountAdd,
  accountList,
  accountShow,
  accountDelete,
  accountDisable,
  accountEnable,
  sessions,
  invite,
  reset,
  backup,
  verify,
  restore,
  rollback,
  migrateData,
  doctor,
  healthcheck,
  config,
  version,
]

/** Answers the exit code: 0, 1 when it could not be done, 2 when it was called wrongly. */
async function main(argv: string[]): Promise<number> {
  // Before anything uses the pool: four threads are too few beside syncs.
  process.env['UV_THREADPOOL_SIZE'] ||= '16'
  const words = argv.length === 0 ? ['serve'] : argv.map((word) => ALIASES[word] ?? word)
  const isHelp = words.includes('--help')
  const named = words.filter((word) => word !== '--help' && word !== 'help')
  if (isHelp || words[0] === 'help') {
    print(named.length === 0 ? help(COMMANDS) : commandHelp(COMMANDS, named))
    return 0
  }
  const command = COMMANDS.find(({ name }) => `${words.join(' ')} `.startsWith(`${name} `))
  if (command === undefined) {
    say(`sync-node: there is no command ${words.slice(0, 2).join(' ')}; see sync-node --help`)
    return 2
  }
  try {
    const args = words.slice(command.name.split(' ').length)
    await command.run(readArguments(command, args), withSettings(process.env))
    return 0
  } catch (error) {
    return explain(command, error)
  }
}

const ALIASES: Record<string, string> = { '-h': '--help', '--version': 'version' }

function explain(command: Command, error: unknown): number {
  if (error instanceof UsageError) {
    say(`sync-node ${command.name}: ${error.message}; see sync-node ${command.name} --help`)
    return 2
  }
  const isKnown = [CommandError, ConfigError, Refusal, StartError, SyncError].some(
    (kind) => error instanceof kind,
  )
  const { message, stack, code } = error as NodeJS.ErrnoException
  // What the system refuses (a port in use, a folder that may not be read) says so in its message.
  say(`sync-node: ${isKnown || code !== undefined ? message : (stack ?? message)}`)
  return 1
}

// Who listens may be gone (`| head`), or have no room: what was begun comes to its end all the same.
let isLost = false
process.stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
  if (!isLost && code !== 'EPIPE') say(`sync-node: stdout cannot be written: ${message}`)
  isLost = true
  process.exitCode = 1
})
process.stderr.on('error', () => undefined)

void main(process.argv.slice(2)).then((code) => {
  process.exitCode = isLost ? 1 : code
})
