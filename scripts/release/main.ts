// Owns `make release`: all that people download, for both architectures, in dist/release/.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { commitSeconds } from '../commit.ts'
import { EMULATORS, nodeFor, type Architecture } from './body.ts'
import { bundledPackages } from './bundled.ts'
import { thirdPartyLicenses } from './licenses.ts'
import { manual } from './manual.ts'
import { packDeb, packTarball, type Release } from './package.ts'
import { billOfMaterials } from './sbom.ts'
import { systemNeeds } from './system.ts'

const EXECUTABLE = 'dist/sync-node'
const OUTPUT = 'dist/release'
const MAX_DOWNLOAD_BYTES = 32_000_000

process.chdir(fileURLToPath(new URL('../../', import.meta.url)))
refuseWithoutTools()
rmSync(OUTPUT, { recursive: true, force: true })
mkdirSync(OUTPUT, { recursive: true })

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Parameters<
  typeof billOfMaterials
>[0]
const { version } = manifest
const seconds = commitSeconds()
const packages = bundledPackages()
const node = nodeFor(process.arch as Architecture)
const release: Release = {
  version,
  seconds,
  manual: manual({
    version,
    seconds,
    help: execFileSync(EXECUTABLE, ['--help'], { encoding: 'utf8' }),
    readme: readFileSync('README.md', 'utf8'),
  }),
  thirdPartyLicenses: thirdPartyLicenses(packages, join(dirname(node), '..')),
}
// Side by side: nearly all of the time goes into compression, in one thread for each file.
await Promise.all((['x64', 'arm64'] as const).map(releaseFor))
writeFileSync(
  join(OUTPUT, `sync-node-${version}.cdx.json`),
  billOfMaterials(manifest, packages, seconds),
)
copyFileSync('scripts/install.sh', join(OUTPUT, 'install.sh'))
chmodSync(join(OUTPUT, 'install.sh'), 0o755)
writeFileSync(join(OUTPUT, 'SHA256SUMS'), checksums())
for (const name of readdirSync(OUTPUT)) console.log(`${OUTPUT}/${name}`)

function refuseWithoutTools(): void {
  const [emulator] = EMULATORS[process.arch === 'x64' ? 'arm64' : 'x64']
  const tools = { tar: 'GNU tar', xz: 'XZ Utils', 'dpkg-deb': 'Debian', [emulator]: 'qemu' }
  for (const [tool, says] of Object.entries(tools)) {
    const { stdout } = spawnSync(tool, ['--version'], { encoding: 'utf8' })
    if (stdout?.includes(says)) continue
    console.error(`make release needs ${tool} (${says}), as Debian has it: install it first.`)
    process.exit(1)
  }
}

async function releaseFor(architecture: Architecture): Promise<void> {
  const executable = join(OUTPUT, `sync-node-${version}-linux-${architecture}`)
  // The one that the tests ran, where there is one.
  if (architecture === process.arch) copyFileSync(EXECUTABLE, executable)
  else {
    const command = [...EMULATORS[architecture], nodeFor(architecture)]
    execFileSync(process.execPath, ['scripts/build.ts', executable, ...command])
  }
  const depends = systemNeeds(readFileSync(executable))
  const packing = { architecture, executable, depends, output: OUTPUT }
  for (const pack of [packTarball, packDeb]) {
    const name = await pack(release, packing)
    const { length } = readFileSync(join(OUTPUT, name))
    if (length > MAX_DOWNLOAD_BYTES) throw new Error(`${name} has grown to ${length} bytes`)
  }
}

function checksums(): string {
  const lines = readdirSync(OUTPUT)
    .sort()
    .map((name) => {
      const sum = createHash('sha256').update(readFileSync(join(OUTPUT, name)))
      return `${sum.digest('hex')}  ${name}\n`
    })
  return lines.join('')
}
