// Owns `sync-node version`.
import { listMigrations, version as own } from '../packed.ts'
import { JSON_OPTION, print, printJson, type Command } from './command.ts'

export const version: Command = {
  name: 'version',
  takes: [],
  options: JSON_OPTION,
  summary: 'print the version',
  details: 'With --json also those of what is inside, and of the schema of the data.',
  async run({ options }) {
    if (options['json'] !== true) return print(own)
    const { node, sqlite, openssl, v8 } = process.versions
    printJson({
      version: own,
      schema: listMigrations().length,
      platform: `${process.platform}-${process.arch}`,
      node,
      v8,
      sqlite,
      openssl,
    })
  },
}
