// Owns what the executable carries: embedded files, the workers' code, version and commit date. From source, the same from disk.
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type * as Sea from 'node:sea'
import { compileFunction } from 'node:vm'
import { Worker } from 'node:worker_threads'

// scripts/build.ts replaces these two names. From source they do not exist, so a typeof has to come first.
declare const __VERSION__: string
declare const __COMMIT_DATE__: number

/** This file's place, when running from source. In the executable scripts/build.ts puts null here. */
const source = import.meta.url as string | null

export const version: string = typeof __VERSION__ === 'string' ? __VERSION__ : versionOnDisk()

/** The committer date of the commit this was built from; 0 from source. */
export const commitDateMs: number = typeof __COMMIT_DATE__ === 'number' ? __COMMIT_DATE__ : 0

/** The text of an embedded file, such as `migrations/0001-init.sql`. */
export function readAsset(name: string): string {
  if (source === null) return sea().getAsset(name, 'utf8')
  return readFileSync(new URL(placeOf(name), source), 'utf8')
}

/** Where an asset is when running from source; `make build` bundles the scripts for browsers. */
function placeOf(name: string): string {
  if (name.startsWith('migrations/')) return `database/${name}`
  return name.endsWith('.js') ? `../dist/${name}` : `web/${name}`
}

/** The file names of all migrations, in the order in which they apply. */
export function listMigrations(): string[] {
  const names =
    source === null ? assetsIn('migrations/') : readdirSync(new URL('database/migrations/', source))
  return names.filter((name) => name.endsWith('.sql')).sort()
}

/** Where the code of each thread is, when running from source. */
const WORKERS = {
  writer: 'database/writer.ts',
  check: 'database/check.ts',
  copy: 'database/copy.ts',
  hasher: 'hasher.ts',
}

/** Starts code of ours on a thread of its own. */
export function startWorker(name: keyof typeof WORKERS, workerData: unknown): Worker {
  // No execArgv in the executable: with one, Node would read NODE_OPTIONS for the worker.
  if (source === null) {
    return new Worker(readAsset(`${name}.cjs`), { eval: true, name, workerData })
  }
  // An empty execArgv from source, or the worker would inherit the loader that tests run with.
  const entry = new URL(WORKERS[name], source)
  return new Worker(entry, { execArgv: [], name, workerData })
}

/** Large, and of use to few servers: read when they are needed, or they would make every start longer. */
const LARGE = {
  nodemailer: () => import('nodemailer'),
  prometheus: () => import('@prometheus-io/client'),
}

/** The module of that name. */
export async function load<Name extends keyof typeof LARGE>(
  name: Name,
): Promise<Awaited<ReturnType<(typeof LARGE)[Name]>>>
export async function load(name: keyof typeof LARGE): Promise<unknown> {
  if (source !== null) return LARGE[name]()
  const module = { exports: {} }
  const run = compileFunction(readAsset(`${name}.cjs`), ['require', 'module', 'exports'])
  run(createRequire(process.execPath), module, module.exports)
  return module.exports
}

function assetsIn(folder: string): string[] {
  const keys = sea().getAssetKeys()
  return keys.filter((key) => key.startsWith(folder)).map((key) => key.slice(folder.length))
}

// Not an import: Bun has no `node:sea` and would refuse to start.
function sea(): typeof Sea {
  return process.getBuiltinModule('node:sea')
}

function versionOnDisk(): string {
  const manifest = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}
