import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { ENVIRONMENT_FILES } from './helpers/environment-files.ts'
import { runInMachine, skipWithoutMachine } from './helpers/machine.ts'
import { checkout, without } from './helpers/release.ts'

const run = promisify(execFile)
const ANALYZE = 'systemd-analyze'
const UNIT = join(checkout, 'scripts/packaging/sync-node.service')
const MOST_EXPOSURE = 1.5

/** Runs a command as a service with one property, its output in a file; systemd-run would want a bus. */
const ONCE = `
once() {
  rm -f /tmp/output
  printf '[Service]\\nType=oneshot\\nStandardOutput=file:/tmp/output\\n%s\\n' "$1" >/run/systemd/system/once.service
  shift
  echo "ExecStart=$*" >>/run/systemd/system/once.service
  systemctl daemon-reload
  systemctl start once
}`

describe('The systemd unit', { skip: without({ tools: [ANALYZE] }) }, () => {
  it('exposes no more than 1.5 of 10', async () => {
    const { stdout } = await run(ANALYZE, ['security', '--offline=true', '--no-pager', UNIT])
    const [, exposure] =
      /Overall exposure level for sync-node\.service: ([\d.]+)/.exec(stdout) ?? []
    assert.ok(Number(exposure) <= MOST_EXPOSURE, stdout)
  })

  it('has nothing in it that systemd does not know', async () => {
    const { stderr } = await run(ANALYZE, ['verify', UNIT]).catch(
      (error: { stderr: string }) => error,
    )
    const unknown = stderr
      .split('\n')
      .filter((line) => /Unknown|Failed to parse|Invalid/i.test(line))
    // These two came with systemd 254.
    const older = unknown.filter((line) => !/RestartSteps|RestartMaxDelaySec/.test(line))
    assert.deepEqual(older, [])
  })
})

describe('A service on a machine with systemd', { skip: skipWithoutMachine }, () => {
  it('has its settings read alike by systemd and by a command', async (t) => {
    const cases = ENVIRONMENT_FILES.map(
      ([text]) => `
        echo ${Buffer.from(text).toString('base64')} | base64 -d >/tmp/settings
        once EnvironmentFile=/tmp/settings /usr/bin/env -0
        base64 -w0 /tmp/output
        echo`,
    )
    const output = await runInMachine(t, [ONCE, ...cases].join('\n'))
    const lines = output.trimEnd().split('\n')
    assert.equal(lines.length, ENVIRONMENT_FILES.length)
    const unset = environmentOf(lines.at(-1))
    for (const [i, [text, expected]] of ENVIRONMENT_FILES.entries()) {
      const entries = Object.entries(environmentOf(lines[i]))
      const set = entries.filter(([name]) => !(name in unset) && !VOLATILE.includes(name))
      assert.deepEqual(Object.fromEntries(set), expected, JSON.stringify(text))
    }
  })

  it('cannot be kept from writing code as it runs, or it would not start', async (t) => {
    const output = await runInMachine(
      t,
      `${ONCE}
      cp /release/sync-node-*-linux-${process.arch} /tmp/sync-node
      once MemoryDenyWriteExecute=no /tmp/sync-node version
      cat /tmp/output
      once MemoryDenyWriteExecute=yes /tmp/sync-node version 2>/dev/null || echo not so`,
    )
    assert.match(output, /^\d+\.\d+\.\d+\S*\nnot so\n$/)
  })
})

const VOLATILE = ['INVOCATION_ID', 'JOURNAL_STREAM', 'SYSTEMD_EXEC_PID']

function environmentOf(line = ''): Record<string, string> {
  const entries = Buffer.from(line, 'base64').toString().split('\0').filter(Boolean)
  return Object.fromEntries(
    entries.map((entry) => entry.split(/=(.*)/s).slice(0, 2) as [string, string]),
  )
}
