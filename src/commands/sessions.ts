// Owns `sync-node sessions`.
import * as operator from '../operator.ts'
import type { AccountSession } from '../operator.ts'
import { toTime } from '../units.ts'
import {
  CommandError,
  JSON_OPTION,
  printJson,
  printable,
  printTable,
  say,
  withAccount,
  type Command,
} from './command.ts'

export const sessions: Command = {
  name: 'sessions',
  takes: ['ID'],
  options: {
    ...JSON_OPTION,
    end: { takes: 'SESSION|all', summary: 'end one session, or all, at once' },
  },
  summary: 'list the sessions of an account, or end them',
  async run({ positionals: [id = ''], options }, environment) {
    await withAccount(environment, id, async (deps, account) => {
      const { end } = options
      if (typeof end === 'string') {
        const ended = await operator.endSessions(deps, account, end === 'all' ? undefined : end)
        if (ended === 0 && end !== 'all') throw new CommandError('There is no such session.')
        return say(`${ended} sessions have ended.`)
      }
      const all = await operator.listSessions(deps, account)
      if (options['json'] === true) printJson(all)
      else printTable(toRows(all))
    })
  },
}

/** Their lines in a table, heads first. */
export const toRows = (all: AccountSession[]): string[][] => [
  ['SESSION', 'DEVICE', 'OPENED', 'LAST USED', 'ENDS'],
  ...all.map(({ token, device, created, used, expiration }) => [
    token,
    device === null ? '-' : printable(device),
    toTime(created),
    toTime(used).slice(0, 10),
    toTime(expiration).slice(0, 10),
  ]),
]
