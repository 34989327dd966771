import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { delimiter, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { runInMachine, skipWithoutMachine } from './helpers/machine.ts'
import { temporaryFolder } from './helpers/node.ts'
import { checkout, without } from './helpers/release.ts'

const run = promisify(execFile)
const SCRIPT = join(checkout, 'scripts/install.sh')
const INSTALLED = {
  executable: 'usr/local/bin/sync-node',
  manual: 'usr/local/share/man/man1/sync-node.1',
  unit: 'etc/systemd/system/sync-node.service',
  settings: 'etc/default/sync-node',
  data: 'var/lib/sync-node',
}
/** What an executable says that needs a library which is not there. */
const BROKEN = 'echo "error while loading shared libraries: libx.so.1" >&2; exit 127'

/** A release with a stand-in for the executable, and a server for it that counts what is asked of it. */
async function release(
  t: TestContext,
  { executable = 'echo 1.2.3', name = 'sync-node-1.2.3' } = {},
) {
  const folder = temporaryFolder(t)
  for (const architecture of ['x64', 'arm64']) {
    const inner = `${name}-linux-${architecture}`
    mkdirSync(join(folder, inner))
    writeFileSync(join(folder, inner, 'sync-node'), `#!/bin/sh\n${executable}\n# ${architecture}\n`)
    for (const file of ['sync-node.service', 'sync-node.default', 'sync-node.1']) {
      const text = readFileSync(join(checkout, 'scripts/packaging', file))
      writeFileSync(join(folder, inner, file), text)
    }
    await run('tar', ['-cJf', `${inner}.tar.xz`, inner], { cwd: folder })
    rmSync(join(folder, inner), { recursive: true })
  }
  const names = readdirSync(folder)
  const sums = names.map((one) => `${sha256(readFileSync(join(folder, one)))}  ${one}\n`)
  writeFileSync(join(folder, 'SHA256SUMS'), sums.join(''))

  const asked: string[] = []
  const server = createServer(({ url = '' }, answer) => {
    asked.push(url)
    const path = join(folder, url.replace('/releases/', ''))
    if (!url.startsWith('/releases/') || !existsSync(path)) return answer.writeHead(404).end()
    return answer.end(readFileSync(path))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  return { folder, asked, url: `http://127.0.0.1:${port}/releases` }
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** A PATH with all that there is but this program. */
function pathWithout(t: TestContext, program: string): string {
  const bin = temporaryFolder(t)
  for (const folder of ['/usr/bin', '/usr/sbin']) {
    for (const name of readdirSync(folder)) {
      if (name !== program && !existsSync(join(bin, name))) {
        symlinkSync(join(folder, name), join(bin, name))
      }
    }
  }
  return bin
}

/** A tree to install into, and programs that say there what the system is like. */
function tree(
  t: TestContext,
  programs: Record<string, string> = {},
  path = process.env['PATH'] ?? '',
) {
  const [root, bin] = [temporaryFolder(t), temporaryFolder(t)]
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  }
  const env = { PATH: `${bin}${delimiter}${path}`, DESTDIR: root }
  return {
    at: (part: keyof typeof INSTALLED) => join(root, INSTALLED[part]),
    files: () =>
      readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
        (path) => !statSync(join(root, path)).isDirectory(),
      ),
    /** With the script, or another one. */
    async install(url: string, script = SCRIPT) {
      return run('sh', [script, url], { env })
    },
    async refused(...args: string[]): Promise<string> {
      const failure = await run('sh', [SCRIPT, ...args], { env }).then(
        () => assert.fail('it was installed'),
        (error: { code: number; stdout: string; stderr: string }) => error,
      )
      assert.equal(failure.code, 1, failure.stderr)
      assert.equal(failure.stdout, '')
      return failure.stderr
    },
  }
}

type Tree = ReturnType<typeof tree>

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

function expectInstalled({ at }: Tree, text = 'echo 1.2.3'): void {
  assert.match(readFileSync(at('executable'), 'utf8'), new RegExp(text))
  assert.match(readFileSync(at('unit'), 'utf8'), /^ExecStart=\/usr\/local\/bin\/sync-node serve$/m)
  assert.deepEqual(
    [at('executable'), at('unit'), at('settings'), at('data'), at('manual')].map(modeOf),
    ['755', '644', '640', '700', '644'],
  )
}

describe('install.sh', { skip: without({ tools: ['xz', 'curl', 'wget'] }) }, () => {
  it('installs from an address, by curl or by wget', async (t) => {
    const { url, asked } = await release(t)
    const withCurl = tree(t)
    const { stdout, stderr } = await withCurl.install(`${url}/`)
    assert.equal(stdout, '')
    assert.match(stderr, /Sync Node 1\.2\.3 is installed/)
    expectInstalled(withCurl)
    assert.deepEqual(asked, [
      '/releases/SHA256SUMS',
      `/releases/sync-node-1.2.3-linux-${process.arch}.tar.xz`,
    ])
    const withWget = tree(t, {}, pathWithout(t, 'curl'))
    await withWget.install(url)
    expectInstalled(withWget)
  })

  it('picks the architecture', async (t) => {
    const { folder } = await release(t)
    for (const [machine, architecture] of [
      ['x86_64', 'x64'],
      ['aarch64', 'arm64'],
    ] as const) {
      const here = tree(t, { uname: `case $1 in -m) echo ${machine} ;; *) echo Linux ;; esac` })
      await here.install(folder)
      expectInstalled(here, `# ${architecture}\n`)
    }
    const other = tree(t, { uname: 'case $1 in -m) echo armv7l ;; *) echo Linux ;; esac' })
    assert.match(await other.refused(folder), /x64 or arm64, not on Linux on armv7l/)
    assert.deepEqual(other.files(), [])
  })

  it('refuses an archive that was tampered with, and leaves what is installed', async (t) => {
    const { url, folder } = await release(t)
    const fresh = tree(t)
    const old = tree(t)
    await old.install(url)
    const [before, earlier] = [old.files(), readFileSync(old.at('executable'))]
    const trace = join(temporaryFolder(t), 'was-run')
    const other = await release(t, { executable: `touch ${trace}; echo 6.6.6` })
    const archive = `sync-node-1.2.3-linux-${process.arch}.tar.xz`
    const bytes = readFileSync(join(other.folder, archive))
    for (const tampered of [bytes, readFileSync(join(folder, archive)).subarray(0, -1)]) {
      writeFileSync(join(folder, archive), tampered)
      for (const here of [fresh, old]) {
        assert.match(await here.refused(url), /is not what SHA256SUMS says: nothing was installed/)
      }
    }
    assert.deepEqual(fresh.files(), [])
    assert.ok(!existsSync(trace))
    assert.deepEqual([old.files(), readFileSync(old.at('executable'))], [before, earlier])
  })

  it('says in a line what the system lacks, before it downloads anything', async (t) => {
    const { url, asked } = await release(t)
    const lacking: [programs: Record<string, string>, says: RegExp][] = [
      [{ getconf: 'echo glibc 2.27' }, /needs glibc 2\.28 or later; this system has 2\.27/],
      [{ getconf: 'echo glibc 1.99' }, /needs glibc 2\.28/],
      [{ getconf: 'exit 1' }, /needs glibc 2\.28 or later; this system has none/],
      [
        { ldconfig: 'echo "libc.so.6 (libc6,x86-64)"' },
        /needs libatomic\.so\.1: install libatomic1/,
      ],
    ]
    for (const [programs, says] of lacking) {
      const here = tree(t, programs)
      const line = await here.refused(url)
      assert.match(line, says)
      assert.match(line, /^install\.sh: [^\n]+\n$/)
      assert.deepEqual(here.files(), [])
    }
    assert.deepEqual(asked, [])
    for (const version of ['2.28', '2.36', '3.0']) {
      await tree(t, { getconf: `echo glibc ${version}` }).install(url)
    }
  })

  it('states the same glibc as all else', async () => {
    const [, floor] = /^glibc_floor=(.+)$/m.exec(readFileSync(SCRIPT, 'utf8')) ?? []
    assert.ok(readFileSync(join(checkout, 'README.md'), 'utf8').includes(`glibc ${floor}`))
    const { systemNeeds } = await import('../scripts/release/system.ts')
    const needs = systemNeeds(readFileSync(join(checkout, 'dist/sync-node')))
    assert.ok(needs.includes(`libc6 (>= ${floor})`))
  })

  it('keeps what runs when the new executable does not', async (t) => {
    const here = tree(t)
    await here.install((await release(t)).folder)
    const before = here.files()
    const { folder } = await release(t, { executable: BROKEN })
    const line = await here.refused(folder)
    assert.match(line, /libx\.so\.1[^]*does not run here: nothing was installed/)
    assert.deepEqual(here.files(), before)
    expectInstalled(here)
  })

  it('upgrades in place, and keeps the settings and the data', async (t) => {
    const here = tree(t)
    await here.install((await release(t)).folder)
    writeFileSync(here.at('settings'), 'PORT=81\n')
    writeFileSync(join(here.at('data'), 'secret'), 'kept')
    const { ino } = statSync(here.at('executable'))
    const { folder } = await release(t, { executable: 'echo 1.3.0', name: 'sync-node-1.3.0' })
    const { stderr } = await here.install(folder)
    assert.match(stderr, /Sync Node 1\.3\.0 is installed/)
    expectInstalled(here, 'echo 1\\.3\\.0')
    assert.notEqual(statSync(here.at('executable')).ino, ino)
    assert.equal(readFileSync(here.at('settings'), 'utf8'), 'PORT=81\n')
    assert.equal(readFileSync(join(here.at('data'), 'secret'), 'utf8'), 'kept')
  })

  it('removes all but the data and the settings', async (t) => {
    const here = tree(t)
    await here.install((await release(t)).folder)
    writeFileSync(join(here.at('data'), 'secret'), 'kept')
    const { stderr } = await here.install('--uninstall')
    assert.match(stderr, /The data in \S+ stays/)
    assert.deepEqual(here.files().sort(), [INSTALLED.settings, `${INSTALLED.data}/secret`])
  })

  it('does nothing when half of it arrives', async (t) => {
    const { folder } = await release(t)
    const text = readFileSync(SCRIPT, 'utf8')
    for (const part of [0.3, 0.6, 0.9]) {
      const here = tree(t)
      const path = join(temporaryFolder(t), 'install.sh')
      writeFileSync(path, text.slice(0, text.length * part))
      await here.install(folder, path).catch(() => undefined)
      assert.deepEqual(here.files(), [])
    }
  })

  it('says how it is called', async (t) => {
    const here = tree(t)
    assert.match(await here.refused(), /say where the release is/)
    assert.match(await here.refused('--frobnicate'), /there is no option --frobnicate/)
    assert.match(await here.refused('http://127.0.0.1:1/x'), /SHA256SUMS cannot be had/)
    assert.match(await here.refused(temporaryFolder(t)), /SHA256SUMS cannot be had/)
    assert.deepEqual(here.files(), [])
  })
})

describe('install.sh, on a machine with systemd,', { skip: skipWithoutMachine }, () => {
  it('makes a service of it, upgrades that, and removes it', async (t) => {
    const output = await runInMachine(
      t,
      `
      main_pid() { systemctl show --property=MainPID --value sync-node; }
      sh /release/install.sh /release
      systemctl is-active sync-node
      systemctl is-enabled sync-node
      ls -l /proc/$(main_pid)/exe | sed 's/.*-> /runs /'
      sync-node account add ana 2>&1 | sed 's/^[A-Za-z0-9_-]*$/TOKEN/'
      stat --format '%a %U:%G %n' /var/lib/sync-node
      find /var/lib/sync-node -printf '%u:%g\\n' | sort -u | xargs echo owners

      before=$(main_pid)
      sh /release/install.sh --no-start /release
      [ "$before" = "$(main_pid)" ]
      systemctl disable --quiet sync-node
      sh /release/install.sh /release
      [ "$before" != "$(main_pid)" ]
      systemctl is-enabled sync-node || true
      sync-node account list | grep -c ^~ | xargs echo accounts

      systemctl stop sync-node
      sh /release/install.sh /release
      echo after all: $(systemctl is-active sync-node)
      sh /release/install.sh --uninstall
      [ ! -e /usr/local/bin/sync-node ]
      [ -s /var/lib/sync-node/sync-node.db ]

      cp /bin/true /usr/bin/sync-node
      sh /release/install.sh /release && exit 1
      su nobody -s /bin/sh -c 'sh /release/install.sh /release' || true`,
    )
    assert.match(output, /^active\nenabled\nruns \/usr\/local\/bin\/sync-node$/m)
    assert.match(output, /^Data: \/var\/lib\/sync-node\nTOKEN$/m)
    assert.match(output, /^700 sync-node:sync-node \/var\/lib\/sync-node$/m)
    assert.match(output, /^owners sync-node:sync-node$/m)
    assert.match(output, /^disabled$/m)
    assert.match(output, /^accounts 1$/m)
    assert.match(output, /^after all: inactive$/m)
    assert.match(output, /installed as a package here/)
    assert.match(output, /run it as root/)
  })
})
