// Owns the look at who can read STATIC_ROOT, and at what was left in it unfinished.
import { existsSync, lstatSync, readdirSync, statSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { serviceUser } from '../installed.ts'
import { count } from '../units.ts'
import { ok, problem, warning, type Finding } from './finding.ts'

const MOST_NAMED = 10
const UNFINISHED = /^(?:secret\.new|reserve\.new|probe-\d+)$/

/** `isReadable` is false where nothing more can be looked at. */
export function checkRights(root: string): { findings: Finding[]; isReadable: boolean } {
  const refuse = (text: string) => ({ findings: [problem('rights', text)], isReadable: false })
  let folder: Stats | undefined
  try {
    folder = statSync(root, { throwIfNoEntry: false })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return refuse(`${root} cannot be looked at (${code}): run this as its owner, or as root`)
  }
  const self = process.getuid?.() ?? 0
  if (folder === undefined || !folder.isDirectory()) {
    return refuse(`${root} is not there: set STATIC_ROOT to the server's folder`)
  }
  if (self !== 0 && folder.uid !== self) {
    return refuse(`${root} belongs to user ${folder.uid}: run this as that user, or as root`)
  }
  const findings = [...tooOpen(root, folder), ...ofOthers(root, folder)]
  if (folder.uid === 0 && serviceUser() !== null) {
    const text = `${root} belongs to root, and the service cannot use it: chown -R sync-node: ${root}`
    findings.push(problem('rights', text))
  }
  if (findings.length > 0) return { findings, isReadable: true }
  return { findings: [ok('rights', 'the data is for its owner alone')], isReadable: true }
}

function tooOpen(root: string, folder: Stats): Finding[] {
  const secret = join(root, 'secret')
  const found: Finding[] = []
  if (isOpen(folder)) {
    found.push(problem('rights', `others may enter the folder: chmod 700 ${root}`))
  }
  if (existsSync(secret) && isOpen(statSync(secret))) {
    found.push(problem('rights', `others may read the secret: chmod 600 ${secret}`))
  }
  return found
}

const isOpen = ({ mode }: Stats): boolean => (mode & 0o077) !== 0

/** A file that the server's user cannot read or write stops it half-way. */
function ofOthers(root: string, { uid, gid }: Stats): Finding[] {
  const names = ['', 'blobs', 'trash'].flatMap((folder) => {
    const path = join(root, folder)
    try {
      return existsSync(path) ? readdirSync(path).map((name) => join(folder, name)) : []
    } catch {
      return [] // another user's, and named itself
    }
  })
  const foreign = names.filter((name) => {
    const entry = lstatSync(join(root, name), { throwIfNoEntry: false })
    return entry !== undefined && entry.uid !== uid
  })
  if (foreign.length === 0) return []
  const text = `${count(foreign.length, 'file')} of another user than the folder's: chown -R ${uid}:${gid} ${root}`
  return [problem('rights', text, foreign.slice(0, MOST_NAMED))]
}

export function checkLeftovers(root: string, isServing: boolean): Finding {
  // The server that runs may be at work on one.
  const names = isServing ? [] : readdirSync(root).filter((name) => UNFINISHED.test(name))
  if (names.length === 0) return ok('leftovers', 'nothing unfinished lies around')
  return warning(
    'leftovers',
    'a run that broke off left files that nobody needs: remove them',
    names,
  )
}
