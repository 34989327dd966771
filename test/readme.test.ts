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
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { expectValues, serveValues } from './helpers/backups.ts'
import { EXECUTABLE } from './helpers/executable.ts'
import { takeBack } from './helpers/newer.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'
import { remoteClient } from './helpers/remote.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const hasCurl = spawnSync('curl', ['--version']).status === 0
const skip = hasCurl || process.env['CI'] !== undefined ? false : 'curl is not installed'

/** The commands of a block. */
function block(name: string): string {
  const found = new RegExp(`\`\`\`sh ${name}\\n([^]*?)\`\`\``).exec(readme)
  assert.ok(found, `there is no block ${name}`)
  return found[1] as string
}

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

  it('explains errors by what the server really says', () => {
    const section = /\n## Troubleshooting\n([^]*?)\n## /.exec(readme)?.[1] as string
    const rows = [...section.matchAll(/^\| ([^|]+) \|/gm)].map(([, first = '']) => first)
    const folder = new URL('../src/', import.meta.url)
    const names = (readdirSync(folder, { recursive: true }) as string[]).filter((name) =>
      /^(?:config|node|space|housekeeping|http\/stream|database\/migrate)\.ts$/.test(name),
    )
    const source = names.map((name) => readFileSync(new URL(name, folder), 'utf8')).join('\n')
    let texts = 0
    let codes = 0
    for (const row of rows) {
      for (const [, status, code] of row.matchAll(/(\d{3}) `([A-Z]+\d\d)`/g)) {
        assert.equal(statusOf(code as ErrorCode), Number(status), row)
        codes++
      }
      for (const [, text = ''] of row.matchAll(/`([^`]* [^`]*)`/g)) {
        const fixed = text.split('…').filter((part) => part.trim() !== '')
        for (const part of fixed) assert.ok(source.includes(part.trim()), part)
        texts++
      }
    }
    assert.ok(texts > 15 && codes > 8, `${texts} ${codes}`)
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

  it('is all tried', () => {
    const [from, to] = ['## Backup and restore', '## Behind'].map((head) => readme.indexOf(head))
    const named = [...readme.slice(from, to).matchAll(/^```(.*)\n/gm)].map(([, name]) => name)
    const tried = ['backup', 'restore', 'by-hand', 'move', 'rollback'].map((name) => `sh ${name}`)
    assert.deepEqual(
      named.filter((name) => name !== ''),
      tried,
    )
  })
})
