// Owns values of 100 MB: down and up by curl, everybody in turn, beside dd.
import { execFile } from 'node:child_process'
import { hash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Bench } from './bench.ts'
import { PEERS, SYNC_NODE, openSyncNode, type Request, type Running } from './peers.ts'
import { settleDisk } from './process.ts'
import { atLeast, figure, type Result } from './report.ts'
import { folderOf, send } from './small.ts'

const BYTES = 100_000_000
const MB = 1e6
const DD = 'dd conv=fsync'
// Only a database of its own has no such values.
const ABLE = PEERS.filter(({ name }) => name !== 'sqld')

const run = promisify(execFile)

export async function measureLarge(bench: Bench): Promise<Result[]> {
  const value = randomBytes(BYTES)
  const source = join(bench.folder, 'large')
  writeFileSync(source, value)
  const all = new Map<string, Running>()
  all.set(SYNC_NODE, await openSyncNode(folderOf(bench, 'large-sync-node')))
  for (const { name, start } of ABLE) {
    try {
      all.set(name, await start(folderOf(bench, `large-${name}`)))
    } catch (error) {
      bench.missing(name, (error as Error).message)
    }
  }
  for (const [name, peer] of all) {
    try {
      await check(peer, value, source)
    } catch (error) {
      bench.missing(`${name}, 100 MB`, (error as Error).message)
      await peer.stop()
      all.delete(name)
    }
  }
  const downs = rounds([...all.keys()])
  const ups = rounds([...all.keys(), DD])
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, peer] of all) {
      downs.get(name)?.push(await curl(peer, peer.read('large')))
      settleDisk(bench.folder)
      ups.get(name)?.push(await curl(peer, upload(peer), source))
      settleDisk(bench.folder)
    }
    ups.get(DD)?.push(await dd(source, join(bench.folder, 'dd')))
  }
  for (const peer of all.values()) await peer.stop()
  const [down, up] = [downs, ups].map((each) => ({
    figures: [...each].map(([name, found]) => figure(name, found)),
    unit: 'MB a second',
  })) as [Pick<Result, 'figures' | 'unit'>, Pick<Result, 'figures' | 'unit'>]
  return [
    {
      work: '100 MB down, digest checked',
      ...down,
      targets: [atLeast(down, 0.3, [SYNC_NODE, 'nginx DAV'])],
    },
    {
      work: '100 MB up, hashed and synced',
      ...up,
      targets: [atLeast(up, 0.25, [SYNC_NODE, DD])],
    },
  ]
}

const rounds = (names: string[]): Map<string, number[]> =>
  new Map(names.map((name): [string, number[]] => [name, []]))

function upload(peer: Running): Request {
  const { headers, ...request } = peer.write('large', Buffer.alloc(0))
  return { ...request, headers: { ...headers, 'X-Sync-Token': '*' } }
}

async function check(peer: Running, value: Buffer, source: string): Promise<void> {
  await curl(peer, peer.write('large', Buffer.alloc(0)), source)
  const answer = await send(peer, peer.read('large'))
  const digest = hash('sha256', Buffer.from(await answer.arrayBuffer()))
  if (digest !== hash('sha256', value)) throw new Error('other bytes came back')
}

/** Answers MB a second. */
async function curl({ url }: Running, { path, headers }: Request, file?: string): Promise<number> {
  const what = file === undefined ? ['-o', '/dev/null'] : ['-T', file, '-H', 'Expect:']
  const all = Object.entries(headers).flatMap(([name, text]) => ['-H', `${name}: ${text}`])
  const told = '\n%{http_code} %{time_total} %{size_download}'
  const { stdout } = await run('curl', ['-s', '-m', '60', '-w', told, ...all, ...what, url + path])
  const [status = '', seconds, size] = stdout.split('\n').at(-1)?.split(' ') ?? []
  if (!status.startsWith('2')) throw new Error(`answered ${status}`)
  if (file === undefined && Number(size) !== BYTES) throw new Error(`${size} bytes came`)
  return BYTES / MB / Number(seconds)
}

async function dd(source: string, target: string): Promise<number> {
  const env = { ...process.env, LC_ALL: 'C' }
  const { stderr } = await run('dd', [`if=${source}`, `of=${target}`, 'bs=1M', 'conv=fsync'], {
    env,
  })
  return BYTES / MB / Number(/copied, ([\d.]+) s/.exec(stderr)?.[1])
}
