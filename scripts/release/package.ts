// Owns the files that people install from: a .tar.xz and a .deb around an executable. The same content
// gives the same bytes, whoever packs it, wherever and whenever.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import type { Architecture } from './body.ts'

export interface Release {
  version: string
  /** The time of every file. */
  seconds: number
  manual: string
  thirdPartyLicenses: string
}

export interface Packing {
  architecture: Architecture
  /** The path of the executable. */
  executable: string
  /** What it needs of Debian. */
  depends: string[]
  /** The folder that the packages go into. */
  output: string
}

/** By the path in the package. */
type Files = Record<string, File>
type File = ({ text: string | Buffer } | { from: string }) & { mode?: number }

const PACKAGING = 'scripts/packaging'
const DEBIAN: Record<Architecture, string> = { x64: 'amd64', arm64: 'arm64' }

/** Of compression: a lower one spares CI minutes. */
const LEVEL = process.env['XZ_LEVEL'] ?? '6'

const run = promisify(execFile)

/** Answers the name of the .tar.xz that it makes. */
export async function packTarball(release: Release, packing: Packing): Promise<string> {
  const { architecture, executable, output } = packing
  const name = `sync-node-${release.version}-linux-${architecture}`
  const stage = join(output, `.${name}`)
  put(join(stage, name), {
    'sync-node': { from: executable, mode: 0o755 },
    'sync-node.service': { from: `${PACKAGING}/sync-node.service` },
    'sync-node.default': { from: `${PACKAGING}/sync-node.default` },
    'sync-node.1': { text: release.manual },
    'install.sh': { from: 'scripts/install.sh', mode: 0o755 },
    'THIRD-PARTY-LICENSES': { text: release.thirdPartyLicenses },
    LICENSE: { from: 'LICENSE' },
    'README.md': { from: 'README.md' },
    'CHANGELOG.md': { from: 'CHANGELOG.md' },
  })
  const tar = join(output, `${name}.tar`)
  const same = ['--format=ustar', '--sort=name', '--numeric-owner', '--owner=0', '--group=0']
  age(stage, release.seconds)
  await run('tar', [...same, '-C', stage, '-cf', tar, name])
  // One thread: more would cut the file into blocks, and its size depends on how many.
  await run('xz', ['-T1', `-${LEVEL}`, '-f', tar])
  rmSync(stage, { recursive: true })
  return `${name}.tar.xz`
}

/** Answers the name of the .deb that it makes. */
export async function packDeb(release: Release, packing: Packing): Promise<string> {
  const { architecture, output } = packing
  const version = release.version.replace('-', '~')
  const name = `sync-node_${version}_${DEBIAN[architecture]}.deb`
  const stage = join(output, `.${name}`)
  const files = installed(release, version, packing)
  const bytes = put(stage, files)
  put(stage, {
    'DEBIAN/control': {
      text: filled('control', {
        VERSION: version,
        ARCHITECTURE: DEBIAN[architecture],
        SIZE: String(Math.ceil(bytes / 1024)),
        DEPENDS: packing.depends.join(', '),
      }),
    },
    'DEBIAN/conffiles': { text: '/etc/default/sync-node\n' },
    'DEBIAN/md5sums': { text: checksums(stage, files) },
    ...Object.fromEntries(
      ['postinst', 'prerm', 'postrm'].map((script) => [
        `DEBIAN/${script}`,
        { from: `${PACKAGING}/debian/${script}`, mode: 0o755 },
      ]),
    ),
  })
  age(stage, release.seconds)
  const args = ['--root-owner-group', '-Zxz', `-z${LEVEL}`, '--build', stage, join(output, name)]
  const fixed = { SOURCE_DATE_EPOCH: String(release.seconds), DPKG_DEB_THREADS_MAX: '1' }
  await run('dpkg-deb', args, { env: { ...process.env, ...fixed } })
  rmSync(stage, { recursive: true })
  return name
}

function installed(release: Release, version: string, { executable }: Packing): Files {
  const documents = 'usr/share/doc/sync-node'
  const copyright = `${readFileSync('LICENSE', 'utf8')}\n${release.thirdPartyLicenses}`
  return {
    'usr/bin/sync-node': { from: executable, mode: 0o755 },
    'usr/lib/systemd/system/sync-node.service': { from: `${PACKAGING}/sync-node.service` },
    // Not for everyone's eyes: people put passwords there.
    'etc/default/sync-node': { from: `${PACKAGING}/sync-node.default`, mode: 0o640 },
    'usr/share/man/man1/sync-node.1.gz': { text: zipped(release.manual) },
    'usr/share/lintian/overrides/sync-node': { from: `${PACKAGING}/debian/lintian-overrides` },
    [`${documents}/copyright`]: { text: copyright },
    [`${documents}/README.md.gz`]: { text: zipped(readFileSync('README.md', 'utf8')) },
    [`${documents}/NEWS.gz`]: { text: zipped(readFileSync('CHANGELOG.md', 'utf8')) },
    [`${documents}/changelog.gz`]: {
      text: zipped(filled('changelog', { VERSION: version, DATE: rfc2822(release.seconds) })),
    },
  }
}

/** Writes the files with their modes, whatever the umask is; answers how many bytes. */
function put(folder: string, files: Files): number {
  let bytes = 0
  for (const [path, file] of Object.entries(files)) {
    const target = join(folder, path)
    makeFolders(folder, dirname(path))
    if ('from' in file) copyFileSync(file.from, target)
    else writeFileSync(target, file.text)
    chmodSync(target, file.mode ?? 0o644)
    bytes += readFileSync(target).length
  }
  return bytes
}

function makeFolders(root: string, path: string): void {
  mkdirSync(join(root, path), { recursive: true })
  for (let one = path; ; one = dirname(one)) {
    chmodSync(join(root, one), 0o755)
    if (one === '.') return
  }
}

/** Gives all in a folder the same time; SOURCE_DATE_EPOCH alone spares what seems older. */
function age(folder: string, seconds: number): void {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  for (const path of ['.', ...paths]) utimesSync(join(folder, path), seconds, seconds)
}

function checksums(folder: string, files: Files): string {
  const lines = Object.keys(files).map((path) => {
    const sum = createHash('md5').update(readFileSync(join(folder, path)))
    return `${sum.digest('hex')}  ${path}\n`
  })
  return lines.join('')
}

function filled(template: string, values: Record<string, string>): string {
  const text = readFileSync(`${PACKAGING}/debian/${template}`, 'utf8')
  return text.replace(/@([A-Z]+)@/g, (_, name: string) => values[name] ?? '')
}

const zipped = (text: string): Buffer => gzipSync(text, { level: 9 })

const rfc2822 = (seconds: number): string =>
  new Date(seconds * 1000).toUTCString().replace('GMT', '+0000')
