// Owns how dist/client.js comes about, and its types, and the replica beside it.
//
//   node scripts/client.ts    these alone, which is quick
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const ROOT = fileURLToPath(new URL('../', import.meta.url))
const ENTRIES = ['client', 'replica', 'file']
const MAX_CORE_BYTES = 10 * 1024

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildClient()

/** Makes dist/client.js, dist/replica.js and dist/file.js with their types, and says how large they are. */
export async function buildClient({ isQuiet = false } = {}): Promise<void> {
  await build({
    absWorkingDir: ROOT,
    entryPoints: ENTRIES.map((name) => `src/client/${name}.ts`),
    outdir: 'dist',
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    external: ['node:*'],
    logLevel: 'warning',
  })
  declare()
  const sizes = ENTRIES.map((name) => gzipSync(readFileSync(`${ROOT}dist/${name}.js`)).length)
  if (!isQuiet)
    console.log(ENTRIES.map((name, i) => `dist/${name}.js: ${sizes[i]} bytes gzipped`).join('\n'))
  if ((sizes[0] ?? 0) >= MAX_CORE_BYTES) throw new Error('dist/client.js has grown too large')
}

function declare(): void {
  const options =
    '--ignoreConfig --strict --declaration --emitDeclarationOnly --skipLibCheck --rootDir src/client' +
    ' --outDir dist/client --target es2024 --lib es2024 --module nodenext --types node' +
    ' --allowImportingTsExtensions --exactOptionalPropertyTypes'
  mkdirSync(`${ROOT}dist/client`, { recursive: true })
  const entries = ENTRIES.map((name) => `src/client/${name}.ts`)
  execFileSync('node_modules/.bin/tsc', [...entries, ...options.split(' ')], {
    cwd: ROOT,
    stdio: 'inherit',
  })
  for (const name of ENTRIES) {
    writeFileSync(`${ROOT}dist/${name}.d.ts`, `export * from './client/${name}.js'\n`)
  }
}
