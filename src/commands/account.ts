// Owns `sync-node account add`.
import { create } from '../account.ts'
import { commit } from '../database/database.ts'
import { checkId, exists } from '../handle.ts'
import { PRINTED_MS, print as printToken } from '../reset-token.ts'
import { CommandError, positionals, print, say, withData, type Command } from './command.ts'

export const accountAdd: Command = {
  name: 'account add',
  takes: 'ID',
  summary: 'make an account and print a token to set its password with, good once and for 7 days',
  async run(args, environment) {
    const [id = ''] = positionals(args, ['ID'])
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
