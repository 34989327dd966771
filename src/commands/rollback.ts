// Owns `sync-node rollback`.
import { readConfig } from '../config.ts'
import { openWayBack } from '../upgrade.ts'
import { toTime } from '../units.ts'
import { YES_OPTION, confirm, refuseServer, say, type Command, type Given } from './command.ts'
import { asOwner } from '../installed.ts'

export const rollback: Command = {
  name: 'rollback',
  takes: [],
  options: YES_OPTION,
  summary: 'go back to the data as it was before the last upgrade; the server is stopped',
  details:
    'For 7 days after an upgrade that changed the schema. It says first what is lost, and asks.',
  async run(given, environment) {
    const config = readConfig(environment)
    refuseServer(config)
    const { root } = config
    say(`Data: ${root}`)
    const version = await asOwner(root, () => goBack(root, given))
    const before = version === null ? 'the sync-node that you had before' : `sync-node ${version}`
    say(`Done. Start ${before} now: a newer one upgrades the data again.`)
  },
}

/** Answers the version that served the data before. */
async function goBack(root: string, given: Given): Promise<string | null> {
  const way = await openWayBack(root)
  try {
    const { written, created, deleted, accounts } = way.lost
    say(`Going back to ${toTime(way.since)} UTC, before the upgrade. What was done since is lost:
  ${written} stores were written, ${created} created, ${deleted} deleted; ${accounts} accounts were made;
  and all that changed in permissions, passwords and sessions.`)
    await confirm(given, 'Go back?')
    await way.go()
    return way.version
  } finally {
    way.close()
  }
}
