import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import type { ErrorCode } from '../src/errors.ts'
import { statusOf } from '../src/http/problem.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const hasCurl = spawnSync('curl', ['--version']).status === 0
const skip = hasCurl || process.env['CI'] !== undefined ? false : 'curl is not installed'

describe('README.md', { skip }, () => {
  it('has a tour that works as it stands', async (t) => {
    const node = await startNode(t)
    const tour = /```sh tour\n([^]*?)```/.exec(readme)?.[1] as string
    const script = tour.replace('http://localhost:8080', node.url)
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
