// Owns the seeded bugs of the distributed kind, that the proof with several nodes has to notice.
import type { SeededBug } from './bug.ts'

const SERVER = 'are one server to all clients, from source'
const LEFT_ALONE = 'leave alone what the other is just taking in, and what it has not yet named'
const ONE_AT_A_TIME = 'tidy it one at a time, and what is superseded is removed once'

const REMOTE = 'src/database/remote.ts'
const S3 = 'src/blobs/s3.ts'

const one = (
  name: string,
  [file, find, replace]: readonly [file: string, find: string, replace: string],
  notices = SERVER,
  test = 'cluster',
): SeededBug => ({
  name: `cluster: ${name}`,
  edits: [{ file, find, replace }],
  test,
  notices,
})

export const bugsOfCluster: SeededBug[] = [
  one('nothing is heard of other nodes', [
    'src/database/follow.ts',
    'if (accounts?.length !== 0) onChange(accounts)',
    'if (accounts === null) onChange(accounts)',
  ]),
  one('a write whose answer got lost is said not to have happened', [
    REMOTE,
    'if (error instanceof NotSent) throw unreachable(error)\n  // With',
    'if (error instanceof NotSent || error instanceof NoAnswer) throw unreachable(error)\n  // With',
  ]),
  // The cluster notices too, when such an answer of many gets lost: here it is that one.
  one(
    'a write whose answer got lost is sent again',
    [
      REMOTE,
      'return again(() => call(work), hasNotHappened)',
      'return again(() => call(work), isAway)',
    ],
    'say that a write is unknown when its answer got lost, and settle it by its digest',
    'remote',
  ),
  one('a write does not ask again for the token', [
    'src/write.ts',
    "const isMatch = condition.kind === 'match' ? 'store_token = ?' : '?'",
    "const isMatch = condition.kind === 'match' ? '? IS NOT NULL' : '?'",
  ]),
  one(
    'a value whose row may be there is removed',
    [
      'src/store.ts',
      "error.code === 'ERR04') received.release()",
      "error.code === 'ERR02') received.release()",
    ],
    'keep a large value whose row may be there: the answer alone was lost',
  ),
  one('no new range begins when the database was away', [
    'src/database/history.ts',
    "sql('INSERT OR REPLACE INTO feed_start SELECT seq + 1, ? FROM node', [nonce])",
    "sql('SELECT ?', [nonce])",
  ]),
  one('a cursor is not compared with its range of the history', [
    'src/cursor.ts',
    "row['nonce'] === position.nonce &&",
    "row['nonce'] !== undefined &&",
  ]),
  one(
    'nginx sends what a node did not answer to another',
    ['README.md', 'proxy_next_upstream off; ', 'proxy_next_upstream error timeout; '],
    'sends to no other what a node took and did not answer',
  ),
  one(
    'a lease is not asked for',
    [
      'src/lease.ts',
      'return rowsAffected === 1 ? until : null',
      'return rowsAffected < 2 ? until : null',
    ],
    ONE_AT_A_TIME,
  ),
  one(
    'an upload that another node has begun is taken for left over',
    [S3, 'now - modified > UPLOAD_LEFT_MS', 'now - modified > 0'],
    LEFT_ALONE,
  ),
  one(
    'a value that another node has not yet named is taken for left over',
    [S3, 'now - modified > LEFT_MS', 'now - modified > 0'],
    LEFT_ALONE,
  ),
  one(
    'a server that was exchanged is written to before it is known',
    [
      'src/database/wire.ts',
      'if (isAnyway || isTrusted) begin()',
      'if (isAnyway || request.url !== "") begin()',
    ],
    'send nothing over a first connection before the server behind it is trusted',
    'remote',
  ),
  one(
    'nobody is woken when the numbers that are followed go back',
    [
      'src/database/follow.ts',
      'if (last < after || rows.length > MOST_TOUCHED) return null',
      'if (rows.length > MOST_TOUCHED) return null',
    ],
    'wake everybody when what they follow has gone back',
    'remote',
  ),
]
