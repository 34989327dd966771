// Owns the look at what feeds tell while histories are played: nothing lost, doubled or out of order.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import type { Opened } from '../helpers/remote.ts'
import type { Operation } from './model.ts'
import type { Played } from './play.ts'

interface Entry {
  key: string
  deleted?: boolean
  permission?: string
  token?: string
}

interface Page {
  cursor: string
  more: boolean
  changes: Entry[]
}

export interface Watch {
  /** Reads what is left; answers what was wrong. */
  end(played: Played): Promise<string[]>
  /** How many streams were broken off and went on to tell what came next. */
  resumed(): number
}

const AGAIN_MS = 50

/** Follows the feed of a person by event streams, whatever happens to them. */
export function watch(url: string, { token }: Opened, isOwner: boolean): Watch {
  const told: Entry[] = []
  const stopped = new AbortController()
  let cursor = ''
  let isResuming = false
  let resumed = 0
  const headers = { Authorization: `Bearer ${token}` }
  const reading = readOn()

  async function readOn(): Promise<void> {
    while (!stopped.signal.aborted) {
      try {
        await readStream()
      } catch {
        await pause(AGAIN_MS)
      }
    }
  }

  async function readStream(): Promise<void> {
    const { body, ok } = await fetch(`${url}/changes`, {
      headers: {
        ...headers,
        Accept: 'text/event-stream',
        ...(cursor !== '' && { 'Last-Event-ID': cursor }),
      },
      signal: stopped.signal,
    })
    if (!ok || body === null) throw new Error('no stream')
    isResuming = cursor !== ''
    let text = ''
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      const blocks = (text + chunk).split('\n\n')
      text = blocks.pop() as string
      for (const block of blocks) take(block)
    }
  }

  function take(block: string): void {
    const fields = new Map(block.split('\n').map((line) => line.split(': ', 2) as [string, string]))
    if (fields.get('event') !== 'change') return
    if (isResuming) resumed++
    isResuming = false
    told.push(JSON.parse(block.slice(block.indexOf('data: ') + 6)) as Entry)
    cursor = fields.get('id') as string
  }

  async function readAll(since: string): Promise<Entry[]> {
    const all: Entry[] = []
    for (let page: Page | undefined; page?.more !== false;) {
      const from = page?.cursor ?? since
      const response = await fetch(`${url}/changes${from === '' ? '' : `?since=${from}`}`, {
        headers,
      })
      assert.equal(response.status, 200, 'a feed can be read on')
      page = (await response.json()) as Page
      all.push(...page.changes)
    }
    return all
  }

  return {
    resumed: () => resumed,
    async end(played) {
      stopped.abort()
      await reading
      told.push(...(await readAll(cursor)))
      return [
        ...lost(told, await readAll('')),
        ...(isOwner ? doubled(told) : []),
        ...reordered(told, played),
      ]
    },
  }
}

const MUCH = 3

function lost(told: Entry[], now: Entry[]): string[] {
  const state = new Map<string, string>()
  for (const { key, deleted, token, permission } of told) {
    if (deleted === true) state.delete(key)
    else state.set(key, `${token} ${permission}`)
  }
  const fresh = new Map(now.map(({ key, token, permission }) => [key, `${token} ${permission}`]))
  const different = [...new Set([...state.keys(), ...fresh.keys()])].filter(
    (key) => state.get(key) !== fresh.get(key),
  )
  return different
    .slice(0, MUCH)
    .map((key) => `a feed told ${state.get(key)}, now it is ${fresh.get(key)}`)
}

/** Who OWNs a store is told of each of its values once. */
function doubled(told: Entry[]): string[] {
  const seen = new Set<string>()
  const twice = told.filter(({ token }) => {
    if (token === undefined) return false
    const isTwice = seen.has(token)
    seen.add(token)
    return isTwice
  })
  return twice.slice(0, MUCH).map(({ token }) => `${token} was told twice`)
}

/** A value may not be told after one whose write began when its own had been answered. */
function reordered(told: Entry[], { histories, valueOf }: Played): string[] {
  const writes = new Map<string, Operation>()
  for (const operation of [...histories.values()].flat()) {
    if (operation.kind === 'write') writes.set(operation.writes as string, operation)
  }
  const latest = new Map<string, number>()
  const faults: string[] = []
  for (const { key, token = '' } of told) {
    const write = writes.get(valueOf.get(token) ?? '')
    if (write === undefined) continue
    const after = latest.get(key) ?? 0
    if (write.answered < after) faults.push(`${token} was told after a later one`)
    latest.set(key, Math.max(after, write.call))
  }
  return faults.slice(0, MUCH)
}
