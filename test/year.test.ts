// Proves that a self-hoster can stop worrying: the release's package on a machine of its own, through what
// a year brings. Nothing that was acknowledged is lost, and nobody but the operator notices anything.
import { describe, it } from 'node:test'
import { OLDER_PACKAGE, runInMachine, skipWithoutMachine } from './helpers/machine.ts'

describe('A year of a self-hoster', { skip: skipWithoutMachine }, () => {
  it('costs nobody anything', async (t) => {
    await runInMachine(
      t,
      `${OLDER_PACKAGE}
      cd /checkout
      export UV_THREADPOOL_SIZE=16 PACKAGES="/tmp/old.deb $(ls /release/sync-node_*_$(dpkg --print-architecture).deb)"
      node_modules/node-linux-${process.arch}/bin/node --import tsx --test test/year/year.ts || {
        journalctl --unit sync-node --no-pager --output cat
        exit 1
      }`,
    )
  })
})
