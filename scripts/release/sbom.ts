// Owns the bill of materials, as CycloneDX 1.6: the bundled packages, and Node with all it contains.
import { createHash } from 'node:crypto'
import type { Component } from './bundled.ts'

interface Manifest {
  version: string
  description: string
  license: string
  dependencies: Record<string, string>
}

// Numbers of interfaces and of data, not of software.
const NO_SOFTWARE = ['node', 'modules', 'napi', 'unicode', 'cldr', 'tz']
const FROM_NPM = ['acorn', 'amaro', 'undici']
// By these names advisories know them.
const CPE: Record<string, string> = {
  ares: 'c-ares:c-ares',
  brotli: 'google:brotli',
  icu: 'unicode:international_components_for_unicode',
  llhttp: 'nodejs:llhttp',
  nghttp2: 'nghttp2:nghttp2',
  node: 'nodejs:node.js',
  openssl: 'openssl:openssl',
  sqlite: 'sqlite:sqlite',
  uv: 'libuv:libuv',
  v8: 'google:v8',
  zlib: 'zlib:zlib',
  zstd: 'facebook:zstandard',
}

export function billOfMaterials(
  manifest: Manifest,
  packages: Component[],
  seconds: number,
): string {
  const own = { type: 'application', 'bom-ref': 'sync-node', name: 'sync-node' }
  const node = nodeComponent()
  const refs = new Map(packages.map((one) => [one.name, purl(one)]))
  const direct = packages.filter(({ name }) => name in manifest.dependencies).map(purl)
  const bill = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      timestamp: new Date(seconds * 1000).toISOString(),
      component: {
        ...own,
        version: manifest.version,
        description: manifest.description,
        licenses: [{ license: { id: manifest.license } }],
      },
    },
    components: [...packages.map(npmComponent), node],
    dependencies: [
      { ref: own['bom-ref'], dependsOn: [...direct, node['bom-ref']] },
      ...packages.map((one) => ({
        ref: purl(one),
        dependsOn: one.asksFor.map((name) => refs.get(name)).filter((ref) => ref !== undefined),
      })),
      { ref: node['bom-ref'], dependsOn: node.components.map((part) => part['bom-ref']) },
    ],
  }
  return `${JSON.stringify({ serialNumber: serialNumber(bill), ...bill }, null, 2)}\n`
}

const purl = ({ name, version }: Pick<Component, 'name' | 'version'>): string =>
  `pkg:npm/${name.replace('@', '%40')}@${version}`

function npmComponent(one: Component) {
  return {
    type: 'library',
    'bom-ref': purl(one),
    name: one.name,
    version: one.version,
    licenses: [{ license: { id: one.license } }],
    purl: purl(one),
    hashes: [{ alg: 'SHA-512', content: hexOf(one.integrity) }],
  }
}

const hexOf = (integrity: string): string =>
  Buffer.from(integrity.replace('sha512-', ''), 'base64').toString('hex')

/** The Node that runs this is the one inside the executable: scripts/build.ts sees to that. */
function nodeComponent() {
  const versions = Object.entries(process.versions)
  const parts = versions.filter(([name, version]) => version && !NO_SOFTWARE.includes(name))
  return {
    type: 'platform',
    ...generic('node', process.versions.node),
    components: parts.map(([name, version = '']) => ({
      type: 'library',
      ...generic(name, version),
    })),
  }
}

function generic(name: string, version: string) {
  const isNpm = FROM_NPM.includes(name)
  const url = isNpm ? purl({ name, version }) : `pkg:generic/${name}@${version}`
  return {
    // Not the purl alone: the bundle may hold the same package.
    'bom-ref': name === 'node' ? 'node' : `node/${name}`,
    name,
    version,
    purl: url,
    ...(CPE[name] === undefined ? {} : { cpe: `cpe:2.3:a:${CPE[name]}:${version}:*:*:*:*:*:*:*` }),
  }
}

/** A UUID that is the same for the same content. */
function serialNumber(content: unknown): string {
  const hex = createHash('sha256').update(JSON.stringify(content)).digest('hex')
  const digits = `${hex.slice(0, 12)}8${hex.slice(13, 16)}8${hex.slice(17, 32)}`
  return `urn:uuid:${digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')}`
}
