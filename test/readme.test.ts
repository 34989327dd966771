import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { startNode, temporaryFolder } from './helpers/node.ts'

const hasCurl = spawnSync('curl', ['--version']).status === 0
const skip = hasCurl || process.env['CI'] !== undefined ? false : 'curl is not installed'

describe('README.md', { skip }, () => {
  it('has a tour that works as it stands', async (t) => {
    const node = await startNode(t)
    const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
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

  it('names every setting', () => {
    const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
    const config = readFileSync(new URL('../src/config.ts', import.meta.url), 'utf8')
    const read = [...config.matchAll(/read\(\s*'(\w+)'/g)].map(([, name]) => name)
    assert.ok(read.length >= 12)
    for (const name of read) assert.match(readme, new RegExp(`^\\| \`${name}\` `, 'm'))
  })
})
