import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Client } from './helpers/client.ts'
import { eventually } from './helpers/eventually.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode } from './helpers/node.ts'
import { openWire, type Wire } from './helpers/wire.ts'

const run = (client: Client, operations: unknown): Promise<Response> =>
  client.request('/batch', { method: 'POST', body: JSON.stringify({ operations }) })

interface Failed {
  index: number
  code: string
  token?: string
  digest?: string
  meta?: string
}

async function expectFailed(response: Response, code: string, status?: number): Promise<Failed[]> {
  return (await expectProblem(response, code, status))['failed'] as Failed[]
}

describe('POST /batch', () => {
  it('creates, replaces, deletes and checks, all in one', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const [old, gone, seen] = [
      await ana.save('old', '1'),
      await ana.save('gone', '2'),
      await ana.save('seen', '3'),
    ]
    const response = await run(ana, [
      { put: 'new', token: null, data: btoa('n'), meta: 'm' },
      { put: 'old', token: old.token, data: btoa('o') },
      { delete: 'gone', token: gone.token },
      { check: 'seen', token: seen.token },
      { check: 'absent', token: null },
    ])
    const { results } = (await (await expectStatus(response, 200)).json()) as {
      results: { key: string; token?: string }[]
    }
    assert.deepEqual(results.map(({ key }) => key).slice(1, 4), [old.key, gone.key, seen.key])
    assert.equal(results[3]?.token, seen.token)
    const created = await ana.get('new')
    assert.equal(created.headers.get('x-sync-token'), results[0]?.token)
    assert.equal(created.headers.get('x-sync-meta'), 'm')
    assert.equal(await (await ana.get('old')).text(), 'o')
    assert.equal((await ana.get('gone')).status, 404)
  })

  it('does nothing when one cannot be done, and names them all', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const a = await ana.save('a', 'x', { 'X-Sync-Meta': 'm' })
    const twice = [
      { put: 'a', token: a.token, data: '' },
      { check: a.key, token: '*' },
    ]
    await expectProblem(await run(ana, twice), 'REQ01', 400)
    const names = await expectFailed(
      await run(ana, [
        { put: 'b', data: '' },
        { put: 'a', data: '' },
        { delete: 'absent', token: '*' },
        { put: 'c', token: '*', data: '' },
      ]),
      'KEY01',
      428,
    )
    assert.deepEqual(
      names.map(({ index, code, token, meta }) => [index, code, token, meta]),
      [
        [1, 'KEY01', a.token, 'm'],
        [2, 'ERR01', undefined, undefined],
        [3, 'KEY01', undefined, undefined],
      ],
    )
    assert.match(names[0]?.digest as string, /^sha-256=:.+:$/)
    assert.deepEqual(
      (await ana.list()).map(({ key }) => key),
      [a.key],
    )
  })

  it('asks for the permission that each operation needs', async (t) => {
    const node = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    const { key } = await ana.save('shared', 'x')
    for (const [permission, put, remove, check] of [
      [undefined, 'ERR01', 'ERR01', 'ERR01'],
      ['READ', 'PERM01', 'PERM01', undefined],
      ['WRITE', undefined, 'PERM01', undefined],
      ['OWN', undefined, undefined, undefined],
    ] as const) {
      if (permission !== undefined) await ana.grant('shared', 'bob', permission)
      for (const [operation, code] of [
        [{ put: key, token: '*', data: '' }, put],
        [{ check: key, token: '*' }, check],
        [{ delete: key, token: '*' }, remove],
      ] as const) {
        const response = await run(bob, [operation])
        if (code === undefined) await expectStatus(response, 200)
        else await expectFailed(response, code)
      }
    }
  })

  it('makes nothing under a lost name, and nothing under a foreign store key', async (t) => {
    const node = await startNode(t)
    const [ana, bob] = [await node.signUp('ana'), await node.signUp('bob')]
    const { key } = await ana.save('mine', 'x')
    await ana.grant('mine', 'bob', 'OWN')
    await bob.revoke(key, 'ana')
    for (const operation of [
      { put: 'mine', token: null, data: '' },
      { put: key, token: null, data: '' },
      { check: 'mine', token: null },
      { delete: 'mine', token: '*' },
      { put: `~${'A'.repeat(43)}`, token: null, data: '' },
    ]) {
      await expectFailed(await run(ana, [operation]), 'ERR01', 404)
    }
  })

  it('holds the limits', async (t) => {
    const node = await startNode(t, { QUOTA: '30000' })
    const ana = await node.signUp('ana')
    const large = 'A'.repeat(21_848)
    const [first] = await expectFailed(await run(ana, [{ put: 'a', data: large }]), 'SIZE01', 413)
    assert.equal(first?.index, 0)
    const many = Array.from({ length: 1001 }, (_, i) => ({ put: `k${i}`, data: '' }))
    await expectProblem(await run(ana, many), 'SIZE01', 413)
    await expectStatus(await run(ana, many.slice(1)), 200)
    const half = 'A'.repeat(16_000)
    const full = [0, 1, 2].map((i) => ({ put: `f${i}`, data: half }))
    const [over] = await expectFailed(await run(ana, full), 'SIZE02', 507)
    assert.equal(over?.index, 2)
    assert.equal((await ana.get('f0')).status, 404)
  })

  it('refuses what is malformed', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const operations of [
      [{ put: 'a', data: 'x' }],
      [{ put: 'a', data: '', extra: 1 }],
      [{ delete: 'a' }],
      [{ check: 'a' }],
      [{ put: 'a/../b', data: '' }],
      [{ put: '\ud800', data: '' }],
      [{ put: 'a', data: '', token: 'NOT' }],
      [{ put: 'a', data: '', meta: 'é' }],
      [{ put: 'a', data: '', meta: ' blanks are lost in a header' }],
      [{ put: 'a', data: '', meta: 'blanks are lost in a header ' }],
      [{ put: 'a', data: '', meta: 'm'.repeat(8001) }],
      [{ put: 'a', delete: 'a', token: '*', data: '' }],
      'x',
    ]) {
      await expectProblem(await run(ana, operations), 'REQ01', 400)
    }
    await expectStatus(await run(ana, []), 200)
    await ana.save('a', 'x')
    for (const meta of ['', 'm', 'a b', 'm'.repeat(8000)]) {
      await expectStatus(await run(ana, [{ put: 'a', token: '*', data: '', meta }]), 200)
      assert.equal((await ana.get('a')).headers.get('x-sync-meta'), meta)
    }
  })

  it('answers what the caller uses then', async (t) => {
    const node = await startNode(t, { QUOTA: '1000' })
    const ana = await node.signUp('ana')
    await ana.save('a', 'x'.repeat(10))
    const answer = await run(ana, [
      { put: 'b', data: btoa('x'.repeat(20)) },
      { delete: 'a', token: '*' },
    ])
    assert.equal(answer.headers.get('x-sync-quota-used'), '20')
    assert.equal(answer.headers.get('x-sync-quota-limit'), '1000')
  })

  it('happens once, however many race', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const [a, b] = [await ana.save('a', '0'), await ana.save('b', '0')]
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        run(ana, [
          { put: 'a', token: a.token, data: btoa(`${i}`) },
          { put: 'b', token: b.token, data: btoa(`${i}`) },
        ]),
      ),
    )
    assert.deepEqual(
      answers.map(({ status }) => status).toSorted((a, b) => a - b),
      [200, 412, 412, 412, 412, 412, 412, 412],
    )
    assert.equal(await (await ana.get('a')).text(), await (await ana.get('b')).text())
  })

  it('refuses what is far too large as too large, and what is no base64 as that', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    for (const [data, code, status] of [
      ['A'.repeat(5 * 1024 * 1024), 'SIZE01', 413],
      ['!'.repeat(5 * 1024 * 1024), 'REQ01', 400],
      ['AAA', 'REQ01', 400],
      ['A===', 'REQ01', 400],
      ['AA=A', 'REQ01', 400],
      ['A-_A', 'REQ01', 400],
    ] as const) {
      await expectProblem(await run(ana, [{ put: 'a', data }]), code, status)
    }
    await expectStatus(await run(ana, [{ put: 'a', data: '' }]), 200)
  })

  it('refuses millions of parts before it makes anything of them', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const post = (body: string): Promise<Response> =>
      ana.request('/batch', { method: 'POST', body })
    for (const operations of ['[],'.repeat(40_000), '['.repeat(80_000), '1,'.repeat(40_000)]) {
      await expectProblem(await post(`{"operations":[${operations}`), 'SIZE01', 413)
    }
    // Within a string they are none.
    const meta = '[{,\\'.repeat(1000)
    const many = Array.from({ length: 100 }, (_, i) => ({ put: `k ${i}`, meta, data: '' }))
    await expectStatus(await run(ana, many), 200)
  })

  it('receives eight large ones at once for an account', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const head = `POST /batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${ana.token}\r\nContent-Length: 100000\r\n\r\n`
    const wires = []
    for (let i = 0; i < 8; i++) {
      const wire = await openWire(t, node.port)
      wire.send(head, '{')
      wires.push(wire)
    }
    const body = JSON.stringify({ operations: [], pad: 'x'.repeat(70_000) })
    const large = (): Promise<Response> => ana.request('/batch', { method: 'POST', body })
    await eventually(async () => (await large()).status, 429)
    await expectStatus(await run(ana, [{ put: 'small', data: '' }]), 200)
    for (const { socket } of wires) socket.destroy()
    await eventually(async () => (await large()).status, 400)
  })

  it('of many megabytes each wait for one another, and for nobody who sends nothing', async (t) => {
    const node = await startNode(t)
    const people = await Promise.all(['ana', 'ben', 'cara'].map((id) => node.signUp(id)))
    const size = 7_900_000
    const wires: Wire[] = []
    for (const { token } of people) {
      for (let i = 0; i < 4; i++) {
        const wire = await openWire(t, node.port)
        wire.send(
          `POST /batch HTTP/1.1\r\nHost: sync.example\r\nAuthorization: Bearer ${token}\r\n`,
          `Expect: 100-continue\r\nContent-Length: ${size}\r\n\r\n`,
        )
        wires.push(wire)
      }
    }
    // Twelve ask for what seven fit into.
    const asked = await Promise.all(wires.slice(0, 7).map((wire) => wire.answer()))
    assert.deepEqual(
      asked.map((answer) => answer?.status),
      Array<number>(7).fill(100),
    )
    // The first of them sends nothing, and makes way.
    assert.equal((await wires[0]?.answer())?.status, 503)
    assert.equal((await wires[7]?.answer())?.status, 100)
    await expectStatus(await run(people[0] as Client, []), 200)
  })
})
