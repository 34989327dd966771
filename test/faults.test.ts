// Owns the proof of what becomes of a change when a call on a file fails: it happened or it did not, as
// the answer says. `make faults` tries all calls of all routes; here are those that once went wrong,
// and a sample: SEED= for another, of which AT= in `make faults` tries a case again.
import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { eventually } from './helpers/eventually.ts'
import { expectProblem } from './helpers/expect.ts'
import { startNode, temporaryFolder } from './helpers/node.ts'
import { numbers } from './helpers/random.ts'
import { routes } from '../src/http/app.ts'
import { deeds } from './disks/deeds.ts'
import { compile, skip, type Op } from './disks/disk.ts'
import { FAULTS, callsOf, openFor, tryCase, type End } from './disks/faults.ts'
import { subjects, toTable, tooFewReached, trySubject, type Row } from './disks/matrix.ts'

interface Failing {
  op: Op
  path: RegExp
  fault: string
  end?: End
  /** Only the first of so many such calls; by default one. */
  most?: number
  /** After a clean stop: nothing but the request reads the database. */
  isClean?: boolean
}

/** Answers what makes such calls of a deed fail, each in its turn, and answers what was answered. */
async function failing(t: TestContext, name: string) {
  const deed = deeds.find((one) => one.name === name)
  assert.ok(deed)
  const place = await openFor(t, compile(temporaryFolder(t)), deed)
  const calls = await callsOf(place, deed)
  let turn = 0
  return async ({
    op,
    path,
    fault: kind,
    end = 'kill',
    most = 1,
    isClean = false,
  }: Failing): Promise<string[]> => {
    const fault = FAULTS[op].find((one) => one.name === kind)
    const numbered = calls
      .filter((call) => call.op === op)
      .map((call, one) => ({ ...call, at: one + 1 }))
    const found = numbered.filter((call) => path.test(call.path)).slice(0, most)
    assert.ok(fault && found.length > 0, `${name} makes no such call`)
    const answers: string[] = []
    for (const { at } of found) {
      if (isClean) {
        await place.stop()
        await place.start()
      }
      try {
        let answer = 'not reached'
        // What the server does by itself is counted as well, at its own times: nothing was tried then.
        for (let tries = 0; tries < 5 && answer === 'not reached'; tries++) {
          const one = { op, at: at - (tries % at), fault, end }
          answer = await tryCase(place, deed, one, turn++)
        }
        answers.push(answer)
      } catch (error) {
        assert.fail((error as Error).message)
      }
    }
    return answers
  }
}

const openFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return [] // the one that was open to list them
    }
  })

const VALUE = /^blobs\/./
const LOG = /-wal$/
const DATABASE = /\.db$/

describe('A call on a file that fails', { skip }, () => {
  it('for want of quota is told as a full disk', async (t) => {
    const when = await failing(t, 'PUT, new file')
    for (const op of ['create', 'write', 'sync'] as const) {
      assert.deepEqual(await when({ op, path: VALUE, fault: 'EDQUOT' }), ['507 SIZE03'], op)
    }
  })

  it('for want of quota at the database is told as a full disk, and the server stays', async (t) => {
    const when = await failing(t, 'PUT, new')
    const answers = await when({ op: 'write', path: LOG, fault: 'EDQUOT from then on' })
    assert.deepEqual(answers, ['507 SIZE03'])
  })

  it('because the disk became read-only is told as that, also when what was begun cannot be removed', async (t) => {
    const when = await failing(t, 'PUT, new file')
    for (const path of [VALUE, LOG]) {
      const answers = await when({ op: 'write', path, fault: 'EROFS from then on' })
      assert.deepEqual(answers, ['503 ERR05'], String(path))
    }
  })

  it('at a page that cannot be read is told as that, and the server stays', async (t) => {
    const when = await failing(t, 'PUT, new')
    const answers = await when({
      op: 'read',
      path: DATABASE,
      fault: 'EIO',
      most: 8,
      isClean: true,
    })
    assert.ok(answers.includes('500 ERR02'), answers.join())
  })

  it('at the sync of a commit is told as unknown, and takes no value with it', async (t) => {
    const when = await failing(t, 'PUT, file for file')
    for (const end of ['kill', 'cut'] as const) {
      const answers = await when({ op: 'sync', path: LOG, fault: 'EIO', end })
      assert.deepEqual(answers, ['503 ERR04'], end)
    }
  })

  it('at the sync of a value or its folder is told as unknown, and ends the server', async (t) => {
    const when = await failing(t, 'PUT, new file')
    for (const path of [VALUE, /^blobs$/]) {
      assert.deepEqual(await when({ op: 'sync', path, fault: 'EIO' }), ['503 ERR04'], String(path))
    }
  })

  it('at the sync of a reset that was asked for mails no token that is none', async (t) => {
    const when = await failing(t, 'POST /resetpassword')
    assert.deepEqual(await when({ op: 'sync', path: LOG, fault: 'EIO' }), ['204'])
  })

  it('is tried in each route that changes anything', () => {
    const changing = routes.filter(({ method }) => method !== 'GET' && method !== 'HEAD')
    const tried = new Set(deeds.map(({ route }) => route))
    const expected = new Set(changing.map(({ method, path }) => `${method} ${path}`))
    assert.deepEqual([...tried].sort(), [...expected].sort())
  })

  it('at the sync of a value leaves no file open, which Node would end the process for', async (t) => {
    const node = await startNode(t)
    const ana = await node.signUp('ana')
    const file = await open(import.meta.filename)
    const handle = Object.getPrototypeOf(file) as typeof file
    await file.close()
    t.mock.method(handle, 'datasync', () => Promise.reject(new Error('EIO')))
    const folder = join(node.root, 'blobs/')
    // At its end, and while it comes.
    for (const size of [100_000, 9 * 1024 * 1024]) {
      await expectProblem(await ana.put('a', Buffer.alloc(size)), 'ERR04', 503)
    }
    await eventually(() => openFiles().filter((path) => path.startsWith(folder)), [])
    assert.equal(readdirSync(folder).length, 2, 'the files stay')
  })

  it('leaves the old state or the new one, as answered, in a sample of all', async (t) => {
    const seed = Number(process.env['SEED'] ?? 1)
    const below = numbers(seed)
    const always = new Set([
      'a start after kill -9',
      'a stop',
      'a checkpoint',
      'POST /batch',
      'GET, file',
      'PUT, file of many syncs for another',
    ])
    const left = subjects.filter(({ name }) => !always.has(name))
    const chosen = subjects.filter(({ name }) => always.has(name))
    for (let more = 0; more < 4; more++) chosen.push(...left.splice(below(left.length), 1))
    const library = compile(temporaryFolder(t))
    const rows: Row[] = []
    for (const subject of chosen) rows.push(await trySubject(library, subject, { seed, most: 3 }))
    for (const line of toTable(rows).split('\n')) t.diagnostic(line)
    assert.deepEqual(
      rows.flatMap(({ faults }) => faults),
      [],
      `each again by SEED=${seed} AT='its case' make faults`,
    )
    assert.deepEqual(tooFewReached(rows), [])
  })
})
