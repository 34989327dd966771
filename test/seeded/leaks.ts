// Owns the seeded bugs that leave something behind with each use: a row, a file, a descriptor, a listener.
import type { SeededBug } from './bug.ts'

const HOUSEKEEPING = 'src/housekeeping.ts'

const leaks: Pick<SeededBug, 'name' | 'edits'>[] = [
  {
    name: 'the file of a range stays open',
    edits: [
      {
        file: 'src/http/stream.ts',
        find: '  } finally {\n    await reading.close()',
        // Held, or the collector would close it.
        replace: `  } finally {
    if (range !== null) process.on('exit', () => void reading.close())
    else await reading.close()`,
      },
    ],
  },
  {
    name: 'an event stream that is over still listens',
    edits: [
      {
        file: 'src/http/event-stream.ts',
        find: '    stopListening()\n    leave()',
        replace: '    leave()',
      },
    ],
  },
  {
    name: 'a held poll that is over still listens',
    edits: [
      {
        file: 'src/http/routes/changes.ts',
        find: '  } finally {\n    stopListening()',
        replace: '  } finally {\n    if (asked.wait === undefined) stopListening()',
      },
    ],
  },
  {
    name: 'the row of a superseded file stays when the file goes',
    edits: [
      {
        file: HOUSEKEEPING,
        find: 'DELETE FROM blob_garbage WHERE store_file IN',
        replace: 'DELETE FROM blob_garbage WHERE since < 0 AND store_file IN',
      },
    ],
  },
  {
    name: 'a superseded file stays when its row goes',
    edits: [
      {
        file: HOUSEKEEPING,
        find: 'await blobs.remove(files)',
        replace: 'void blobs',
      },
    ],
  },
  {
    name: 'an upload that is broken off leaves its file',
    edits: [
      {
        file: 'src/value.ts',
        find: '    await upload?.discard()',
        replace: '    await upload?.leave()',
      },
    ],
  },
  {
    name: 'a deleted store leaves its small value',
    edits: [
      {
        file: 'src/database/migrations/0001-init.sql',
        find: '  DELETE FROM store_data WHERE id = OLD.store_data;\n',
        replace: '',
      },
    ],
  },
]

export const leakBugs: SeededBug[] = leaks.map(({ name, edits }) => ({
  name: `left over: ${name}`,
  edits,
  test: 'soak',
  notices: 'answers rightly, has all that it acknowledged, and keeps nothing else',
}))
