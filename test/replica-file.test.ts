// Owns that the local store in a file opens again, whatever others put into stores and disks into files.
import assert from 'node:assert/strict'
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { connect } from '../src/client/client.ts'
import { fileStore } from '../src/client/file.ts'
import { PASSWORD, startNode, temporaryFolder } from './helpers/node.ts'
import { openDevice, reads, until } from './helpers/replicas.ts'

const pathOf = (t: TestContext): string => join(temporaryFolder(t), 'replica.jsonl')

describe('The local store in a file', () => {
  it('opens again whatever meta others gave a store that they shared', async (t) => {
    const node = await startNode(t)
    const mallory = connect({ url: node.url })
    await mallory.register({ id: 'mallory', password: PASSWORD })
    const path = pathOf(t)
    const { replica, client } = await openDevice(t, node, { local: await fileStore(path) })
    const metas = [{ x: { $bytes: '!!!' } }, { x: { $bytes: 'AAAA' } }, { $bytes: 'AAAA' }]
    const keys: string[] = []
    for (const [i, meta] of metas.entries()) {
      const gift = mallory.store(`gift ${i}`)
      keys.push((await gift.put(`gift ${i}`, { meta })).key)
      await gift.share('ana', 'READ')
    }
    for (const [i, key] of keys.entries()) {
      await until({ replica }, async () => (await replica.get(key))?.length === `gift ${i}`.length)
    }
    await replica.put('note', 'of ana')
    await replica.close()
    const options = { token: client.token }
    const again = await openDevice(t, node, { local: await fileStore(path), options })
    const items = await again.replica.list()
    for (const [i, meta] of metas.entries()) {
      const found = items.find(({ id }) => id === keys[i])?.meta
      assert.deepEqual(found, { name: `gift ${i}`, ...meta })
    }
    await until(again, reads(again, 'note', 'of ana'))
  })

  it('loses only the line that is damaged, and keeps that beside it', async (t) => {
    const node = await startNode(t)
    const path = pathOf(t)
    const first = await openDevice(t, node, { local: await fileStore(path) })
    await first.replica.stop()
    for (const id of ['a', 'b', 'c']) await first.replica.put(id, `of ${id}`)
    await first.replica.close()
    const lines = readFileSync(path, 'utf8').trim().split('\n')
    const at = lines.findIndex((line) => line.startsWith('{"id":"b"'))
    const bad = [
      (lines[at] as string).slice(20),
      (lines[at] as string).replace(/"\$bytes":"[^"]*"/, '"$bytes":"?"'),
      '{"state":1}',
      'null',
    ]
    writeFileSync(path, `${lines.toSpliced(at, 1, ...bad).join('\n')}\n`)
    appendFileSync(path, '{"id":"torn')
    const local = await fileStore(path)
    assert.deepEqual(
      (await local.all()).map(({ id }) => id),
      ['a', 'c'],
    )
    await local.close()
    assert.equal(readFileSync(`${path}.damaged`, 'utf8'), `${bad.join('\n')}\n`)
    const options = { token: first.client.token }
    const second = await openDevice(t, node, { local: await fileStore(path), options })
    await second.replica.synced()
    const { stores } = await second.client.list()
    assert.deepEqual(new Set(stores.map(({ name }) => name)), new Set(['a', 'c']))
  })

  const skip = existsSync('/dev/full') ? false : 'no /dev/full here'
  it('leaves no file open that could not be written', { skip }, async (t) => {
    const path = pathOf(t)
    symlinkSync('/dev/full', `${path}.new`)
    const open = () => readdirSync('/proc/self/fd').length
    await assert.rejects(fileStore(path), { code: 'ENOSPC' })
    const before = open()
    for (let i = 0; i < 20; i++) await assert.rejects(fileStore(path), { code: 'ENOSPC' })
    // The runner itself opens and closes some.
    assert.ok(open() < before + 20)
  })
})
