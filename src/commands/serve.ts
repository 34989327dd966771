// Owns `sync-node serve`, the command that runs when none is named.
import { setFlagsFromString } from 'node:v8'
import { readConfig, type Config } from '../config.ts'
import { becomeOwner, reportReady } from '../installed.ts'
import { openLog, type Log } from '../log.ts'
import { start } from '../node.ts'
import { version } from '../packed.ts'
import { placeOf, type Command } from './command.ts'

// Time for answers that are on their way to say that the outcome is unknown.
const LAST_ANSWERS_MS = 200

export const serve: Command = {
  name: 'serve',
  takes: [],
  summary: 'start the server (also without any command)',
  async run(_, environment) {
    const config = readConfig(environment)
    becomeOwner(config.root)
    const log = openLog(config)
    process.umask(0o077)
    // Before the start, so that one that comes while it starts still ends it cleanly.
    const signal = new Promise<void>((resolve) => {
      process.once('SIGTERM', resolve)
      process.once('SIGINT', resolve)
    })
    const node = await start(config, {
      log,
      onFatal: () => setTimeout(() => process.exit(1), LAST_ANSWERS_MS),
    })
    // Code of that compiler takes more memory than it saves time. As an option of the executable it would
    // have V8 compile all of Node at each start, whose compiled code was made without it.
    setFlagsFromString('--no-maglev')
    greet(log, config, node.port)
    if (node.metricsPort !== null) {
      log.info(`metrics: http://127.0.0.1:${node.metricsPort}/metrics, for this machine alone`)
    }
    reportReady(environment, (error) =>
      log.warn({ err: error }, 'systemd was not told of the start'),
    )
    await signal
    log.info('stopping')
    await node.stop()
    log.info('stopped')
  },
}

/** Where it listens, and what is still worth setting. */
function greet(log: Log, config: Config, port: number): void {
  const isEverywhere = config.host === '::' || config.host === '0.0.0.0'
  const host = isEverywhere
    ? 'localhost'
    : config.host.includes(':')
      ? `[${config.host}]`
      : config.host
  log.info(
    `sync-node ${version} listens on http://${host}:${port}${isEverywhere ? ', on every address' : ''}`,
  )
  log.info(`data: ${placeOf(config)}`)
  log.info(REGISTRATION[config.registration])
  if (config.publicUrl === null) {
    log.info('PUBLIC_URL is not set: reset mails and invitations come without a link')
  }
  if (config.smtpUrl === null) {
    log.info('SMTP_URL is not set: a forgotten password is reset by `sync-node reset ID`')
  }
  log.info(
    'behind a reverse proxy on this machine, let it send X-Forwarded-For: without, clients are not told apart and not limited by address',
  )
}

const REGISTRATION = {
  open: 'registration is open: anyone who reaches this server can make an account (REGISTRATION=invite or closed changes that)',
  invite: 'registration is by invitation: `sync-node invite` prints one',
  closed: 'registration is closed: `sync-node account add ID` makes an account',
}
