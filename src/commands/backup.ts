// Owns `sync-node backup`.
import { statSync } from 'node:fs'
import type { Bytes } from '../archive.ts'
import { backup as makeBackup, type Target } from '../backup.ts'
import { readConfig } from '../config.ts'
import type { Manifest } from '../manifest.ts'
import type { Space } from '../space.ts'
import {
  CommandError,
  interruptible,
  print,
  refuseServer,
  say,
  withData,
  type Command,
} from './command.ts'
import { toSize } from '../units.ts'
import { openFile, openStdout, type Output } from './output.ts'
import { openBar } from './progress.ts'

export const backup: Command = {
  name: 'backup',
  takes: ['[FILE|-]'],
  summary: 'write all data into one file (- is stdout), also while the server runs',
  details:
    'Accounts, values and the secret, as they were at one moment. Without FILE it is named after the\n' +
    'time, in the folder where you are. Who has it has all that the server has: keep it as safe.',
  async run({ positionals: [file = fileName()] }, environment) {
    refuseServer(readConfig(environment))
    process.umask(0o077)
    // Before anything of the data is opened: where it goes is a matter of who called.
    const output = file === '-' ? openStdout() : await openFile(file)
    try {
      await interruptible(async (signal) => {
        let made: Made | undefined
        await withData(environment, async (deps) => {
          const bar = openBar()
          const isBeside = output.device === statSync(deps.config.root).dev
          const target = isBeside ? aboveFloor(output, deps.space) : output
          made = await makeBackup(deps, target, { ...bar, signal }).finally(() => bar.end())
        })
        await output.keep()
        tell(file, output, made as Made)
      })
    } catch (error) {
      await output.discard()
      throw error
    }
  },
}

type Made = Pick<Manifest, 'accounts' | 'stores' | 'bytes' | 'damaged'>

const fileName = (): string =>
  `sync-node-${new Date().toISOString().replace('T', '-').replaceAll(':', '').slice(0, 17)}.tar.zst`

/** The same, but the server's disk is not filled up by it. */
const aboveFloor = (output: Output, space: Space): Target => ({
  restart: output.restart,
  async write(chunks) {
    const room = space.room()
    async function* checked(): Bytes {
      for await (const chunk of chunks) {
        // It is looked at a few times a second, which a fast disk outruns.
        if (space.isLow() || output.bytes() + chunk.length > room) {
          throw new CommandError("The server's disk is nearly full: write to another one.")
        }
        yield chunk
      }
    }
    await output.write(checked())
  },
})

function tell(file: string, output: Output, { accounts, stores, bytes, damaged }: Made): void {
  say(
    `${accounts} accounts, ${stores} stores, ${toSize(bytes)}; the backup has ${toSize(output.bytes())}`,
  )
  if (file !== '-') print(file)
  if (damaged.length === 0) return
  for (const { store, file: name } of damaged) {
    say(`damaged: ${store}${name === null ? '' : `, blobs/${name}`}`)
  }
  throw new CommandError(
    `The backup is complete but for ${damaged.length} damaged values: see sync-node doctor.`,
  )
}
