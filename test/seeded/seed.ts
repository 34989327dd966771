// Owns the trial of a seeded bug: a copy of the project with the bug in it, and the tests that have to
// fail there.
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import type { SeededBug } from './bug.ts'

export interface Trial {
  bug: SeededBug
  /** The tests that failed: none when the bug survived. */
  caughtBy: string[]
}

const project = fileURLToPath(new URL('../..', import.meta.url))
const AT_ONCE = 2
const MOST_MS = 300_000

/** Tries all, two at a time; answers them in their order, and tells each as it ends. */
export async function tryAll(
  bugs: SeededBug[],
  tell: (trial: Trial) => void = () => undefined,
): Promise<Trial[]> {
  const trials: Trial[] = []
  let next = 0
  async function work(): Promise<void> {
    while (next < bugs.length) {
      const index = next++
      const bug = bugs[index] as SeededBug
      const trial = { bug, ...(await runTests(bug, bug.edits)) }
      trials[index] = trial
      tell(trial)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return trials
}

/** The tests that would notice, without the bug: what fails here catches nothing. */
export async function failWithoutBug(bugs: SeededBug[]): Promise<string[]> {
  const failed: string[] = []
  for (const test of new Set(bugs.map((bug) => bug.test))) {
    const names = bugs.filter((bug) => bug.test === test).map(({ notices }) => escape(notices))
    const { caughtBy } = await runTests({ test, notices: names.join('|') }, [])
    failed.push(...caughtBy)
  }
  return failed
}

async function runTests(
  { test, notices }: Pick<SeededBug, 'test' | 'notices'>,
  edits: SeededBug['edits'],
): Promise<{ caughtBy: string[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'sync-node-seeded-'))
  try {
    for (const name of ['src', 'test', 'scripts', 'README.md', 'package.json', 'sea-config.json']) {
      cpSync(join(project, name), join(folder, name), { recursive: true })
    }
    symlinkSync(join(project, 'node_modules'), join(folder, 'node_modules'))
    for (const edit of edits) seed(folder, edit)
    const pattern = edits.length === 0 ? notices : escape(notices)
    const output = await run(folder, ['--test-name-pattern', pattern, `test/${test}.test.ts`])
    return { caughtBy: failedIn(output) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

// A test within a suite, and what TAP says of it. (A diff in it can have dots of its own.)
const RESULT = /^ +(not )?ok \d+ - (.*)\n( +)---\n([^]*?)\n\3\.\.\.$/gm

/** The tests that an assertion ended. Any other end shows a seed that breaks the program. */
function failedIn(output: string): string[] {
  const results = [...output.matchAll(RESULT)].filter(([all]) => !all.includes("type: 'suite'"))
  const failed = results.filter(([, isNot]) => isNot !== undefined)
  const isClear = failed.every(([, , , , why = '']) => why.includes("name: 'AssertionError'"))
  if (results.length === 0 || !isClear) {
    throw new Error(
      `the tests do not exist, could not run, or did not come to a verdict:\n${output}`,
    )
  }
  return [...new Set(failed.map(([, , name = '']) => name))]
}

function seed(folder: string, { file, find, replace }: SeededBug['edits'][number]): void {
  const path = join(folder, file)
  const parts = readFileSync(path, 'utf8').split(find)
  if (parts.length !== 2) {
    throw new Error(`${file} has ${parts.length - 1} times, not once:\n${find}`)
  }
  writeFileSync(path, parts.join(replace))
}

async function run(folder: string, args: string[]): Promise<string> {
  const child = spawn(process.execPath, ['--import', 'tsx', '--test-reporter=tap', ...args], {
    cwd: folder,
    // Not all of the environment: from within a test, the tests of the copy would take part in it.
    env: { PATH: process.env['PATH'], UV_THREADPOOL_SIZE: '16', CI: process.env['CI'] },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: MOST_MS,
  })
  const [out, errors] = await Promise.all([text(child.stdout), text(child.stderr)])
  return out + errors
}

const escape = (words: string): string => words.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
