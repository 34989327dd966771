// Owns `sync-node account add`, `list`, `show`, `delete`, `disable`, `enable`.
import { create } from '../account.ts'
import { commit } from '../database/database.ts'
import { checkId, exists } from '../handle.ts'
import * as operator from '../operator.ts'
import { PRINTED_MS, print as printToken } from '../reset-token.ts'
import { toSize, toTime } from '../units.ts'
import {
  CommandError,
  JSON_OPTION,
  YES_OPTION,
  confirm,
  print,
  printJson,
  printTable,
  say,
  withAccount,
  withData,
  type Command,
} from './command.ts'
import { toRows } from './sessions.ts'

export const accountAdd: Command = {
  name: 'account add',
  takes: ['ID'],
  summary: 'make an account and print a token to set its password with, good once and for 7 days',
  details: 'ID is a user name or e-mail address. REGISTRATION does not matter here.',
  async run({ positionals: [id = ''] }, environment) {
    await withData(environment, async (deps, { publicUrl }) => {
      const handle = checkId(deps, id)
      const { secret, statements } = printToken(deps, handle, PRINTED_MS.newAccount)
      await commit(
        deps.database,
        () => [...create(deps, { handle, phc: '' }), ...statements],
        async () => {
          if (await exists(deps, handle))
            throw new CommandError('There is an account with this id.')
        },
      )
      if (publicUrl !== null) say(`Link: ${publicUrl}/#reset=${secret}`)
      print(secret)
    })
  },
}

const BY_HANDLE =
  'The server keeps no names: accounts are listed by handle (~ and 43 characters), and a command takes the id or the handle.'

export const accountList: Command = {
  name: 'account list',
  takes: [],
  options: JSON_OPTION,
  summary: 'list the accounts, with what they store',
  details: BY_HANDLE,
  async run({ options }, environment) {
    await withData(environment, async (deps, { quota }) => {
      const accounts = await operator.listAccounts(deps)
      if (options['json'] === true) return printJson(accounts)
      printTable([
        ['ACCOUNT', 'USED', 'STORES', 'SESSIONS', 'LAST USED', 'STATE'],
        ...accounts.map((one) => [
          one.user,
          toSize(one.used),
          String(one.stores),
          String(one.sessions),
          one.lastUsed === null ? '-' : toTime(one.lastUsed).slice(0, 10),
          one.disabled ? 'disabled' : 'enabled',
        ]),
      ])
      const used = accounts.reduce((sum, one) => sum + one.used, 0)
      const limit = quota === null ? 'no quota' : `a quota of ${toSize(quota)} each`
      say(`${accounts.length} accounts, ${toSize(used)}, ${limit}`)
    })
  },
}

export const accountShow: Command = {
  name: 'account show',
  takes: ['ID'],
  options: JSON_OPTION,
  summary: 'print what is known of an account, and its sessions',
  details: BY_HANDLE,
  async run({ positionals: [id = ''], options }, environment) {
    await withAccount(environment, id, async (deps, account) => {
      const sessions = await operator.listSessions(deps, account)
      const { quota } = deps.config
      if (options['json'] === true) return printJson({ ...account, quota, sessions })
      const { user, disabled, used, stores, owned } = account
      printTable([
        ['account', user],
        ['state', disabled ? 'disabled' : 'enabled'],
        ['used', quota === null ? toSize(used) : `${toSize(used)} of ${toSize(quota)}`],
        ['stores', `${owned} owned, ${stores - owned} shared by others`],
        ['sessions', String(sessions.length)],
      ])
      if (sessions.length > 0) printTable(toRows(sessions))
    })
  },
}

export const accountDelete: Command = {
  name: 'account delete',
  takes: ['ID'],
  options: YES_OPTION,
  summary: 'delete an account and every store that it alone owns',
  details: 'At once, also while the server runs. It cannot be undone but by restoring a backup.',
  async run(given, environment) {
    await withAccount(environment, given.positionals[0] ?? '', async (deps, account) => {
      const { user, owned, used } = account
      await confirm(given, `Delete ${user} and the ${owned} stores it owns (${toSize(used)})?`)
      await operator.remove(deps, account)
      say('The account is deleted.')
    })
  },
}

export const accountDisable: Command = {
  name: 'account disable',
  takes: ['ID'],
  summary: 'end all sessions of an account, and let nobody log in to it',
  details:
    'At once, also while the server runs. What it stores stays, and what it shares stays shared.',
  async run({ positionals: [id = ''] }, environment) {
    await withAccount(environment, id, async (deps, account) => {
      await operator.disable(deps, account)
      say(`The account is disabled; ${account.sessions} sessions have ended.`)
    })
  },
}

export const accountEnable: Command = {
  name: 'account enable',
  takes: ['ID'],
  summary: 'let a disabled account log in again',
  async run({ positionals: [id = ''] }, environment) {
    await withAccount(environment, id, async (deps, account) => {
      await operator.enable(deps, account)
      say('The account is enabled.')
    })
  },
}
