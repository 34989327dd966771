import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { verify } from '../scripts/release/body.ts'
import { needsOf, newest } from '../scripts/release/elf.ts'
import { systemNeeds } from '../scripts/release/system.ts'
import { SCHEMA } from './helpers/newer.ts'
import { temporaryFolder } from './helpers/node.ts'
import { checkout, copyOfCheckout, released, sha256, version, without } from './helpers/release.ts'

const run = promisify(execFile)
const READELF = 'readelf'
const EXECUTABLE = join(checkout, 'dist/sync-node')
const PACKAGES = ['x64', 'arm64'].flatMap((architecture) => [
  { architecture, name: `sync-node-${version}-linux-${architecture}.tar.xz` },
  {
    architecture,
    name: `sync-node_${version}_${architecture.replace('x64', 'amd64')}.deb`,
  },
])

/** The folder that a package's files are in. */
async function unpacked(t: TestContext, name: string): Promise<string> {
  const folder = temporaryFolder(t)
  if (name.endsWith('.deb')) await run('dpkg-deb', ['-x', released(name), folder])
  else await run('tar', ['-xf', released(name), '-C', folder, '--strip-components=1'])
  return folder
}

describe('A release', { skip: without({ tools: ['dpkg-deb', 'xz'], release: true }) }, () => {
  it('has a checksum of every file', async () => {
    const sums = readFileSync(released('SHA256SUMS'), 'utf8').trim().split('\n')
    const names = sums.map((line) => line.replace(/^[\da-f]{64} {2}/, ''))
    assert.deepEqual(
      names,
      readdirSync(released('.')).filter((name) => name !== 'SHA256SUMS'),
    )
    await run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: released('.') })
    assert.equal(names.length, 8)
  })

  it('has the executable that was tested', () => {
    const own = released(`sync-node-${version}-linux-${process.arch}`)
    assert.equal(sha256(own), sha256(EXECUTABLE))
  })

  for (const { architecture, name } of PACKAGES) {
    it(`has all in ${name}, within 32 MB`, async (t) => {
      assert.ok(statSync(released(name)).size < 32_000_000)
      const folder = await unpacked(t, name)
      const [bin, unit, documents] = name.endsWith('.deb')
        ? ['usr/bin/', 'usr/lib/systemd/system/', 'usr/share/doc/sync-node/copyright']
        : ['', '', 'THIRD-PARTY-LICENSES']
      const executable = join(folder, `${bin}sync-node`)
      const expected = released(`sync-node-${version}-linux-${architecture}`)
      assert.equal(sha256(executable), sha256(expected))
      assert.equal(statSync(executable).mode & 0o777, 0o755)
      assert.match(
        readFileSync(join(folder, `${unit}sync-node.service`), 'utf8'),
        /^ExecStart=\/usr\/bin\/sync-node serve$/m,
      )
      const licenses = readFileSync(join(folder, documents), 'utf8')
      for (const text of ['hono 4', 'pino 10', 'OpenSSL', 'Joyent', 'libSQL']) {
        assert.ok(licenses.includes(text), text)
      }
    })
  }

  it('lists what is inside: the bundled packages, and Node with its libraries', () => {
    const bill = JSON.parse(readFileSync(released(`sync-node-${version}.cdx.json`), 'utf8')) as Bill
    assert.deepEqual([bill.bomFormat, bill.specVersion], ['CycloneDX', '1.6'])
    assert.equal(bill.metadata.component.version, version)
    const node = bill.components.find(({ name }) => name === 'node')
    const inside = new Map(node?.components?.map((part) => [part.name, part.version]))
    for (const name of ['sqlite', 'openssl', 'zlib', 'llhttp', 'v8', 'uv', 'undici'] as const) {
      assert.equal(inside.get(name), process.versions[name], name)
    }
    const bundled = JSON.parse(readFileSync(join(checkout, 'dist/bundled.json'), 'utf8')) as []
    const names = bill.components.map(({ name }) => name)
    for (const name of ['hono', 'pino', 'oslo', 'valibot']) assert.ok(names.includes(name), name)
    assert.equal(names.length, bundled.length + 1)
    const refs = [...bill.components, ...(node?.components ?? [])].map((one) => one['bom-ref'])
    assert.equal(new Set(refs).size, refs.length)
    for (const { dependsOn } of bill.dependencies) {
      for (const ref of dependsOn) assert.ok(refs.includes(ref), ref)
    }
  })

  it('runs with glibc 2.28, and says in the package what else it needs', async () => {
    const readme = readFileSync(join(checkout, 'README.md'), 'utf8')
    for (const { architecture, name } of PACKAGES.filter(({ name }) => name.endsWith('.deb'))) {
      const elf = readFileSync(released(`sync-node-${version}-linux-${architecture}`))
      const floor = newest(needsOf(elf), 'GLIBC')
      assert.ok(readme.includes(`glibc ${floor}`), `${architecture}: ${floor}`)
      const { stdout } = await run('dpkg-deb', ['--field', released(name), 'Depends'])
      assert.deepEqual(stdout.trim().split(', '), ['adduser', ...systemNeeds(elf)])
      assert.match(stdout, /\blibc6 \(>= 2\.28\)/)
      assert.match(stdout, /\blibatomic1\b/)
    }
  })
})

interface Bill {
  bomFormat: string
  specVersion: string
  metadata: { component: { version: string } }
  components: (Part & { components?: Part[] })[]
  dependencies: { dependsOn: string[] }[]
}

interface Part {
  'bom-ref': string
  name: string
  version: string
}

describe('A package', { skip: without({ tools: ['dpkg-deb', 'xz'] }) }, () => {
  for (const year of [2001, 2101]) {
    it(`is the same from another folder and place, under another umask, on a commit of ${year}`, async (t) => {
      const seconds = Date.UTC(year, 0) / 1000
      const here = { umask: '022', environment: { TZ: 'UTC' }, seconds }
      const environment = { TZ: 'Asia/Tokyo', LC_ALL: 'C', XZ_OPT: '-9', XZ_DEFAULTS: '-T0' }
      const first = await packIn(copyOfCheckout(t), here)
      const second = await packIn(copyOfCheckout(t), { umask: '077', environment, seconds })
      assert.equal(first.length, 2)
      assert.deepEqual(second, first)
    })
  }
})

interface Place {
  umask: string
  environment: Record<string, string>
  seconds: number
}

/** Packs a small executable as it is done for a release; answers names and checksums. */
async function packIn(folder: string, { umask, environment, seconds }: Place): Promise<string[]> {
  const script = `
    import { packDeb, packTarball } from './scripts/release/package.ts'
    const release = { version: '1.2.3-rc.1', seconds: ${seconds}, manual: '.TH', thirdPartyLicenses: 'MIT' }
    const packing = { architecture: 'arm64', executable: '/bin/sh', depends: ['libc6'], output: '.' }
    for (const pack of [packTarball, packDeb]) console.log(await pack(release, packing))`
  const node = `umask ${umask} && exec "$0" --input-type=module --eval "$1"`
  const { stdout } = await run('sh', ['-c', node, process.execPath, script], {
    cwd: folder,
    env: { PATH: process.env['PATH'], ...environment },
  })
  return stdout
    .trim()
    .split('\n')
    .map((name) => `${name} ${sha256(join(folder, name))}`)
}

describe('What is made into a release', () => {
  it('is not begun without the tools for it, which one line names', async () => {
    const options = { cwd: checkout, env: { PATH: '/nowhere' } }
    const begun = run(process.execPath, ['scripts/release/main.ts'], options)
    await assert.rejects(begun, {
      code: 1,
      stdout: '',
      stderr: /^make release needs tar [^\n]*\n$/,
    })
  })

  it('is refused when it needs a newer glibc, or a library, that nobody was told of', () => {
    const elf = readFileSync(EXECUTABLE)
    const doctored = (from: string, to: string): Buffer => {
      const copy = Buffer.from(elf)
      copy.write(to, copy.indexOf(`\0${from}\0`) + 1, 'latin1')
      return copy
    }
    assert.deepEqual(systemNeeds(elf), systemNeeds(doctored('GLIBC_2.27', 'GLIBC_2.26')))
    assert.throws(() => systemNeeds(doctored('GLIBC_2.28', 'GLIBC_2.38')), /GLIBC 2\.38/)
    assert.throws(() => systemNeeds(doctored('libdl.so.2', 'libdx.so.2')), /libdx\.so\.2/)
  })

  it('reads an executable as readelf does', { skip: without({ tools: [READELF] }) }, () => {
    const [text = '', versions = ''] = ['--dynamic', '--version-info'].map((option) =>
      execFileSync(READELF, ['--wide', option, EXECUTABLE], { encoding: 'utf8' }),
    )
    const needs = needsOf(readFileSync(EXECUTABLE))
    const libraries = [...text.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name)
    assert.deepEqual([...needs.keys()], libraries)
    const names = [...versions.matchAll(/ Name: (\S+) +Flags: none +Version: \d+/g)]
    const expected = names.map(([, name]) => name)
    assert.deepEqual(new Set([...needs.values()].flat()), new Set(expected))
  })

  it('is refused when npm brings another Node than the locked one', (t) => {
    const file = join(temporaryFolder(t), 'node.tgz')
    const integrity = `sha512-${createHash('sha512').update('locked').digest('base64')}`
    writeFileSync(file, 'locked')
    verify(file, integrity)
    writeFileSync(file, 'other')
    assert.throws(() => verify(file, integrity), /package-lock\.json/)
    assert.ok(!existsSync(file))
  })
})

const textOf = (path: string): string => readFileSync(join(checkout, path), 'utf8')

describe('The version', () => {
  it('stands in package.json, and nowhere else', () => {
    const lock = JSON.parse(textOf('package-lock.json')) as {
      version: string
      packages: Record<string, { version: string }>
    }
    assert.deepEqual([lock.version, lock.packages['']?.version], [version, version])
    const folders = ['src', 'scripts', '.ci'].flatMap((folder) =>
      readdirSync(join(checkout, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => relative(checkout, join(parentPath, name))),
    )
    const literal = new RegExp(`(?<![\\d.])${version.replaceAll('.', '\\.')}(?![\\d.])`)
    const others = ['README.md', 'Makefile', 'sea-config.json', ...folders]
    assert.deepEqual(
      others.filter((path) => literal.test(textOf(path))),
      [],
    )
  })

  it('is what the executable says, which is what it has been made of', async () => {
    const { stdout } = await run(EXECUTABLE, ['version', '--json'])
    const { sqlite, node } = process.versions
    const said = JSON.parse(stdout) as Record<string, unknown>
    assert.partialDeepStrictEqual(said, { version, schema: SCHEMA, sqlite, node })
    assert.ok(textOf('README.md').includes(`Node ${node},`))
    assert.ok(textOf('README.md').includes(`SQLite ${sqlite}\n`))
  })

  it('has all that its upgraders must know, first of all in CHANGELOG.md', () => {
    const [, newest = '', ...others] = textOf('CHANGELOG.md').split(/^## /m)
    assert.match(newest, new RegExp(`^${version.replaceAll('.', '\\.')}[,\\n]`))
    for (const entry of [newest, ...others]) {
      assert.match(entry, /^[^\n]+\n\nSchema \d+\./)
      assert.match(entry, /^To do: /m)
    }
    assert.ok(newest.includes(`\nSchema ${SCHEMA}.`))
  })
})
