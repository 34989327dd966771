// Owns the check of disk states, in a process of its own: each is mounted as after a power cut, which
// lets the file system recover, and what stands on it is compared with what had been acknowledged.
import { createHash } from 'node:crypto'
import {
  createReadStream,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { readConfig } from '../../src/config.ts'
import { openLog } from '../../src/log.ts'
import { StartError } from '../../src/errors.ts'
import { start } from '../../src/node.ts'
import { verify } from '../../src/verify.ts'
import { install } from '../helpers/executable.ts'
import { SCHEMA } from '../helpers/newer.ts'
import { applyTail, flushedAt, openBase, openLog as openBlockLog, type Cut } from './block-log.ts'
import { openMounter } from './disk.ts'
import { compare, type Mark, type Observed, type Recorded } from './history.ts'
import { digestOf, nothingFound, observe, type Found } from './observe.ts'
import { PROGRAM, type Recording } from './recording.ts'
import { Refused, digestOf as digestOfToken, type Person } from './people.ts'
import { lookAround } from './workload.ts'

/** The others are mostly the same once more. */
const PROBLEMS_A_STATE = 3

export interface Job {
  recording: Recording
  cuts: Cut[]
  /** In memory, of its own. */
  folder: string
  /** Of so many different data folders, one is opened by a server's start, and of so many of those, one by the program's. */
  startEvery: number
  programEvery: number
  /** It ends with so many problems. */
  mostProblems: number
}

export interface Verdict {
  states: number
  /** Torn so that the file system itself gives up: no server comes to see it. */
  unmountable: number
  /** Different contents of data folders. */
  folders: number
  started: number
  byProgram: number
  backups: number
  restored: number
  problems: { cut: Cut; problem: string }[]
}

/** What stands in a folder, by path; folders end with a slash. */
type Tree = Map<string, Content>

interface Content {
  size: number
  read(): Buffer
}

const EMPTY: Content = { size: 0, read: () => Buffer.alloc(0) }

function readTree(at: string, prefix = '', tree: Tree = new Map()): Tree {
  for (const entry of readdirSync(join(at, prefix), { withFileTypes: true })) {
    const path = prefix + entry.name
    if (entry.isDirectory()) {
      tree.set(`${path}/`, EMPTY)
      readTree(at, `${path}/`, tree)
      // What is in the reserve is of no interest to anybody.
    } else tree.set(path, /\/reserve(\.new)?$/.test(path) ? EMPTY : contentOf(join(at, path)))
  }
  return tree
}

function contentOf(path: string): Content {
  let content: Buffer | undefined
  return { size: statSync(path).size, read: () => (content ??= readFileSync(path)) }
}

function within(tree: Tree, folder: string): Tree {
  const prefix = `${folder}/`
  return new Map(
    [...tree]
      .filter(([path]) => path.startsWith(prefix) && path !== prefix)
      .map(([path, content]) => [path.slice(prefix.length), content]),
  )
}

const isValue = (path: string): boolean => path.startsWith('blobs/')

/** Of all but what is in the values, of which only those are read that a row names. */
function digestOfTree(tree: Tree): string {
  const sha1 = createHash('sha1')
  for (const path of [...tree.keys()].sort()) {
    const content = tree.get(path) as Content
    sha1.update(`${path} ${content.size}\n`)
    if (!isValue(path)) sha1.update(content.read())
  }
  return sha1.digest('hex')
}

/** Writes a tree down. */
function place(tree: Tree, at: string): void {
  rmSync(at, { recursive: true, force: true })
  mkdirSync(at, { recursive: true })
  for (const [path, content] of tree) {
    if (path.endsWith('/')) mkdirSync(join(at, path), { recursive: true })
    else {
      mkdirSync(dirname(join(at, path)), { recursive: true })
      writeFileSync(join(at, path), content.read())
    }
  }
}

export async function check(job: Job): Promise<Verdict> {
  const { recording, cuts, folder, mostProblems } = job
  const log = openBlockLog(recording.log)
  const { size } = statSync(recording.image)
  const mounted = join(folder, 'mnt')
  mkdirSync(mounted, { recursive: true })
  const base = openBase(log)
  const verdict: Verdict = {
    states: 0,
    unmountable: 0,
    folders: 0,
    started: 0,
    byProgram: 0,
    backups: 0,
    restored: 0,
    problems: [],
  }
  const judge = openJudge(job, verdict)
  const { mount, unmount, close } = openMounter()
  for (const cut of cuts) {
    const from = flushedAt(log, cut.at)
    base.advance(from)
    // A new file each time: what is left of an earlier one would be mounted again.
    const statePath = join(folder, `state-${verdict.states}.img`)
    base.copyTo(statePath, size)
    applyTail(log, statePath, { cut, from })
    let problems: string[] = []
    const isMounted = await mount(recording.fileSystem, statePath, mounted)
    if (isMounted) {
      const judging = async (): Promise<string[]> => judge(readTree(mounted), cut.at)
      problems = await judging().catch((error: Error) => [String(error)])
      await unmount(recording.fileSystem, mounted)
    } else if (cut.kind === 'torn') verdict.unmountable++
    else problems.push('the file system cannot be mounted')
    rmSync(statePath)
    verdict.states++
    for (const problem of problems.slice(0, PROBLEMS_A_STATE))
      verdict.problems.push({ cut, problem })
    if (verdict.problems.length >= mostProblems) break
  }
  close()
  return verdict
}

function openJudge(job: Job, verdict: Verdict) {
  const { recording } = job
  const { recorded, backup, restored } = recording
  const work = join(job.folder, 'data')
  const known = new Map<string, Promise<unknown>>()
  /** What was seen of the same content is not looked at again. */
  function once<T>(key: string, look: () => Promise<T>): Promise<T> {
    let found = known.get(key) as Promise<T> | undefined
    if (found === undefined) {
      found = look()
      known.set(key, found)
    }
    return found
  }

  const lookAt = (tree: Tree, options: Omit<Looking, 'work' | 'recorded' | 'verdict' | 'job'>) =>
    look(tree, { ...options, work, recorded, verdict, job })

  async function judgeData(tree: Tree, when: Mark): Promise<string[]> {
    if (tree.size === 0) return compare(recorded, new Map(), { from: when, to: when })
    const digest = digestOfTree(tree)
    const { observed, problems, files } = await once(`data ${digest}`, () => {
      verdict.folders++
      return lookAt(tree, { when, cursors: true, draw: parseInt(digest.slice(0, 8), 16) })
    })
    const wrong = compare(recorded, observed, { from: when, to: when })
    for (const [path, { read }] of tree) {
      if (!/^before-schema-\d+\.db$/.test(path)) continue
      wrong.push(...(await once(`copy ${sha1(read())}`, async () => lookAtCopy(read(), work))))
    }
    return [...problems, ...wrong, ...damagedIn(tree, files)]
  }

  async function judgeBackup(file: Content | undefined, when: Mark): Promise<string[]> {
    if (file === undefined) return when >= backup.sure ? ['LOST: a backup that was made'] : []
    const content = file.read()
    return once(`backup ${sha1(content)}`, async () => {
      const path = `${work}.tar.zst`
      writeFileSync(path, content)
      verdict.backups++
      try {
        await verify(createReadStream(path))
        return []
      } catch (error) {
        return [`NOT WHOLE: a backup: ${(error as Error).message}`]
      }
    })
  }

  /** It is not there, or says that it is unfinished, or is whole. */
  async function judgeRestored(tree: Tree, when: Mark): Promise<string[]> {
    if (tree.size === 0) return when >= restored.sure ? ['LOST: what was restored'] : []
    const found = await once(`restored ${digestOfTree(tree)}`, () => {
      verdict.restored++
      return lookAt(tree, { when, cursors: false, draw: 0 })
    })
    const isWhole = found.problems.length === 0 && found.observed.size > 0
    if (!isWhole && when >= restored.sure)
      return [`LOST: what was restored: ${found.problems.join()}`]
    if (!isWhole) return found.problems.filter((problem) => !problem.includes('A restore into'))
    return [...compare(recorded, found.observed, backup), ...damagedIn(tree, found.files)]
  }

  return async (tree: Tree, when: Mark): Promise<string[]> => [
    ...(await judgeData(within(tree, 'data'), when)),
    ...(await judgeBackup(tree.get(backup.name), when)),
    ...(await judgeRestored(within(tree, restored.name), when)),
  ]
}

const damagedIn = (tree: Tree, files: ReadonlyMap<string, string>): string[] =>
  [...files]
    .filter(([file, digest]) => digestOf(tree.get(`blobs/${file}`)?.read()) !== digest)
    .map(([file]) => `NOT WHOLE: the file ${file}`)

const sha1 = (content: Buffer): string => createHash('sha1').update(content).digest('hex')

interface Looking {
  job: Job
  verdict: Verdict
  work: string
  recorded: Recorded
  when: Mark
  cursors: boolean
  /** By which it is drawn who opens it. */
  draw: number
}

async function look(tree: Tree, looking: Looking): Promise<Found> {
  const { job, verdict, work, recorded, when, cursors, draw } = looking
  const options = { when, recover: true, cursors }
  if (draw % job.startEvery !== 0) {
    place(new Map([...tree].filter(([path]) => !isValue(path))), work)
    if (schemaOf(tree, work) === SCHEMA) {
      return observe(work, recorded, { ...options, hasFiles: false })
    }
  }
  place(tree, work)
  const isProgram = Math.floor(draw / job.startEvery) % job.programEvery === 0 && draw !== 0
  if (isProgram) verdict.byProgram++
  else verdict.started++
  const problems: string[] = []
  const seen = isProgram
    ? await runProgram(work, recorded)
    : await runServer(work, { recorded, problems })
  if (seen === null) return nothingFound(problems)
  const found = await observe(work, recorded, options)
  found.problems.push(...problems, ...compareSeen(seen, found.observed))
  if (found.leftOver.length > 0) found.problems.push(`LEAKED: ${found.leftOver.join()}`)
  return found
}

/** Undefined for what only a start can make data of. */
function schemaOf(tree: Tree, work: string): unknown {
  const hasBoth = tree.has('secret') && (tree.get('sync-node.db')?.size ?? 0) > 0
  if (!hasBoth || tree.has('restoring')) return undefined
  const database = new DatabaseSync(join(work, 'sync-node.db'))
  try {
    return database.prepare('SELECT schema FROM node').get()?.['schema']
  } catch {
    return undefined
  } finally {
    database.close()
  }
}

/** Null when it does not start. */
async function runServer(
  root: string,
  { recorded, problems }: { recorded: Recorded; problems: string[] },
): Promise<Observed | null> {
  const config = readConfig({ STATIC_ROOT: root, HOST: '127.0.0.1', PORT: '0' })
  try {
    const node = await start(config, {
      log: openLog({ logLevel: 'silent' }),
      floorBytes: 1,
      isQuiet: true,
      onFatal: (reason) => void problems.push(`STOPPED: ${reason}`),
    })
    try {
      return await see(`http://127.0.0.1:${node.port}`, recorded)
    } finally {
      await node.stop()
    }
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    problems.push(`DOES NOT START: ${error.message}`)
    return null
  }
}

async function runProgram(root: string, recorded: Recorded): Promise<Observed> {
  const afters: (() => unknown)[] = []
  const program = install({ after: (undo) => void afters.push(undo as () => unknown) }, PROGRAM)
  try {
    const server = await program.serve({ STATIC_ROOT: root })
    const seen = await see(server.url, recorded)
    for (const [subject, value] of await logIn(server.url, recorded)) seen.set(subject, value)
    await server.stop()
    return seen
  } finally {
    for (const after of afters) await after()
  }
}

const VALUES_READ = 5

/** What those whose sessions live are shown. */
async function see(url: string, { people, digests }: Recorded): Promise<Map<string, string>> {
  const seen = new Map<string, string>()
  for (const { user, token } of people) {
    const self: Person = {
      id: '',
      user,
      token,
      stores: new Map(),
      feed: { cursor: undefined, known: new Map() },
    }
    try {
      for (const [subject, value] of await lookAround({ url }, [self])) seen.set(subject, value)
      seen.set(`session ${digestOfToken(token)}`, user)
    } catch (error) {
      if (!(error instanceof Refused) || !error.message.includes('AUTH01')) throw error
    }
  }
  const first = people[0]?.token
  const own = [...seen].filter(([subject]) => subject.startsWith('store ana/'))
  for (const [subject, value] of own.slice(0, VALUES_READ)) {
    const answer = await fetch(`${url}/store/${subject.slice('store '.length)}`, {
      headers: { Authorization: `Bearer ${first}` },
    })
    const sum = createHash('sha256')
      .update(Buffer.from(await answer.arrayBuffer()))
      .digest('hex')
    if (sum !== digests[value.split(' ')[0] ?? '']) seen.set(subject, `${answer.status} damaged`)
  }
  return seen
}

const LOGINS = 3
const NO_PASSWORD = 'none that it takes'

/** Which of all the passwords that the newest accounts had is taken. */
async function logIn(url: string, { people, versions }: Recorded): Promise<Observed> {
  const seen = new Map<string, string>()
  const ids = new Map(people.map(({ user, id }) => [user, id]))
  const owners = [...ids].filter(([user]) => versions[`password ${user}`] !== undefined)
  for (const [user, id] of owners.slice(-LOGINS)) {
    const subject = `password ${user}`
    seen.set(subject, NO_PASSWORD)
    for (const { value: password } of versions[subject] ?? []) {
      if (password === null) continue
      const body = JSON.stringify({ id, password })
      const { ok } = await fetch(`${url}/auth`, { method: 'POST', body })
      if (ok) seen.set(subject, password)
    }
  }
  return seen
}

/** Who is there, and not shut out. */
function passwordOf(observed: Observed, user: string): string {
  const isIn = observed.get(`account ${user}`) === 'enabled'
  return (isIn && observed.get(`password ${user}`)) || NO_PASSWORD
}

function compareSeen(seen: Observed, observed: Observed): string[] {
  const problems: string[] = []
  for (const [subject, value] of seen) {
    const [kind, user = ''] = subject.split(' ')
    const expected = kind === 'password' ? passwordOf(observed, user) : observed.get(subject)
    if (expected !== value) problems.push(`FEED: it shows ${subject} as ${value}, not ${expected}`)
  }
  const isIn = new Set(
    [...seen].filter(([subject]) => subject.startsWith('session ')).map(([, user]) => user),
  )
  for (const [subject, value] of observed) {
    const [kind, , user = ''] = subject.split(' ')
    const isShown = kind === 'session' || (kind === 'permission' && isIn.has(user))
    if (isShown && seen.get(subject) !== value)
      problems.push(`FEED: it does not show ${subject} as ${value}`)
  }
  return problems
}

function lookAtCopy(content: Buffer, work: string): string[] {
  const path = `${work}.copy.db`
  writeFileSync(path, content)
  try {
    const database = new DatabaseSync(path, { readOnly: true })
    try {
      const [row] = database.prepare('PRAGMA integrity_check(1)').all()
      database.prepare('SELECT schema FROM node').get()
      return row?.['integrity_check'] === 'ok'
        ? []
        : ['NOT WHOLE: the copy from before the upgrade']
    } finally {
      database.close()
    }
  } catch (error) {
    return [`NOT WHOLE: the copy from before the upgrade: ${(error as Error).message}`]
  }
}

process.once('message', (job: Job) => {
  void check(job).then(
    (verdict) => process.send?.({ verdict }, () => process.exit(0)),
    (error: Error) => process.send?.({ failed: error.stack }, () => process.exit(1)),
  )
})
