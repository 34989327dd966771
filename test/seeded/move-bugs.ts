// Owns the seeded bugs that a move to a database server and a bucket has to show.
import type { SeededBug } from './bug.ts'

const MOVE = 'src/move.ts'
const TRANSFER = 'src/database/transfer.ts'

const COMPARED = 'that does not keep what it was given is noticed'
const ALL = 'brings all to a database server and a bucket, and leaves the folder as it is'

type Bug = Omit<SeededBug, 'test' | 'edits'> & SeededBug['edits'][number]

const bugs: Bug[] = [
  {
    name: 'rows that were moved are not compared',
    file: TRANSFER,
    find: '    if (!isSame(rows, others ?? [])) throw new Different(table.name)\n',
    replace: '',
    notices: COMPARED,
  },
  {
    name: 'values that were moved are not compared',
    file: MOVE,
    find: '    if (isOnDisk) await checkValues(source, delivery)\n',
    replace: '',
    notices: COMPARED,
  },
  {
    name: 'a database that nodes had begun is emptied without a mark',
    file: TRANSFER,
    find: "if (left.includes('migration')) {",
    replace: 'if (left.length < 0) {',
    notices: 'is emptied by the next run, where the one before was killed at that',
  },
  {
    name: 'a database is emptied under a node that runs on it',
    file: MOVE,
    find: '    if (await peers.areThere(server, Date.now())) throw inUse()\n',
    replace: '',
    notices: 'may be one that a server has begun, before anybody had an account',
  },
  {
    name: 'the history of the feed stays behind',
    file: TRANSFER,
    find: "new Set(['node', 'migration', 'hold'])",
    replace: "new Set(['node', 'migration', 'hold', 'feed_start'])",
    notices: ALL,
  },
  {
    name: 'a move goes on with rows from before the data was used again',
    file: MOVE,
    find: 'return found.state === state ? id : begin(id)',
    replace: 'return id',
    notices: 'begins anew when the data was used meanwhile',
  },
  {
    name: 'a server starts on a part of what is moved',
    file: 'src/database/migrate.ts',
    find: 'if (done.has(UNFINISHED)) {',
    replace: 'if (done.has(-1)) {',
    notices: 'goes on where it was, wherever it was killed',
  },
  {
    name: "a bucket with others' values is taken",
    file: MOVE,
    find: '  if (found !== null && found.id !== id) throw othersValues()\n',
    replace: '',
    notices: 'is refused with data of others, which stays as it is',
  },
]

export const moveBugs: SeededBug[] = bugs.map(({ file, find, replace, ...bug }) => ({
  ...bug,
  edits: [{ file, find, replace }],
  test: 'migrate-data',
}))
