// Owns `sync-node restore`.
import { existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { readConfig } from '../config.ts'
import type { Bytes } from '../archive.ts'
import { restore as restoreBackup } from '../restore.ts'
import { deriveKeys } from '../secret.ts'
import { toSize, toTime } from '../units.ts'
import { CommandError, interruptible, refuseServer, say, type Command } from './command.ts'
import { asOwner, giveToService } from '../installed.ts'
import { openBar } from './progress.ts'

export const restore: Command = {
  name: 'restore',
  takes: ['FILE'],
  summary: 'bring back a backup, into an empty STATIC_ROOT, or one without any account',
  details:
    'It is verified first: nothing is written of one that is not whole. With BLOB_URL its large values go\n' +
    'to that bucket, where no others may be. When the server runs on it, clients find out by themselves,\n' +
    'and send again what only they have.',
  async run({ positionals: [file = ''] }, environment) {
    const config = readConfig(environment)
    refuseServer(config)
    const { root, secretKey, blobUrl } = config
    say(`Data: ${root}`)
    const isNew = !existsSync(root)
    const opened = await open(file, 'r')
    try {
      const stat = await opened.stat()
      if (!stat.isFile()) throw new CommandError(`${file} is not a file: it is read twice.`)
      const read = (): Bytes => opened.createReadStream({ start: 0, autoClose: false })
      process.umask(0o077)
      await interruptible(async (signal) => {
        const bar = openBar()
        const restoring = { ...bar, bytes: stat.size, read, bucket: blobUrl, signal }
        const { manifest, secretCheck } = await asOwner(root, () =>
          restoreBackup(root, restoring).finally(() => bar.end()),
        )
        if (isNew) giveToService(root)
        const { accounts, stores, bytes, created, version, damaged } = manifest
        say(`${accounts} accounts, ${stores} stores, ${toSize(bytes)}, of ${toTime(created)} UTC`)
        if (damaged.length > 0) say(`${damaged.length} values were damaged already.`)
        if (secretKey === null && !manifest.secret) {
          say('The secret is not in the backup: set SECRET_KEY as it was.')
        } else if (secretKey !== null && deriveKeys(secretKey).check !== secretCheck) {
          say('SECRET_KEY is not what this data was made with: set it as it was.')
        }
        say(`Restored. Start the server, ${version} or newer: clients sync again by themselves.`)
      })
    } finally {
      await opened.close()
    }
  },
}
