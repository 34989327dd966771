// Owns the trial of a call that fails: what may be answered, what has to be found afterwards, and the
// table of it all.
import type { Change, Deed } from './deeds.ts'
import type { Call, Fault as DiskFault, Op } from './disk.ts'
import { Fault, isCut, openPlace, type Place, type Scope } from './place.ts'

export type End = 'kill' | 'cut'

const WRITES: Op[] = ['create', 'write', 'truncate', 'rename', 'unlink', 'mkdir', 'sync']
const GROWS: Op[] = ['create', 'write', 'mkdir']

const once = (error: DiskFault['error']): DiskFault => ({ name: error, error })
const lasting = (error: DiskFault['error'], later: Op[]): DiskFault => ({
  name: `${error} from then on`,
  error,
  later,
})
const HALF: DiskFault = { name: 'half', error: 'EIO', isHalf: true }
const HALF_THEN_FULL: DiskFault = {
  name: 'half, then ENOSPC',
  error: 'ENOSPC',
  isHalf: true,
  later: ['create', 'write'],
}

const CHANGES: DiskFault[] = [once('EIO'), once('ENOSPC'), once('EDQUOT'), once('EROFS')]

/** How each call can fail. */
export const FAULTS: Record<Op, DiskFault[]> = {
  open: [once('EIO'), once('EMFILE')],
  create: [...CHANGES, once('EMFILE'), lasting('EROFS', WRITES)],
  read: [once('EIO'), HALF],
  write: [
    ...CHANGES,
    HALF,
    HALF_THEN_FULL,
    lasting('EIO', WRITES),
    lasting('ENOSPC', ['create', 'write']),
    lasting('EDQUOT', GROWS),
    lasting('EROFS', WRITES),
  ],
  sync: [...CHANGES, lasting('EIO', WRITES), lasting('EROFS', WRITES)],
  truncate: [once('EIO'), once('ENOSPC'), once('EROFS')],
  rename: CHANGES,
  unlink: [once('EIO'), once('EROFS')],
  mkdir: CHANGES,
}

interface Answer {
  kind: 'done' | 'refused' | 'unknown' | 'none'
  text: string
}

const KINDS: Record<string, Answer['kind']> = {
  '507 SIZE03': 'refused',
  '503 ERR05': 'refused',
  // Of a page that cannot be read; see mayAnswer.
  '500 ERR02': 'refused',
  '503 ERR04': 'unknown',
}

async function answerTo({ act }: Change): Promise<Answer> {
  try {
    const response = await act()
    const text = await response.text()
    if (response.ok) return { kind: 'done', text: String(response.status) }
    const { code } = JSON.parse(text) as { code: string }
    const name = `${response.status} ${code}`
    const kind = KINDS[name]
    if (kind === undefined) throw new Fault('wrong', `answered ${name}`)
    return { kind, text: name }
  } catch (error) {
    if (error instanceof Fault || !isCut(error)) throw error
    return { kind: 'none', text: 'no answer' }
  }
}

const isFull = ({ error }: DiskFault): boolean => error === 'ENOSPC' || error === 'EDQUOT'

/** What may be answered when this call has failed, besides that it was done. */
function mayAnswer({ op, path }: Call, fault: DiskFault): string[] {
  const isLasting = fault.later !== undefined
  if (path.startsWith('blobs')) {
    if (isFull(fault)) return ['507 SIZE03']
    // What fails from then on may be a write that was answered first.
    if (op === 'sync') return isLasting ? ['503 ERR04', '503 ERR05'] : ['503 ERR04']
    return ['503 ERR05']
  }
  if (op === 'write' && path.endsWith('-wal')) {
    if (fault.error === 'ENOSPC' || (fault.error === 'EDQUOT' && isLasting)) return ['507 SIZE03']
    if (fault.error === 'EROFS' && isLasting) return ['503 ERR05']
    return ['503 ERR04']
  }
  // The index of the log comes after the log: what failed there may have happened.
  if (op === 'sync' || path.endsWith('-shm')) return ['503 ERR04']
  return op === 'read' ? ['500 ERR02', '503 ERR05'] : ['503 ERR05']
}

/** What was seen so far of a change. */
interface Watched {
  change: Change
  answer: Answer
  last: string
}

async function look(watched: Watched): Promise<void> {
  const { answer, last } = watched
  const found = await watched.change.look()
  if (found !== 'old' && found !== 'new') throw new Fault('wrong', `after ${answer.text}: ${found}`)
  if (answer.kind === 'done' && found === 'old' && watched.change.promisesNothing !== true)
    throw new Fault('lost', `after ${answer.text}: old`)
  if (answer.kind === 'refused' && found === 'new')
    throw new Fault('contradicted', `after ${answer.text}: new`)
  if (last === 'new' && found === 'old')
    throw new Fault('contradicted', `new, then old, after ${answer.text}`)
  watched.last = found
}

async function lookAtAll(all: Watched[]): Promise<void> {
  for (const one of all) await look(one)
}

/** What a restart has shown stays, whatever was answered. */
async function expectSame(all: Watched[]): Promise<void> {
  for (const one of all) {
    const { last } = one
    await look(one)
    if (one.last !== last) throw new Fault('contradicted', `${last}, then ${one.last}`)
  }
}

/** What became of a case whose call did not come. */
export const NOT_REACHED = 'not reached'

/** Makes one call of a deed fail, and looks at all that comes after. Answers what it answered. */
export async function tryCase(
  place: Place,
  deed: Deed,
  { op, at, fault, end }: { op: Op; at: number; fault: DiskFault; end: End },
  turn: number,
): Promise<string> {
  const { disk } = place
  const changes = await deed.prepare(place, turn)
  for (const change of changes) {
    const before = await change.look()
    if (before !== 'old') throw new Fault('wrong', `before: ${before}`)
  }
  disk.arm(op, at, fault)
  const answers = await Promise.all(changes.map(answerTo))
  const all = changes.map((change, one) => ({
    change,
    answer: answers[one] as Answer,
    last: 'old',
  }))
  const isUnknown = answers.some(({ kind }) => kind === 'unknown' || kind === 'none')
  if (isUnknown) await place.expectStop()
  await disk.settled()
  const failed = disk.calls()[at - 1]
  // Reads go on while the disk takes no writes.
  if (!isUnknown && failed !== undefined) await place.unlessStopped(() => readOn(place, fault))
  disk.calm()
  if (failed !== undefined) {
    const may = mayAnswer(failed, fault)
    // What fails before the commit has not happened.
    if (deed.spills === true && failed.path.endsWith('-wal')) may.push('503 ERR05')
    judge(answers, may, failed)
  }
  if (!isUnknown) {
    await place.unlessStopped(async () => {
      await lookAtAll(all)
      await place.promise()
    })
  }
  await place.kill(end)
  await place.start()
  await lookAtAll(all)
  await place.expectKept()
  if (failed?.op === 'sync' || end === 'kill') {
    await place.promise()
    await place.kill('cut')
    await place.start()
    await expectSame(all)
    await place.expectKept()
  }
  for (const one of all) await again(one)
  return failed === undefined
    ? NOT_REACHED
    : [...new Set(answers.map(({ text }) => text))].join(' & ')
}

async function readOn({ keeper }: Place, { error }: DiskFault): Promise<void> {
  const { status } = await keeper.get('small')
  if (status !== 200) throw new Fault('wrong', `a read answers ${status} after ${error}`)
}

function judge(answers: Answer[], may: string[], failed: Call): void {
  for (const { kind, text } of answers) {
    if (kind === 'done' || kind === 'none' || may.includes(text)) continue
    // Whoever comes after an unknown outcome is not tried any more.
    if (answers.length > 1 && text === '503 ERR05') continue
    throw new Fault(
      'wrong',
      `answered ${text}, not ${may.join()}, when ${failed.op} of ${failed.path} failed`,
    )
  }
}

/** What did not happen can be done now. */
async function again({ change, last }: Watched): Promise<void> {
  if (last === 'new') return
  const response = await change.act()
  if (!response.ok) throw new Fault('wrong', `again: ${response.status} ${await response.text()}`)
  const found = await change.look()
  if (found !== 'new') throw new Fault('wrong', `again: ${found}`)
}

/** The calls that a deed makes. */
export async function callsOf(place: Place, deed: Deed): Promise<Call[]> {
  // As a case finds it: just started, and looked at.
  await place.kill()
  await place.start()
  const changes = await deed.prepare(place, 1_000_000)
  for (const change of changes) await change.look()
  place.disk.watch()
  await Promise.all(changes.map(answerTo))
  await place.disk.settled()
  const calls = place.disk.calls()
  place.disk.calm()
  return calls
}

export async function openFor(scope: Scope, library: string, { settings }: Deed): Promise<Place> {
  const place = await openPlace(scope, library)
  if (settings === undefined) return place
  await place.stop()
  place.set(await settings(scope))
  await place.start()
  return place
}
