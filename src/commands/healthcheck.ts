// Owns `sync-node healthcheck`.
import { readConfig } from '../config.ts'
import { ask } from '../local.ts'
import { CommandError, print, type Command } from './command.ts'

export const healthcheck: Command = {
  name: 'healthcheck',
  takes: [],
  summary: 'ask the server that runs here whether it is well; exit code 1 when not',
  details: 'It asks GET /health of HOST and PORT, as they are set for the server, for 5 seconds.',
  async run(_, environment) {
    const answer = await ask(readConfig(environment), '/health')
    if (!('status' in answer))
      throw new CommandError(`No answer from ${answer.url}: ${answer.reason}.`)
    if (answer.status !== 200) throw new CommandError(`The server is not well: ${answer.body}`)
    print(answer.body)
  },
}
