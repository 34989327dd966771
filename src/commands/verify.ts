// Owns `sync-node verify`.
import { createReadStream, statSync } from 'node:fs'
import type { Bytes } from '../archive.ts'
import type { Manifest } from '../manifest.ts'
import { verify as verifyBackup } from '../verify.ts'
import { toSize, toTime } from '../units.ts'
import { JSON_OPTION, UsageError, printJson, printTable, say, type Command } from './command.ts'
import { openBar } from './progress.ts'

export const verify: Command = {
  name: 'verify',
  takes: ['FILE|-'],
  options: JSON_OPTION,
  summary: 'prove that a backup is whole (- is stdin), and print what is in it',
  details: 'It reads all of it, needs no data and writes nothing.',
  async run({ positionals: [file = ''], options }) {
    if (file === '-' && process.stdin.isTTY) throw new UsageError('a backup is no text to type')
    const bar = openBar()
    const bytes = file === '-' ? 0 : statSync(file).size
    const read: Bytes = file === '-' ? process.stdin : createReadStream(file)
    async function* told(): Bytes {
      bar.begin('verifying', bytes)
      for await (const chunk of read) {
        bar.add(chunk.length)
        yield chunk
      }
    }
    const { manifest } = await verifyBackup(told()).finally(() => bar.end())
    if (options['json'] === true) printJson(manifest)
    else printTable(toRows(manifest))
    say('The backup is whole.')
  },
}

function toRows(manifest: Manifest): string[][] {
  const { created, version, schema, accounts, stores, bytes, files, secret, damaged } = manifest
  return [
    ['created', `${toTime(created)} UTC`],
    ['by', `sync-node ${version}, schema ${schema}`],
    ['accounts', String(accounts)],
    ['stores', `${stores}, ${toSize(bytes)}`],
    ['files', `${files.count}, ${toSize(files.bytes)}`],
    ['secret', secret ? 'inside' : 'not inside: it was set by SECRET_KEY'],
    ['damaged', `${damaged.length} values`],
  ]
}
