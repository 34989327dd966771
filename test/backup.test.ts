// Proves that a backup is one moment of a server that writes, whole or not there, and that it costs
// the server nothing it has promised.
import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Readable } from 'node:stream'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import * as copies from '../src/copies.ts'
import { verify } from '../src/verify.ts'
import {
  backupOf,
  done,
  expectExact,
  expectValues,
  leftovers,
  mountSmall,
  refused,
  serveValues,
  type Served,
} from './helpers/backups.ts'
import { eventually } from './helpers/eventually.ts'
import { EXECUTABLE, install, type Installation, type Ran } from './helpers/executable.ts'
import { expectProblem, expectStatus } from './helpers/expect.ts'
import { MIXED, busyWriters, expectCut } from './helpers/load.ts'
import { startNode } from './helpers/node.ts'
import { remoteClient, signUp } from './helpers/remote.ts'
import { plant } from './helpers/rows.ts'

const MIB = 1024 * 1024
const HOLD_MS = 5 * 60_000
const RUNS = Number(process.env['RUNS'] ?? 3)
const FILE = 'backup.tar.zst'
const NOTHING_LEFT = { copies: [], holds: 0 }

/** Restores a backup into a folder of its own; answers that. */
async function restoreElsewhere(here: Installation, file = FILE, environment = {}) {
  const root = join(here.folder, 'elsewhere')
  rmSync(root, { recursive: true, force: true })
  done(await here.run(['restore', file], { STATIC_ROOT: root, ...environment }))
  return root
}

describe('A backup under full write load', () => {
  it(
    `is a consistent cut, ${RUNS} times of ${RUNS}`,
    { timeout: 60_000 + RUNS * 20_000 },
    async (t) => {
      const here = install(t)
      const server = await here.serve({ QUOTA: 'none' })
      const opened = await signUp(server.url, { id: 'ana' })
      const load = busyWriters(() => remoteClient(server.url, opened), {
        kinds: MIXED,
        most: Number.POSITIVE_INFINITY,
      })
      for (let run = 1; run <= RUNS; run++) {
        await load.reached(load.count() + 50)
        const least = load.steps()
        done(await here.run(['backup', FILE]))
        const most = load.steps()
        assert.notDeepEqual(most, least, 'it was written meanwhile')
        done(await here.run(['verify', FILE]))
        const root = await restoreElsewhere(here)
        const restored = await here.serve({ STATIC_ROOT: root })
        await expectCut(remoteClient(restored.url, opened), MIXED, { least, most })
        await restored.stop()
        expectExact(root)
        rmSync(join(here.folder, FILE))
      }
      await load.stop()
      assert.deepEqual(load.failures, [])
      assert.deepEqual(leftovers(here.root), NOTHING_LEFT)
      await server.stop()
      expectExact(here.root)
    },
  )
})

function skipWithout(...tools: string[]): string | false {
  const missing = tools.filter((tool) => spawnSync(tool, ['--version']).status !== 0)
  const isFine = missing.length === 0 || process.env['CI'] !== undefined
  return isFine ? false : `${missing.join()} is not installed`
}

/** Runs a line of shell in the installation, with the program as $0. */
const inShell = (here: Installation, line: string): Promise<Ran> =>
  promisify(execFile)('bash', ['-o', 'pipefail', '-c', line, EXECUTABLE[0] as string], {
    cwd: here.folder,
    env: { PATH: process.env['PATH'] },
  }).then(
    (said) => ({ code: 0, signal: null, ...said }),
    (error: Ran) => error,
  )

describe('sync-node backup', () => {
  it('writes a file for its owner alone, named after the time unless told, and never over another', async (t) => {
    const { here } = await serveValues(t)
    const before = readdirSync(here.folder)
    const name = done(await here.run(['backup'])).trim()
    assert.match(name, /^sync-node-\d{4}-\d\d-\d\d-\d{6}\.tar\.zst$/)
    assert.deepEqual(readdirSync(here.folder).sort(), [...before, name].sort())
    assert.equal(statSync(join(here.folder, name)).mode & 0o777, 0o600)
    const bytes = readFileSync(join(here.folder, name))
    assert.match(refused(await here.run(['backup', name])), /is there already/)
    assert.ok(readFileSync(join(here.folder, name)).equals(bytes))
    writeFileSync(join(here.folder, 'other.part'), 'of another')
    assert.match(refused(await here.run(['backup', 'other'])), /other\.part is there/)
    assert.equal(readFileSync(join(here.folder, 'other.part'), 'utf8'), 'of another')
    assert.match(refused(await here.run(['backup', 'no/such/folder'])), /ENOENT/)
    assert.deepEqual(leftovers(here.root), NOTHING_LEFT)
  })

  it('tells on stderr what it has, and no bar where there is no terminal', async (t) => {
    const { here, values } = await serveValues(t)
    const { stderr } = await here.run(['backup', FILE])
    assert.match(
      stderr,
      new RegExp(
        `^Data: ${here.root}\n1 accounts, ${values.size} stores, 1\\.2 MiB; the backup has 1\\.2 MiB\n$`,
      ),
    )
  })

  it('shows a bar on a terminal', { skip: skipWithout('script') }, async (t) => {
    const { here } = await serveValues(t)
    const line = `"$0" backup ${FILE} >/dev/null; "$0" verify ${FILE} >/dev/null`
    const terminal = `script -qec '${line.replaceAll('"$0"', EXECUTABLE[0] as string)}' /dev/null`
    const stdout = done(await inShell(here, terminal))
    for (const what of ['writing', 'verifying']) {
      const drawn = stdout.split('\r\u001b[K').find((text) => text.includes(what)) ?? ''
      assert.match(drawn, /^\[[#.]{30}\] \w+: \d\S* \w+ of 1\.\d MiB$/)
    }
    assert.ok(stdout.includes('\r\u001b[KThe backup is whole.'))
  })

  it('goes to stdout as -, and verify reads it there', async (t) => {
    const { here, values } = await serveValues(t)
    const piped = done(await inShell(here, '"$0" backup - | "$0" verify - --json'))
    assert.equal((JSON.parse(piped) as { stores: number }).stores, values.size)
    const kept = done(await inShell(here, `"$0" backup - >${FILE} && "$0" verify ${FILE}`))
    assert.match(kept, /^stores +6, 1\.2 MiB$/m)
  })

  it('is no text for a terminal', { skip: skipWithout('script') }, async (t) => {
    const { here } = await serveValues(t)
    const { code, stdout } = await inShell(
      here,
      `script -qec '${EXECUTABLE[0]} backup -' /dev/null`,
    )
    assert.equal(code, 2)
    assert.match(stdout, /^sync-node backup: a backup is no text for a terminal; see [^\n]*\n$/)
  })

  it(
    'needs nothing but zstd, tar and sha256sum to be read',
    { skip: skipWithout('zstd', 'tar', 'sha256sum') },
    async (t) => {
      const { here, values } = await serveValues(t)
      done(await here.run(['backup', FILE]))
      const checked = await inShell(
        here,
        `mkdir by-hand && zstd -dcq ${FILE} | tar x -C by-hand && cd by-hand && sha256sum -c SHA256SUMS`,
      )
      assert.equal(done(checked).match(/: OK$/gm)?.length, 5)
      const { url } = await here.serve({ STATIC_ROOT: join(here.folder, 'by-hand') })
      const manifest = readFileSync(join(here.folder, 'by-hand/manifest.json'), 'utf8')
      assert.equal((JSON.parse(manifest) as { stores: number }).stores, values.size)
      await expectStatus(await fetch(`${url}/health`), 200)
    },
  )

  it('run by root leaves no file of root in the data of another, and may go where only root may', async (t) => {
    if (process.getuid?.() !== 0 && process.env['CI'] === undefined) {
      return t.skip('NOT TESTED: only root can')
    }
    const { here, server } = await serveValues(t)
    await server.stop()
    const nobody = 65_534
    chmodSync(here.folder, 0o755)
    execFileSync('chown', ['-R', `${nobody}:${nobody}`, here.root])
    const safe = join(here.folder, 'of root alone')
    mkdirSync(safe, { mode: 0o700 })
    done(await here.run(['backup', join(safe, FILE)]))
    assert.deepEqual(readdirSync(safe), [FILE])
    assert.equal(statSync(join(safe, FILE)).uid, 0)
    const child = here.launch(['backup', join(safe, 'another')])
    await eventually(() => existsSync(join(safe, 'another.part')), true)
    await child.stop('SIGTERM')
    const owners = (readdirSync(here.root, { recursive: true }) as string[]).map(
      (name) => statSync(join(here.root, name)).uid,
    )
    assert.deepEqual(new Set(owners), new Set([nobody]))
    const { code } = await child.ended
    assert.deepEqual(readdirSync(safe).sort(), code === 0 ? ['another', FILE] : [FILE])
  })

  it('works while no server runs', async (t) => {
    const { here, server, opened, values } = await serveValues(t)
    await server.stop()
    done(await here.run(['backup', FILE]))
    const { url } = await here.serve({ STATIC_ROOT: await restoreElsewhere(here) })
    await expectValues(remoteClient(url, opened), values)
  })
})

describe('A backup that cannot be made', () => {
  /** A server whose backup takes a while: long enough to do something meanwhile. */
  const serveLarge = (t: TestContext): Promise<Served> =>
    serveValues(t, { sizes: [100 * MIB, 100 * MIB], environment: { QUOTA: 'none' } })

  const nothingLeft = (here: Installation): void => {
    assert.deepEqual(leftovers(here.root), NOTHING_LEFT)
    assert.deepEqual(readdirSync(here.folder), ['data'])
  }

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`leaves nothing behind when it gets ${signal}`, async (t) => {
      const { here } = await serveLarge(t)
      const child = here.launch(['backup', FILE])
      const part = join(here.folder, `${FILE}.part`)
      await eventually(() => (statSync(part, { throwIfNoEntry: false })?.size ?? 0) > MIB, true)
      await child.stop(signal)
      assert.equal(
        refused({ ...(await child.ended), ...child.output() }),
        'sync-node: Interrupted.',
      )
      nothingLeft(here)
    })
  }

  it('leaves nothing behind when nobody reads it', async (t) => {
    const { here } = await serveLarge(t)
    const child = spawn(EXECUTABLE[0] as string, ['backup', '-'], {
      cwd: here.folder,
      env: {},
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.stdout.once('data', () => child.stdout.destroy())
    const code = await new Promise((resolve) => child.once('close', resolve))
    assert.equal(code, 1)
    assert.match(stderr, /^Data: [^\n]*\nsync-node: Nobody reads the backup any more: [^\n]*\n$/)
    nothingLeft(here)
  })

  it('leaves nothing behind on a disk that runs full', async (t) => {
    const disk = mountSmall(t)
    if (disk === undefined) return
    const { here, ana, values } = await serveValues(t, { sizes: [10 * MIB] })
    const file = join(disk, FILE)
    assert.match(refused(await here.run(['backup', file])), /ENOSPC/)
    assert.deepEqual(readdirSync(disk), [])
    nothingLeft(here)
    await expectValues(ana, values)
  })

  it('stops above the floor of the disk that the server writes to', async (t) => {
    const disk = mountSmall(t, 300)
    if (disk === undefined) return
    const data = { STATIC_ROOT: join(disk, 'data') }
    const { here, ana, values } = await serveValues(t, { sizes: [30 * MIB], environment: data })
    const line = refused(await here.run(['backup', join(disk, FILE)], data))
    assert.match(line, /The server's disk is nearly full: write to another one\.$/)
    assert.deepEqual(readdirSync(disk), ['data'])
    assert.deepEqual(leftovers(data.STATIC_ROOT), NOTHING_LEFT)
    done(await here.run(['backup', FILE], data))
    await expectValues(ana, values)
  })

  it('is refused where the copy of the database has no room', async (t) => {
    const disk = mountSmall(t)
    if (disk === undefined) return
    const node = await startNode(t, {}, { root: join(disk, 'data') })
    await node.stop()
    const here = install(t)
    const line = refused(await here.run(['backup', FILE], { STATIC_ROOT: node.root }))
    assert.match(line, /no room on the disk for a copy of the database: \d+ MiB more/)
    assert.deepEqual(leftovers(node.root), NOTHING_LEFT)
    assert.deepEqual(readdirSync(here.folder), [])
  })

  it('is refused of a database that is damaged', async (t) => {
    const { here, server } = await serveValues(t)
    await server.stop()
    const database = new DatabaseSync(join(here.root, 'sync-node.db'))
    database.exec(`PRAGMA foreign_keys = OFF; DELETE FROM sync_account`)
    database.close()
    const line = refused(await here.run(['backup', FILE]))
    assert.match(line, /^sync-node: The database is damaged: a row of \w+ refers to none\.$/)
    nothingLeft(here)
  })

  it('leaves, when it was killed, a copy that the server removes, and no file before that', async (t) => {
    const { here, server, ana } = await serveLarge(t)
    const child = here.launch(['backup', FILE])
    const part = join(here.folder, `${FILE}.part`)
    await eventually(() => (statSync(part, { throwIfNoEntry: false })?.size ?? 0) > MIB, true)
    await child.stop('SIGKILL')
    await expectStatus(await ana.put('value 0', 'small', { 'X-Sync-Token': '*' }), 204)
    await server.stop()
    assert.deepEqual([leftovers(here.root).copies.length, leftovers(here.root).holds], [1, 1])
    assert.match(refused(await here.run(['backup', FILE])), /\.part is there/)

    const node = await startNode(t, { QUOTA: 'none' }, { root: here.root })
    const files = () => readdirSync(join(here.root, 'blobs')).length
    await node.running.housekeep()
    assert.deepEqual([leftovers(here.root).copies.length, files()], [1, 2])
    for (let minutes = 0; minutes < 12; minutes += 6) {
      node.advance(6 * 60_000)
      await node.running.housekeep()
    }
    await node.running.housekeep()
    assert.deepEqual(leftovers(here.root), NOTHING_LEFT)
    assert.equal(files(), 1)
  })
})

describe('A backup of values that are damaged', () => {
  /** Flips a byte of one file, removes another and cuts a third; spoils a small value too. */
  async function spoil({ here, server }: Served): Promise<void> {
    await server.stop()
    const blobs = join(here.root, 'blobs')
    const [first, second, third] = readdirSync(blobs).sort() as [string, string, string]
    const bytes = readFileSync(join(blobs, first))
    bytes[100] = (bytes[100] as number) ^ 1
    writeFileSync(join(blobs, first), bytes)
    rmSync(join(blobs, second))
    truncateSync(join(blobs, third), 1000)
    const database = new DatabaseSync(join(here.root, 'sync-node.db'))
    database.exec(`UPDATE store_data SET value = x'00' WHERE length(value) = 5`)
    database.close()
  }

  for (const [name, command] of [
    ['into a file', `"$0" backup ${FILE}`],
    ['to stdout', `"$0" backup - >${FILE}`],
  ] as const) {
    it(`has all others, names these, and ends with 1: ${name}`, async (t) => {
      const served = await serveValues(t)
      const { here, opened, values } = served
      await spoil(served)
      const { code, stdout, stderr } = await inShell(here, command)
      assert.equal(code, 1)
      assert.equal(stdout, name === 'to stdout' ? '' : `${FILE}\n`)
      assert.equal(stderr.match(/^damaged: ~[\w-]{43}, blobs\/1-\w+$/gm)?.length, 3, stderr)
      assert.equal(stderr.match(/^damaged: ~[\w-]{43}$/gm)?.length, 1, stderr)
      assert.match(
        stderr,
        /\nsync-node: The backup is complete but for 4 damaged values: [^\n]*\n$/,
      )

      const told = JSON.parse(done(await here.run(['verify', FILE, '--json']))) as {
        files: object
        damaged: unknown[]
      }
      assert.deepEqual([told.files, told.damaged.length], [{ count: 0, bytes: 0 }, 4])
      const { url } = await here.serve({ STATIC_ROOT: await restoreElsewhere(here) })
      const ana = remoteClient(url, opened)
      assert.equal((await ana.list()).length, values.size)
      for (const [key, { length }] of values) {
        if (length === 0 || length === 16_384) await expectStatus(await ana.get(key), 200)
        else await expectProblem(await ana.get(key), 'ERR02', 500)
      }
    })
  }
})

describe('The files that a backup needs', () => {
  it('stay while its hold is renewed, over a restart too, and go when it has lapsed', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', randomBytes(100_000))
    const files = () => readdirSync(join(node.root, 'blobs')).length
    const later = async (minutes: number): Promise<void> => {
      node.advance(minutes * 60_000)
      for (let round = 0; round < 2; round++) await node.running.housekeep()
    }
    const id = `backup-${'0'.repeat(26)}`
    await copies.hold(node.running.deps, id, HOLD_MS)
    await ana.save('a', 'small', { 'X-Sync-Token': '*' })
    for (let round = 0; round < 3; round++) {
      await later(4)
      assert.ok(await copies.renew(node.running.deps, id, HOLD_MS))
      if (round === 1) await node.restart()
    }
    assert.equal(files(), 1)
    await later(4)
    assert.equal(files(), 1)
    await later(2)
    assert.equal(await copies.renew(node.running.deps, id, HOLD_MS), false)
    assert.equal(await copies.release(node.running.deps, id), false)
    await later(1)
    assert.equal(files(), 0)
  })

  it('and what was written meanwhile, are the server at one moment', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const value = randomBytes(3 * MIB)
    await ana.save('a', value)
    await ana.save('b', 'before')
    const chunks: Uint8Array[] = []
    await backupOf(node, async (written) => {
      for await (const chunk of written) {
        if (chunks.push(chunk) > 1) continue
        await ana.save('a', 'small', { 'X-Sync-Token': '*' })
        await ana.save('b', 'after', { 'X-Sync-Token': '*' })
        await ana.save('c', 'new')
        node.advance(4 * 60_000)
        for (let round = 0; round < 2; round++) await node.running.housekeep()
        await node.restart()
      }
    })
    const { manifest } = await verify(Readable.from(chunks))
    assert.deepEqual(
      [manifest.stores, manifest.bytes, manifest.files],
      [2, value.length + 6, { count: 1, bytes: value.length }],
    )
    assert.deepEqual(leftovers(node.root), NOTHING_LEFT)
  })

  it('are not trusted when the hold was lost', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    await ana.save('a', randomBytes(3 * MIB))
    const work = backupOf(node, async (written) => {
      for await (const chunk of written) if (chunk.length > 0) await plant(node, 'DELETE FROM hold')
    })
    await assert.rejects(work, /stood still for so long that values may be missing/)
    assert.deepEqual(leftovers(node.root), NOTHING_LEFT)
  })
})

describe('A large value', () => {
  it('goes through backup, verify and restore in little memory', async (t) => {
    const size = 300 * MIB
    const { here, opened, values } = await serveValues(t, {
      sizes: [size],
      environment: { QUOTA: 'none' },
    })
    const elsewhere = { STATIC_ROOT: join(here.folder, 'elsewhere') }
    for (const [args, environment] of [
      [['backup', FILE], {}],
      [['verify', FILE], {}],
      [['restore', FILE], elsewhere],
    ] as [string[], Record<string, string>][]) {
      const peak = await peakOf(here, args, environment)
      t.diagnostic(`${args[0]}: ${Math.round(peak / MIB)} MiB`)
      assert.ok(peak < 0.8 * size, `${args[0]} took ${peak} bytes`)
    }
    const { url } = await here.serve(elsewhere)
    await expectValues(remoteClient(url, opened), values)
  })
})

/** The most memory that a command had in use at any time, as often as one can look. */
async function peakOf(here: Installation, args: string[], environment: Record<string, string>) {
  const child = here.launch(args, environment)
  let peak = 0
  let isOver = false
  void child.ended.then(() => (isOver = true))
  while (!isOver) {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024)
    } catch {
      // It has just ended.
    }
    await pause(5)
  }
  done({ ...(await child.ended), ...child.output() })
  return peak
}

describe('A secret from the environment', () => {
  it('is not in the backup, and is needed for what comes back', async (t) => {
    const secret = { SECRET_KEY: 'a secret from elsewhere, 32 and more' }
    const { here, opened, values } = await serveValues(t, { environment: secret })
    done(await here.run(['backup', FILE], secret))
    assert.match(done(await here.run(['verify', FILE])), /^secret +not inside/m)
    assert.ok(!existsSync(join(here.root, 'secret')))
    const root = join(here.folder, 'elsewhere')
    const { stderr } = await here.run(['restore', FILE], { STATIC_ROOT: root })
    assert.match(stderr, /\nThe secret is not in the backup: set SECRET_KEY as it was\.\n/)
    const wrong = { STATIC_ROOT: root, SECRET_KEY: 'quite another secret, also 32 and more' }
    assert.match(refused(await here.run(['serve'], wrong)), /secret is not the one/)
    const { url } = await here.serve({ STATIC_ROOT: root, ...secret })
    await expectValues(remoteClient(url, opened), values)
  })
})
