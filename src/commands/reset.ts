// Owns `sync-node reset`.
import { refusal } from '../database/database.ts'
import { exists, toHandle } from '../handle.ts'
import { PRINTED_MS, print as printToken } from '../reset-token.ts'
import { CommandError, positionals, print, say, withData, type Command } from './command.ts'

export const reset: Command = {
  name: 'reset',
  takes: 'ID',
  summary: 'print a token to set a new password with, good once and for an hour',
  async run(args, environment) {
    const [id = ''] = positionals(args, ['ID'])
    await withData(environment, async (deps, { publicUrl }) => {
      const handle = toHandle(deps, id)
      if (!(await exists(deps, handle))) throw new CommandError('There is no account with this id.')
      const { secret, statements } = printToken(deps, handle, PRINTED_MS.reset)
      await deps.database.batch(statements, 'write').catch((error: unknown) => {
        throw refusal(error)
      })
      if (publicUrl !== null) say(`Link: ${publicUrl}/#reset=${secret}`)
      print(secret)
    })
  },
}
