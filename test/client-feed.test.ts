import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { eventParser } from '../src/client/events.ts'
import { connect, passphraseCodec } from '../src/client/client.ts'
import type { Client, ConnectOptions, FeedEvent, FeedOptions } from '../src/client/client.ts'
import { eventually } from './helpers/eventually.ts'
import { network } from './helpers/network.ts'
import { PASSWORD, startNode } from './helpers/node.ts'

async function start(t: TestContext, o: Partial<ConnectOptions> = {}) {
  const node = await startNode(t)
  const net = network()
  // The port of a restarted node is another.
  const moving: typeof fetch = (input, init) => {
    const { pathname, search } = new URL(String(input))
    return net.fetch(node.url + pathname + search, init)
  }
  const options = { url: node.url, fetch: moving, retry: { baseMs: 1 }, ...o }
  const client = connect(options)
  await client.register({ id: 'ana', password: PASSWORD })
  return { node, net, client, options }
}

const isStream = (init: RequestInit | undefined): boolean =>
  new Headers(init?.headers).get('accept') === 'text/event-stream'

/** The names that a feed tells of; its other events by type. */
const toWord = (event: FeedEvent): string => {
  if (event.type !== 'change') return event.type
  return 'deleted' in event.change ? 'deleted' : (event.change.name ?? '?')
}

async function read(client: Client, o?: FeedOptions) {
  const words: string[] = []
  const cursors: (string | null)[] = []
  for await (const event of client.changes(o)) {
    words.push(toWord(event))
    if (event.type !== 'reset') cursors.push(event.cursor)
  }
  return { words, cursors, cursor: cursors.at(-1) as string }
}

/** A feed that is followed: takes events until one is `word`. */
function follow(t: TestContext, client: Client, o: FeedOptions = {}) {
  const controller = new AbortController()
  t.after(() => controller.abort())
  const feed = client.changes({ live: true, signal: controller.signal, ...o })
  const events = feed[Symbol.asyncIterator]()
  return {
    events,
    async until(word: string): Promise<string[]> {
      const words: string[] = []
      while (words.at(-1) !== word) {
        const { value, done } = await events.next()
        if (done === true) throw new Error(`ended after ${words.join()}`)
        words.push(toWord(value as FeedEvent))
      }
      return words
    },
  }
}

describe('The client: changes()', () => {
  it('reads everything in pages, then only what changed', async (t) => {
    const { client } = await start(t)
    const names = Array.from({ length: 1100 }, (_, i) => `n${i}`)
    const operations = names.map((put) => ({ put, value: put }))
    await client.batch(operations.slice(0, 1000))
    await client.batch(operations.slice(1000))
    const all = await read(client)
    assert.deepEqual(all.words.toSorted(), [...names, 'live'].toSorted())
    // A consumer that keeps each cursor it sees misses nothing of the page that it was in.
    const ofPages = [...new Set(all.cursors)]
    assert.deepEqual(ofPages.length, 4)
    assert.equal(ofPages[0], null)
    assert.equal(all.cursors.indexOf(ofPages[1] as string), 499)
    const rest = await read(client, { since: ofPages[1] as string })
    assert.equal(rest.words.length, 601)
    const { token } = (await client.store('n5').get()) as { token: string }
    await client.store('n5').delete({ token })
    await client.store('n6').put('new', { token: '*' })
    assert.deepEqual((await read(client, { since: all.cursor })).words, ['deleted', 'n6', 'live'])
  })

  for (const stream of [true, false]) {
    it(`follows ${stream ? 'a stream' : 'held polls'} through lost connections and a restart`, async (t) => {
      const { node, net, client } = await start(t, { stream })
      let offline = 0
      const feed = follow(t, client, { includeData: true, onOffline: () => offline++ })
      assert.deepEqual(await feed.until('live'), ['live'])
      const first = feed.until('a')
      await client.store('a').put('1')
      assert.ok((await first).includes('a'))
      const cut = feed.until('b')
      net.cut()
      net.mend()
      await client.store('b').put('2')
      assert.ok((await cut).includes('b'))
      const restarted = feed.until('c')
      await node.restart()
      await client.store('c').put('3')
      assert.deepEqual(
        (await restarted).filter((word) => word !== 'live'),
        ['c'],
      )
      assert.ok(offline > 0)
      assert.equal(
        net.asked.some((one) => one.includes('wait=')),
        !stream,
      )
    })

    it(`says reset for a cursor that is unknown, and begins anew, with ${stream ? 'a stream' : 'polls'}`, async (t) => {
      const { client } = await start(t, { stream })
      await client.store('a').put('1')
      const feed = follow(t, client, { since: '0'.repeat(26) })
      assert.deepEqual(await feed.until('live'), ['reset', 'a', 'live'])
    })
  }

  for (const [what, body] of [
    ['no body', null],
    ['a body of another kind', Readable.from([])],
  ] as const) {
    it(`polls where fetch answers ${what} for a stream`, async (t) => {
      let streams = 0
      let offline = 0
      const net = network()
      const { client } = await start(t, {
        fetch: async (input, init) => {
          if (!isStream(init)) return net.fetch(input, init)
          streams++
          return { ok: true, status: 200, headers: new Headers(), body } as unknown as Response
        },
      })
      const feed = follow(t, client, { onOffline: () => offline++ })
      await feed.until('live')
      for (const name of ['a', 'b']) {
        const next = feed.until(name)
        await client.store(name).put('1')
        await next
      }
      assert.deepEqual([streams, offline], [1, 0])
      assert.ok(net.asked.some((one) => one.includes('wait=')))
    })
  }

  it('tries a stream again some time after one whose first bytes were held back', async (t) => {
    let offline = 0
    const streams: string[] = []
    const { client } = await start(t, {
      fetch: (input, init) => {
        if (!isStream(init)) return fetch(input, init)
        streams.push(streams.length === 0 ? 'held back' : 'open')
        if (streams.length > 1) return fetch(input, init)
        return new Promise((_, reject) => {
          init?.signal?.addEventListener('abort', () => reject(new TypeError('aborted')))
        })
      },
    })
    const feed = follow(t, client, { onOffline: () => offline++ })
    await feed.until('live')
    for (let i = 0; streams.length < 2; i++) {
      assert.ok(i < 100, 'no second stream')
      const next = feed.until(`n${i}`)
      await client.store(`n${i}`).put('1')
      await next
    }
    assert.equal(offline, 0)
  })

  it('does not take the time of its reader for silence of the server', async (t) => {
    const { client } = await start(t)
    const running = new Set<unknown>()
    const { setTimeout: begin, clearTimeout: end } = globalThis
    t.mock.method(globalThis, 'setTimeout', (work: () => void, ms: number) => {
      const timer = begin(work, ms)
      if (ms === 50_000) running.add(timer)
      return timer
    })
    t.mock.method(globalThis, 'clearTimeout', (timer: NodeJS.Timeout) => {
      running.delete(timer)
      end(timer)
    })
    const feed = follow(t, client)
    await feed.until('live')
    const next = feed.until('a')
    await client.store('a').put('1')
    await next
    assert.equal(running.size, 0)
    const another = feed.until('b')
    await eventually(() => running.size, 1)
    await client.store('b').put('1')
    await another
  })

  it('brings small values along, decoded', async (t) => {
    const codec = passphraseCodec('secret', { salt: 'ana', iterations: 1 })
    const { client, options } = await start(t, { codec })
    await client.store('small').put('1')
    await client.store('large').put(new Uint8Array(20_000))
    const values: Record<string, number | undefined> = {}
    for await (const event of client.changes({ includeData: true })) {
      if (event.type !== 'change' || 'deleted' in event.change) continue
      values[event.change.name ?? ''] = event.change.value?.length
    }
    assert.deepEqual(values, { small: 1, large: undefined })
    const blind = connect({
      ...options,
      token: client.token,
      codec: { ...codec, decode: (b) => b },
    })
    assert.deepEqual((await read(blind)).words, ['?', '?', 'live'])
  })

  it('ends with its session, and asks for another one first', async (t) => {
    const { node, client, options } = await start(t)
    const phone = connect(options)
    await phone.login({ id: 'ana', password: PASSWORD, device: 'phone' })
    const feed = follow(t, phone)
    await feed.until('live')
    const ended = assert.rejects(feed.until('never'), { code: 'AUTH01' })
    const { token } = (await client.sessions()).find((one) => one.device === 'phone') as {
      token: string
    }
    await client.endSession(token)
    // What makes the stream look: the session is checked before anything is told.
    await client.store('a').put('1')
    await ended
    assert.equal(node.fatal.length, 0)
  })

  it('ends by signal, and when nobody reads on', async (t) => {
    const { client } = await start(t)
    await client.store('a').put('1')
    const controller = new AbortController()
    const feed = follow(t, client, { signal: controller.signal })
    await feed.until('live')
    const next = feed.events.next()
    controller.abort(new Error('enough'))
    await assert.rejects(next, { message: 'enough' })
    for await (const event of client.changes({ live: true })) if (event.type === 'live') break
  })
})

describe('The client: server-sent events', () => {
  it('are read however they are cut into pieces', () => {
    const text =
      'retry: 3000\n\n:\n\nevent: change\r\nid: 1\r\ndata: {"a":1}\r\n\r\nid:2\rdata:x\rdata: y\r\r:c\n\ndata: z\n\nevent: only\n\n'
    const expected = [
      { type: 'change', id: '1', data: '{"a":1}' },
      { type: '', id: '2', data: 'x\ny' },
      { type: '', id: '2', data: 'z' },
    ]
    fc.assert(
      fc.property(fc.array(fc.nat(text.length)), (cuts) => {
        const parse = eventParser()
        const places = [0, ...cuts.toSorted((a, b) => a - b), text.length]
        const events = places.slice(1).flatMap((end, i) => parse(text.slice(places[i], end)))
        assert.deepEqual(events, expected)
      }),
    )
  })
})
