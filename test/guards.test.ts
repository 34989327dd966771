import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { get as httpGet } from 'node:http'
import { describe, it } from 'node:test'
import type { Client } from './helpers/client.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { holdBack } from './helpers/held.ts'
import { eventually } from './helpers/eventually.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { blobFiles, graceOf, plant, stored } from './helpers/rows.ts'

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE
const VALUES = { small: 's'.repeat(100), large: 'l'.repeat(100_000) }

/** The node's next write waits, looked at and not done, until it is let go. */
function holdNextCommit({ running: { deps } }: TestNode) {
  const { batch } = deps.database
  const reached = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  deps.database.batch = async (...given) => {
    deps.database.batch = batch
    reached.resolve()
    await released.promise
    return batch(...given)
  }
  return { reached: reached.promise, release: () => released.resolve() }
}

/** Begins `request`, lets `meanwhile` happen between its look and its write; answers its answer. */
async function race(
  node: TestNode,
  request: () => Promise<Response>,
  meanwhile: () => Promise<unknown>,
): Promise<Response> {
  const held = holdNextCommit(node)
  const answer = request()
  await held.reached
  await meanwhile()
  held.release()
  return answer
}

/** A store of ana's that ben may write, and ben's upload to it, begun and held back. */
async function sharedUpload(node: TestNode, value: string) {
  const ana = await node.signUp('ana')
  const ben = await node.signUp('ben')
  const { key, token } = await ana.save('shared', 'of ana')
  await expectStatus(await ana.grant('shared', 'ben', 'WRITE'), 200)
  const upload = await holdBack(node.url, ben, { key, value, headers: { 'X-Sync-Token': token } })
  return { ana, ben, upload }
}

const expectUntouched = async (ana: Client): Promise<void> =>
  assert.equal(await (await ana.get('shared')).text(), 'of ana')

for (const [size, value] of Object.entries(VALUES)) {
  describe(`A ${size} upload, at its commit`, () => {
    it('loses to another that had the same token', async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const { token } = await ana.save('a', 'first')
      const wanted = { key: 'a', value, headers: { 'X-Sync-Token': token } }
      const [one, two] = [
        await holdBack(node.url, ana, wanted),
        await holdBack(node.url, ana, wanted),
      ]
      const won = await one.finish()
      assert.equal(won.status, 204)
      const lost = await two.finish()
      assert.deepEqual([lost.status, lost.code], [412, 'KEY01'])
      assert.equal(lost.headers['x-sync-token'], won.headers['x-sync-token'])
    })

    it('loses to another that made the same store', async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      const [one, two] = [
        await holdBack(node.url, ana, { key: 'a', value }),
        await holdBack(node.url, ana, { key: 'a', value: value.toUpperCase() }),
      ]
      assert.equal((await one.finish()).status, 201)
      const lost = await two.finish()
      assert.deepEqual([lost.status, lost.code], [428, 'KEY01'])
      assert.equal(await (await ana.get('a')).text(), value)
      await eventually(() => blobFiles(node).length <= 1, true)
    })

    it('is refused when the permission was lowered meanwhile', async (t) => {
      const node = await startNode(t)
      const { ana, upload } = await sharedUpload(node, value)
      await expectStatus(await ana.grant('shared', 'ben', 'READ'), 200)
      const { status, code } = await upload.finish()
      assert.deepEqual([status, code], [403, 'PERM01'])
      await expectUntouched(ana)
      await eventually(() => blobFiles(node), [])
    })

    it('finds no store when the permission was revoked meanwhile', async (t) => {
      const node = await startNode(t)
      const { ana, upload } = await sharedUpload(node, value)
      await expectStatus(await ana.revoke('shared', 'ben'), 204)
      const { status, code } = await upload.finish()
      assert.deepEqual([status, code], [404, 'ERR01'])
      await expectUntouched(ana)
    })

    it('is refused when its session ended meanwhile', async (t) => {
      const node = await startNode(t)
      const { ana, ben, upload } = await sharedUpload(node, value)
      await expectStatus(await ben.request('/auth', { method: 'DELETE' }), 204)
      const { status, code } = await upload.finish()
      assert.deepEqual([status, code], [401, 'AUTH01'])
      await expectUntouched(ana)
    })

    it('is refused when its session expired meanwhile', async (t) => {
      const node = await startNode(t)
      const { upload } = await sharedUpload(node, value)
      node.advance(91 * DAY)
      const { status, code } = await upload.finish()
      assert.deepEqual([status, code], [401, 'AUTH01'])
      await expectUntouched(await node.logIn('ana'))
    })

    it('makes no store when its session or account ended meanwhile', async (t) => {
      const node = await startNode(t)
      const ana = await node.signUp('ana')
      for (const path of ['/auth', '/account']) {
        const self = await node.logIn('ana')
        const upload = await holdBack(node.url, self, { key: 'new', value })
        await expectStatus(await self.request(path, { method: 'DELETE' }), 204)
        const { status, code } = await upload.finish()
        assert.deepEqual([status, code], [401, 'AUTH01'])
        if (path === '/auth') await expectProblem(await ana.get('new'), 'ERR01', 404)
      }
      await eventually(() => blobFiles(node), [])
    })
  })
}

describe('The quota, at the commit', () => {
  it('is not passed by two uploads that each would have fitted', async (t) => {
    const node = await startNode(t, { QUOTA: '150000' })
    const ana = await node.signUp('ana')
    const uploads = []
    for (const key of ['a', 'b']) {
      uploads.push(await holdBack(node.url, ana, { key, value: VALUES.large }))
    }
    const answers = []
    for (const upload of uploads) answers.push(await upload.finish())
    assert.deepEqual(
      answers.map(({ status, code }) => [status, code]),
      [
        [201, undefined],
        [507, 'SIZE02'],
      ],
    )
    await eventually(() => blobFiles(node).length, 1)
  })

  it('is not passed by two that replace', async (t) => {
    const node = await startNode(t, { QUOTA: '150000' })
    const ana = await node.signUp('ana')
    const uploads = []
    for (const key of ['a', 'b']) {
      const { token } = await ana.save(key, 'short')
      const headers = { 'X-Sync-Token': token }
      uploads.push(await holdBack(node.url, ana, { key, value: VALUES.large, headers }))
    }
    const answers = []
    for (const upload of uploads) answers.push(await upload.finish())
    assert.deepEqual(
      answers.map(({ status, code }) => [status, code]),
      [
        [204, undefined],
        [507, 'SIZE02'],
      ],
    )
    assert.equal(await (await ana.get('b')).text(), 'short')
  })
})

describe('A deletion, at its commit', () => {
  it('loses to a write of another version', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const { token } = await ana.save('a', 'one')
    const refused = await race(
      node,
      () => ana.delete('a', token),
      () => ana.save('a', 'two', { 'X-Sync-Token': token }),
    )
    await expectProblem(refused, 'KEY01', 412)
    assert.equal(await (await ana.get('a')).text(), 'two')
  })

  it('is refused when OWN or the session was taken meanwhile', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const ben = await node.signUp('ben')
    const { key, token } = await ana.save('shared', 'of ana')
    await expectStatus(await ana.grant('shared', 'ben', 'OWN'), 200)
    const lowered = await race(
      node,
      () => ben.delete(key, token),
      () => ana.grant('shared', 'ben', 'WRITE'),
    )
    await expectProblem(lowered, 'PERM01', 403)
    await expectStatus(await ana.grant('shared', 'ben', 'OWN'), 200)
    const loggedOut = await race(
      node,
      () => ben.delete(key, token),
      () => ben.request('/auth', { method: 'DELETE' }),
    )
    await expectProblem(loggedOut, 'AUTH01', 401)
    await expectUntouched(ana)
  })
})

describe('A grant or a revocation, at its commit', () => {
  it('is refused when OWN or the session was taken meanwhile', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const ben = await node.signUp('ben')
    await node.signUp('cem')
    const { key } = await ana.save('shared', 'of ana')
    for (const change of [() => ben.grant(key, 'cem', 'OWN'), () => ben.revoke(key, 'ana')]) {
      await expectStatus(await ana.grant('shared', 'ben', 'OWN'), 200)
      const refused = await race(node, change, () => ana.grant('shared', 'ben', 'WRITE'))
      await expectProblem(refused, 'PERM01', 403)
    }
    await expectStatus(await ana.grant('shared', 'ben', 'OWN'), 200)
    const loggedOut = await race(
      node,
      () => ben.grant(key, 'cem', 'OWN'),
      () => ben.request('/auth', { method: 'DELETE' }),
    )
    await expectProblem(loggedOut, 'AUTH01', 401)
  })

  it('leaves an OWN when two that OWN leave at once', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const ben = await node.signUp('ben')
    const { key } = await ana.save('shared', 'of ana')
    await expectStatus(await ana.grant('shared', 'ben', 'OWN'), 200)
    const refused = await race(
      node,
      () => ben.revoke(key, 'ben'),
      () => ana.revoke(key, 'ana'),
    )
    await expectProblem(refused, 'PERM02', 409)
    assert.equal(await (await ben.get(key)).text(), 'of ana')
  })
})

describe('A superseded file', () => {
  it('stays for those who are about to read it, and goes after that', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const { token } = await ana.save('a', VALUES.large)
    const [first = ''] = blobFiles(node)
    await ana.save('a', VALUES.large, { 'X-Sync-Token': token })
    await node.running.housekeep()
    assert.ok(blobFiles(node).includes(first))
    node.advance(graceOf(node))
    await node.running.housekeep()
    await node.running.housekeep()
    assert.deepEqual([blobFiles(node).length, blobFiles(node).includes(first)], [1, false])
    assert.equal(await (await ana.get('a')).text(), VALUES.large)
  })
})

/** Changes one byte of the node's only file. */
function damageFile(node: TestNode): void {
  const [name = ''] = blobFiles(node)
  const value = stored(node, name)
  const bytes = Buffer.from(value.read())
  bytes[1000] = (bytes[1000] as number) ^ 1
  value.write(bytes)
}

/** The bytes of a value as they came, and whether all of them did. */
function readRaw(url: string, { headers }: Client, key: string) {
  return new Promise<{ bytes: number; isWhole: boolean }>((resolve, reject) => {
    const reading = httpGet(`${url}/store/${key}`, { headers, agent: false }, (incoming) => {
      let bytes = 0
      incoming.on('data', (chunk: Buffer) => (bytes += chunk.length))
      incoming.on('error', () => undefined)
      incoming.once('close', () => resolve({ bytes, isWhole: incoming.complete }))
    })
    reading.once('error', reject)
  })
}

describe('A damaged value', () => {
  it('that is small is not sent', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', 'value')
    await plant(node, "UPDATE store_data SET value = CAST('vAlue' AS BLOB)")
    await expectProblem(await ana.get('a'), 'ERR02', 500)
  })

  it('that is large is cut short, then not sent at all', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const size = 4 * 65_536
    await ana.save('a', randomBytes(size))
    damageFile(node)
    const { bytes, isWhole } = await readRaw(node.url, ana, 'a')
    assert.equal(isWhole, false)
    assert.ok(bytes < size, 'all of the damaged value was sent')
    await expectProblem(await ana.get('a'), 'ERR02', 500)
  })

  it('is cut short by 64 KiB, whatever its size', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const size = 4 * 65_536 + 1
    await ana.save('a', randomBytes(size))
    damageFile(node)
    const { bytes } = await readRaw(node.url, ana, 'a')
    assert.ok(bytes <= size - 65_536, `${size - bytes} bytes were held back`)
  })
})
