// Proves that a restore brings back all of a backup or leaves nothing that could be taken for data, and
// that clients find out.
import assert from 'node:assert/strict'
import {
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { describe, it, type TestContext } from 'node:test'
import { restore } from '../src/restore.ts'
import {
  backupOf,
  done,
  expectExact,
  expectValues,
  mountSmall,
  refused,
  serveValues,
  unwatched,
} from './helpers/backups.ts'
import { eventually } from './helpers/eventually.ts'
import type { Installation } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { startNode, type TestNode } from './helpers/node.ts'
import { remoteClient, type Opened } from './helpers/remote.ts'
import { converge, openDevice } from './helpers/replicas.ts'

const MIB = 1024 * 1024
const FILE = 'backup.tar.zst'
const UNFINISHED = /A restore into \S+ did not come to its end: do it again\.$/

/** A backup of an account's values, and where it may go. */
async function withBackup(t: TestContext, options?: Parameters<typeof serveValues>[1]) {
  const served = await serveValues(t, options)
  const { here, server } = served
  done(await here.run(['backup', FILE]))
  await server.stop()
  const root = join(here.folder, 'elsewhere')
  const there = { STATIC_ROOT: root }
  return { ...served, root, there, restore: () => here.run(['restore', FILE], there) }
}

/** It serves what was backed up. */
async function expectServed(
  here: Installation,
  root: string,
  { opened, values }: { opened: Opened; values: Map<string, Buffer> },
): Promise<void> {
  const server = await here.serve({ STATIC_ROOT: root })
  await expectValues(remoteClient(server.url, opened), values)
  await server.stop()
  expectExact(root)
}

function modeOf(path: string): [number, number] {
  const { uid, mode } = statSync(path)
  return [uid, mode & 0o777]
}

describe('sync-node restore', () => {
  it('brings back all, with the rights that the server gives', async (t) => {
    const { here, root, restore, ...was } = await withBackup(t)
    const { stderr, stdout, code } = await restore()
    assert.deepEqual([code, stdout], [0, ''], stderr)
    assert.match(
      stderr,
      new RegExp(
        `^Data: ${root}\n1 accounts, 6 stores, 1\\.2 MiB, of 20\\d\\d-.* UTC\nRestored\\. Start the server, `,
      ),
    )
    assert.deepEqual(readdirSync(root).sort(), ['blobs', 'lock', 'secret', 'sync-node.db'])
    for (const name of readdirSync(root, { recursive: true }) as string[]) {
      const { mode } = statSync(join(root, name))
      assert.equal(mode & 0o777, name === 'blobs' ? 0o700 : 0o600, name)
    }
    assert.equal(statSync(root).mode & 0o777, 0o700)
    assert.ok(readFileSync(join(root, 'secret')).equals(readFileSync(join(here.root, 'secret'))))
    await expectServed(here, root, was)
  })

  it('goes into a folder that is empty, but for what a disk has or a lock', async (t) => {
    const { here, root, restore, ...was } = await withBackup(t)
    mkdirSync(join(root, 'lost+found'), { recursive: true })
    writeFileSync(join(root, 'lock'), '')
    done(await restore())
    await expectServed(here, root, was)
  })

  it('goes into no other folder, and changes nothing there', async (t) => {
    const { here, root, restore } = await withBackup(t)
    mkdirSync(root)
    writeFileSync(join(root, 'photo.jpg'), 'a photo')
    assert.match(refused(await restore()), /elsewhere is not empty: set STATIC_ROOT/)
    assert.deepEqual(readdirSync(root), ['photo.jpg'])
    const before = readdirSync(here.root)
    assert.match(refused(await here.run(['restore', FILE])), /data is not empty/)
    assert.deepEqual(readdirSync(here.root), before)
  })

  it('takes the place of a server that nobody has an account on, once that is stopped', async (t) => {
    const { here, root, there, restore, ...was } = await withBackup(t)
    const fresh = await here.serve(there)
    assert.match(refused(await restore()), /is in use: stop the server first/)
    await fresh.stop('SIGKILL')
    done(await restore())
    await expectServed(here, root, was)
    rmSync(root, { recursive: true })
    const invited = await here.serve(there)
    done(await here.run(['invite'], there))
    await invited.stop()
    assert.match(refused(await restore()), /is not empty/)
  })

  it('gives the folder to whom it belongs, when root does it', async (t) => {
    if (process.getuid?.() !== 0 && process.env['CI'] === undefined) {
      return t.skip('NOT TESTED: only root can')
    }
    const { here, root, restore } = await withBackup(t)
    const nobody = 65_534
    mkdirSync(root, { mode: 0o700 })
    chownSync(root, nobody, nobody)
    // The way there is open to it, the backup is not.
    chownSync(here.folder, nobody, nobody)
    assert.deepEqual(modeOf(join(here.folder, FILE)), [0, 0o600])
    done(await restore())
    for (const name of readdirSync(root, { recursive: true }) as string[]) {
      const { uid, gid } = statSync(join(root, name))
      assert.deepEqual([uid, gid], [nobody, nobody], name)
    }
  })

  it('is refused where there is no room, and nothing is written', async (t) => {
    const disk = mountSmall(t)
    if (disk === undefined) return
    const { here } = await withBackup(t)
    const there = { STATIC_ROOT: join(disk, 'data') }
    const line = refused(await here.run(['restore', FILE], there))
    assert.match(line, /There is no room on the disk for \S+data: \d+ MiB more are needed\.$/)
    assert.deepEqual(readdirSync(disk), [])
  })

  it('takes a file, since it reads it twice', async (t) => {
    const { here, there, root } = await withBackup(t)
    assert.match(refused(await here.run(['restore', '/dev/null'], there)), /not a file/)
    assert.ok(!existsSync(root))
  })
})

/** Resolves when the restore has got so far. */
const atWork = (root: string, files: number): Promise<void> =>
  eventually(() => {
    const blobs = join(root, 'blobs')
    return (
      existsSync(join(root, 'restoring')) &&
      (files === 0 || (existsSync(blobs) && readdirSync(blobs).length >= files))
    )
  }, true)

describe('A restore that does not come to its end', () => {
  const large = { sizes: [0, ...Array<number>(8).fill(4 * MIB)] }

  it('is no data to any command until it was done again, wherever it was killed', async (t) => {
    const { here, root, there, restore, ...was } = await withBackup(t, large)
    for (const files of [0, 4, 8]) {
      do {
        rmSync(root, { recursive: true, force: true })
        const child = here.launch(['restore', FILE], there)
        await atWork(root, files)
        await child.stop('SIGKILL')
      } while (!existsSync(join(root, 'restoring'))) // it was at its end already
      for (const args of [['serve'], ['account', 'list'], ['backup', 'another']]) {
        assert.match(refused(await here.run(args, there)), UNFINISHED)
      }
      assert.ok(!existsSync(join(here.folder, 'another.part')))
      done(await restore())
      await expectServed(here, root, was)
    }
  })

  for (const isThere of [false, true]) {
    const where = isThere ? 'in a folder that was there' : 'in a folder that it made'
    it(`leaves nothing when it gets a signal, ${where}`, async (t) => {
      const { here, root, there } = await withBackup(t, large)
      if (isThere) mkdirSync(root)
      const child = here.launch(['restore', FILE], there)
      await atWork(root, 1)
      await child.stop('SIGINT')
      const ran = { ...(await child.ended), ...child.output() }
      assert.equal(refused(ran), 'sync-node: Interrupted.')
      if (isThere) assert.deepEqual(readdirSync(root), ['lock'])
      else assert.ok(!existsSync(root))
    })
  }

  it('keeps a server and a second restore away while it runs', async (t) => {
    const { here, root, there, restore } = await withBackup(t, large)
    const child = here.launch(['restore', FILE], there)
    await atWork(root, 1)
    child.signal('SIGSTOP')
    assert.match(refused(await here.run(['serve'], there)), /is in use/)
    assert.match(refused(await restore()), /is in use/)
    child.signal('SIGCONT')
    assert.equal((await child.ended).code, 0)
  })

  it('clears away what was left of it alone', async (t) => {
    const { here, root, restore, ...was } = await withBackup(t)
    mkdirSync(join(root, 'blobs'), { recursive: true })
    for (const name of ['restoring', 'secret', 'restoring.db', 'blobs/1-old']) {
      writeFileSync(join(root, name), 'old')
    }
    writeFileSync(join(root, 'photo.jpg'), 'a photo')
    assert.match(refused(await restore()), /not empty/)
    assert.equal(readdirSync(root).length, 5)
    rmSync(join(root, 'photo.jpg'))
    done(await restore())
    assert.ok(!existsSync(join(root, 'blobs/1-old')))
    await expectServed(here, root, was)
  })
})

/** Takes the node back to a backup, as an operator does with a lost disk. */
async function goBack(node: TestNode, bytes: Uint8Array): Promise<void> {
  await node.stop()
  rmSync(node.root, { recursive: true })
  const read = () => Readable.from([bytes])
  await restore(node.root, { ...unwatched(), read, bytes: bytes.length })
  await node.restart()
}

async function bytesOf(node: TestNode): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  await backupOf(node, async (written) => {
    for await (const chunk of written) chunks.push(chunk)
  })
  return Buffer.concat(chunks)
}

describe('Clients of a server that was restored', () => {
  it('converge on what any of them has, and send again what only they have', async (t) => {
    const node = await startNode(t)
    const phone = await openDevice(t, node)
    await phone.replica.put('edited', 'old')
    await phone.replica.put('same', 'same')
    await phone.replica.put('large', 'x'.repeat(50_000))
    await phone.replica.synced()
    const backup = await bytesOf(node)
    await phone.replica.put('edited', 'old\nnew')
    await phone.replica.put('made', 'since')
    await phone.replica.synced()
    await goBack(node, backup)
    await phone.replica.put('another', 'one')
    const laptop = await openDevice(t, node)
    assert.deepEqual(await converge(phone, laptop), {
      edited: 'old\nnew',
      same: 'same',
      large: 'x'.repeat(50_000),
      made: 'since',
      another: 'one',
    })
  })

  it('are told so by FEED01, whatever is written then; cursors from before go on', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const cursorNow = async (): Promise<string> => {
      const { cursor } = (await (await ana.request('/changes')).json()) as { cursor: string }
      return cursor
    }
    const first = await ana.save('a', '1')
    const before = await cursorNow()
    const backup = await bytesOf(node)
    const later = [await ana.save('a', '2', { 'X-Sync-Token': first.token })]
    const after = await cursorNow()
    await goBack(node, backup)
    for (let round = 0; round < 5; round++) {
      await expectProblem(await ana.request(`/changes?since=${after}`), 'FEED01', 410)
      await expectStatus(await ana.request(`/changes?since=${before}`), 200)
      later.push(await ana.save('a', 'again', { 'X-Sync-Token': '*' }))
    }
    const tokens = [first, ...later].map(({ token }) => token)
    assert.equal(new Set(tokens).size, tokens.length, 'a token was used twice')
    await expectProblem(await ana.put('a', '3', { 'X-Sync-Token': tokens[1] ?? '' }), 'KEY01', 412)
  })
})
