import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import type { ErrorCode } from '../src/errors.ts'
import { statusOf } from '../src/http/problem.ts'
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { expectValues, serveValues } from './helpers/backups.ts'
import { EXECUTABLE, install } from './helpers/executable.ts'
import { takeBack } from './helpers/newer.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'
import { block, readme } from './helpers/readme.ts'
import { checkout } from './helpers/release.ts'
import { remoteClient } from './helpers/remote.ts'

/** What the system says: most of it is seen where README.md is followed on a machine. */
const OF_OTHERS = [
  'listen EACCES: permission denied :::80',
  "Unknown key 'RestartSteps' in section [Service], ignoring.",
  "version `GLIBC_2.28' not found",
  'libatomic.so.1: cannot open shared object file: No such file or directory',
  'crypto.subtle is undefined',
]
const hasCurl = spawnSync('curl', ['--version']).status === 0
const skip = hasCurl || process.env['CI'] !== undefined ? false : 'curl is not installed'

describe('README.md', { skip }, () => {
  it('has a tour that works as it stands', async (t) => {
    const node = await startNode(t)
    const script = block('tour').replace('http://localhost:8080', node.url)
    const { stdout } = await promisify(execFile)('sh', ['-e', '-c', script], {
      cwd: temporaryFolder(t),
    })
    const statuses = [...stdout.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => status)
    assert.deepEqual(statuses, ['201', '204', '412'])
    assert.match(stdout, /^buy milk$/m)
    assert.match(stdout, /"permission":"READ"/)
    assert.match(stdout, /buy milk and bread$/m)
  })

  it('names every setting', () => {
    const config = readFileSync(new URL('../src/config.ts', import.meta.url), 'utf8')
    const read = [...config.matchAll(/read\(\s*'(\w+)'/g)].map(([, name]) => name)
    assert.ok(read.length >= 12)
    for (const name of read) assert.match(readme, new RegExp(`^\\| \`${name}\` `, 'm'))
  })
})

/** Other machines, each a folder: what ssh and scp reach. */
function machines(folder: string): { path: string; folderOf(name: string): string } {
  const programs = join(folder, 'programs')
  mkdirSync(programs)
  symlinkSync(EXECUTABLE[0] as string, join(programs, 'sync-node'))
  const reached = `cd "${folder}/$host" && `
  const scripts = {
    ssh: `host=$1; shift; ${reached} exec sh -c "$*"`,
    scp: `file=$PWD/$1; host=\${2%:}; ${reached} exec cp "$file" .`,
  }
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(programs, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(programs, name), 0o755)
  }
  return {
    path: `${programs}:${process.env['PATH']}`,
    folderOf(name) {
      mkdirSync(join(folder, name))
      return join(folder, name)
    },
  }
}

describe('What README.md says of backups', () => {
  it('works as it stands, from the first backup to another machine', async (t) => {
    const { here, server, opened, values } = await serveValues(t)
    const { path, folderOf } = machines(temporaryFolder(t))
    const run = (script: string) =>
      promisify(execFile)('sh', ['-e', '-c', script], { cwd: here.folder, env: { PATH: path } })
    const nas = folderOf('nas')
    const { stdout } = await run(block('backup'))
    assert.match(stdout, /^accounts +1$/m)
    assert.deepEqual(readdirSync(nas), ['sync-node.tar.zst'])
    const byHand = await run(block('by-hand'))
    assert.equal(byHand.stdout.match(/: OK$/gm)?.length, 5)
    const place = join(here.folder, 'srv')
    await run(block('restore').replace('/srv/sync-node', place))
    await server.stop()
    const machine = folderOf('new-machine')
    await run(block('move'))
    for (const root of [place, join(machine, 'data'), join(here.folder, 'by-hand')]) {
      const restored = await here.serve({ STATIC_ROOT: root })
      await expectValues(remoteClient(restored.url, opened), values)
      await restored.stop()
    }
  })

  it('and of going back from an upgrade, too', async (t) => {
    const { here, server, opened, values } = await serveValues(t)
    await server.stop()
    takeBack(here.root)
    await (await here.serve()).stop()
    const { path } = machines(temporaryFolder(t))
    const { stderr } = await promisify(execFile)('sh', ['-e', '-c', block('rollback')], {
      cwd: here.folder,
      env: { PATH: path },
    })
    assert.match(stderr, /0 stores were written[^]*Start the sync-node that you had before now/)
    const { url } = await here.serve()
    await expectValues(remoteClient(url, opened), values)
  })
})

/** The make that is there, which here takes all as made: other tests read what it would make anew. */
function makeHere(t: TestContext): string[] {
  const path = join(temporaryFolder(t), 'make')
  const made = '-o dist/sync-node -o node_modules/.installed'
  writeFileSync(path, `#!/bin/sh\nexec make -C '${checkout}' ${made} "$@"\n`, { mode: 0o755 })
  return [path]
}

/** What people can be told in one line that ends a start, a command or an installation. */
function messages(): string[] {
  const thrown = /new (?:Refusal|StartError|ConfigError|CommandError)\(\s*(['"`])([^]*?)\1/g
  const found: string[] = []
  const folder = new URL('../src/', import.meta.url)
  for (const name of readdirSync(folder, { recursive: true }) as string[]) {
    // These say all there is to say.
    if (!name.endsWith('.ts') || /^commands\/(?!backup|restore|migrate-data|output)/.test(name))
      continue
    const source = readFileSync(new URL(name, folder), 'utf8')
    found.push(...[...source.matchAll(thrown)].map(([, , text = '']) => text))
  }
  const script = readFileSync(new URL('../scripts/install.sh', import.meta.url), 'utf8')
  const died = [...script.matchAll(/\bdie (["'])(.*?)\1/g)].map(([, , text = '']) => text)
  return [...found, ...died]
}

/** The way of calling it is no trouble. */
const OF_CALLS = /^(?:there is no option|run it as root|say where|it needs curl)/

describe('The troubleshooting of README.md', () => {
  const section = /\n## Troubleshooting\n([^]*?)\n## /.exec(readme)?.[1] as string
  const rows = [...section.matchAll(/^\| ([^|]+) \|/gm)].map(([, first = '']) => first)
  const excerpts = rows.flatMap((row) =>
    [...row.matchAll(/`([^`]* [^`]*)`/g)].map(([, text = '']) =>
      text.split('…').map((part) => part.trim()),
    ),
  )

  it('explains errors by what is really said', () => {
    const folder = new URL('../src/', import.meta.url)
    const names = (readdirSync(folder, { recursive: true }) as string[]).filter((name) =>
      name.endsWith('.ts'),
    )
    const sources = names.map((name) => readFileSync(new URL(name, folder), 'utf8'))
    const source = [...sources, ...messages(), ...OF_OTHERS].join('\n')
    for (const part of excerpts.flat()) assert.ok(source.includes(part), part)
    const codes = rows.flatMap((row) => [...row.matchAll(/(\d{3}) `([A-Z]+\d\d)`/g)])
    for (const [row, status, code] of codes) {
      assert.equal(statusOf(code as ErrorCode), Number(status), row)
    }
    assert.ok(excerpts.length > 40 && codes.length > 8, `${excerpts.length} ${codes.length}`)
  })

  it('has every line that ends a start, a backup, a restore, a rollback or an installation', () => {
    const all = messages().filter((message) => !OF_CALLS.test(message))
    assert.ok(all.length > 40)
    const missing = all.filter(
      (message) => !excerpts.some((parts) => parts.every((part) => message.includes(part))),
    )
    assert.deepEqual(missing, [])
  })
})

describe('What README.md says first', () => {
  const commands = [...block('make').matchAll(/^make (.*?) +#/gm)].map(([, words = '']) => words)

  it('is how to run it, and how to test it', () => {
    assert.deepEqual(commands, ['run', 'test'])
    assert.equal(block('make').trim().split('\n').length, commands.length)
  })

  it('starts the server', async (t) => {
    const here = install(t, makeHere(t))
    const server = here.launch(['run'], { STATIC_ROOT: here.root })
    const url = await server.says(/listens on (http:\/\/[^\s",]+)/)
    assert.equal((await fetch(`${url}/health`)).status, 200)
    await server.stop()
  })

  it('runs the tests', async (t) => {
    // One of them: all would run this one, too.
    const { code, stdout } = await install(t, makeHere(t)).run(['test', 'T=digest'])
    assert.equal(code, 0)
    assert.match(stdout, /^ℹ fail 0$/m)
  })
})

describe('The blocks of README.md', () => {
  const fences = [...readme.matchAll(/^ *(?:```|~~~)(.*)\n[^]*?^ *(?:```|~~~) *$/gm)]
  const named = fences.map(([, name = '']) => name)

  it('are in languages that a test knows', () => {
    const others = named.filter(
      (name) => !/^(?:sh \S+|ts|caddy|nginx(?: nodes)?|apache)$/.test(name),
    )
    assert.deepEqual(others, [], 'commands have a name behind sh')
    assert.equal(readme.match(/^ *(?:```|~~~)/gm)?.length, 2 * fences.length)
  })

  it('are all run, where they are commands', () => {
    const folder = new URL('.', import.meta.url)
    const tests = readdirSync(folder).filter((name) => name.endsWith('.test.ts'))
    const source = tests.map((name) => readFileSync(new URL(name, folder), 'utf8')).join('\n')
    const commands = named.filter((name) => name.startsWith('sh '))
    assert.ok(commands.length > 15 && new Set(commands).size === commands.length)
    for (const name of commands) {
      assert.ok(source.includes(`block('${name.slice(3)}')`), `nothing runs the block ${name}`)
    }
  })
})
