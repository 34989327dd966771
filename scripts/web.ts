// Owns how dist/page.js comes about: the account page's script with the client in it.
//
//   node scripts/web.ts    this alone, for a server that runs from source
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const ROOT = fileURLToPath(new URL('../', import.meta.url))

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildPage()

export async function buildPage(): Promise<void> {
  const { outputFiles } = await build({
    absWorkingDir: ROOT,
    entryPoints: ['src/web/page.ts'],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'warning',
  })
  mkdirSync(`${ROOT}dist`, { recursive: true })
  // Whole before it gets its name: a server may be reading the old one.
  const unfinished = `${ROOT}dist/page.js.${process.pid}`
  writeFileSync(unfinished, outputFiles[0]?.contents ?? '')
  renameSync(unfinished, `${ROOT}dist/page.js`)
}
