// Owns a throwaway machine for what only a whole system can show: this one's files, with whatever is
// written to them kept in memory, a systemd of its own, and no network but its loopback.
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { temporaryFolder } from './node.ts'
import { checkout, released, without } from './release.ts'

const UNSHARE = 'unshare'

export const skipWithoutMachine =
  process.getuid?.() === 0 || process.env['CI'] !== undefined
    ? without({ tools: ['systemd-nspawn', UNSHARE, 'dpkg'], release: true })
    : 'NOT TESTED: only root can start a machine'

const MOST_MS = 300_000

// A machine that is made to be a container has its services switched off by policy-rc.d.
const BOOT = `
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
rm -f /mnt/root/usr/sbin/policy-rc.d
cp "$1/test.service" /mnt/root/etc/systemd/system/
exec systemd-nspawn --quiet --directory=/mnt/root --machine=sync-node --register=no --keep-unit \\
  --private-network --bind="$1:/test" --bind-ro="$2:/release" --bind-ro="$3:/checkout" \\
  --boot systemd.unit=test.service systemd.show_status=no`

const UNIT = `[Service]
Type=oneshot
ExecStart=/bin/sh -c '/bin/sh -e /test/script >/test/output 2>&1; echo $? >/test/code; systemctl exit'
`

/** Lines of the shell: /tmp/old.deb is the package of the release, as an older one. */
export const OLDER_PACKAGE = `
dpkg-deb --raw-extract /release/sync-node_*_$(dpkg --print-architecture).deb /tmp/old
sed -i 's/^Version: .*/Version: 0.0.1/' /tmp/old/DEBIAN/control
dpkg-deb -Znone --build /tmp/old /tmp/old.deb >/dev/null
rm -r /tmp/old`

/**
 * Runs a script of the shell as root, in a machine where it stops at the first error; answers what it
 * said. It has /release, and this /checkout to read.
 */
export async function runInMachine(t: TestContext, script: string): Promise<string> {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'test.service'), UNIT)
  writeFileSync(join(folder, 'script'), script)
  const shell = ['sh', '-c', BOOT, 'sh', folder, released('.'), checkout]
  const child = spawn(UNSHARE, ['--mount', ...shell], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: MOST_MS,
    killSignal: 'SIGKILL',
  })
  let console = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (console += text))
  }
  await new Promise((resolve, reject) => child.once('close', resolve).once('error', reject))
  const read = (name: string): string => {
    try {
      return readFileSync(join(folder, name), 'utf8')
    } catch {
      throw new Error(`the machine made no ${name}: ${console}`)
    }
  }
  const output = read('output')
  if (read('code').trim() !== '0') throw new Error(`the script failed: ${output}`)
  return output
}
