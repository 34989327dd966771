// Owns `sync-node reset`.
import { refusal } from '../database/database.ts'
import { PRINTED_MS, print as printToken } from '../reset-token.ts'
import { CommandError, print, say, withAccount, type Command } from './command.ts'

export const reset: Command = {
  name: 'reset',
  takes: ['ID'],
  summary: 'print a token to set a new password with, good once and for an hour',
  async run({ positionals: [id = ''] }, environment) {
    await withAccount(environment, id, async (deps, { user, disabled }) => {
      if (disabled) throw new CommandError('This account is disabled: enable it first.')
      const { secret, statements } = printToken(deps, user, PRINTED_MS.reset)
      await deps.database.batch(statements, 'write').catch((error: unknown) => {
        throw refusal(error)
      })
      const { publicUrl } = deps.config
      if (publicUrl !== null) say(`Link: ${publicUrl}/#reset=${secret}`)
      print(secret)
    })
  },
}
