// Owns `sync-node invite`.
import * as invitation from '../invitation.ts'
import { print, say, withData, type Command } from './command.ts'

export const invite: Command = {
  name: 'invite',
  takes: [],
  summary: 'print an invitation, good for one account and 7 days',
  async run(_, environment) {
    await withData(environment, async (deps, { registration, publicUrl }) => {
      const secret = await invitation.issue(deps)
      if (registration !== 'invite') {
        say(`REGISTRATION is ${registration}: an invitation is asked for when it is "invite".`)
      }
      if (publicUrl !== null) say(`Link: ${publicUrl}/#invitation=${secret}`)
      print(secret)
    })
  },
}
