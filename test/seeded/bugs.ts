// Owns the list of seeded bugs: each takes one promise of the server away, and names the tests that
// have to notice.
import type { SeededBug } from './bug.ts'
import { diskBugs } from './disk-bugs.ts'
import { leakBugs } from './leaks.ts'
import { fuzzBugs } from './fuzz-bugs.ts'
import { moveBugs } from './move-bugs.ts'
import { crashBugs, powerCutBugs } from './power-cuts.ts'

const WRITER = 'src/database/writer.ts'
const DISK = 'src/blobs/disk.ts'
const STORE = 'src/store.ts'
const WRITE = 'src/write.ts'
const PERMISSION = 'src/permission.ts'
const SECRET = 'src/secret.ts'
const STREAM = 'src/http/stream.ts'
const CHANGE = 'src/change.ts'

const MODEL = 'get the answers of the model, and end with what it has'

export const seededBugs: SeededBug[] = [
  {
    name: 'a commit is not synced',
    edits: [
      {
        file: 'src/database/sqlite.ts',
        find: 'PRAGMA synchronous = FULL',
        replace: 'PRAGMA synchronous = OFF',
      },
    ],
    test: 'durability',
    notices: 'syncs the log of the database before each answer',
    isAlways: true,
  },
  {
    name: 'a commit is answered before it is made',
    edits: [
      {
        file: WRITER,
        find: '  const failure = commit()\n',
        // All but the first two, which the start itself reads back.
        replace: `  if (group.every(({ id }) => id > 2)) send({ answers, touched: [] })
  const failure = commit()\n`,
      },
    ],
    test: 'durability',
    notices: 'syncs the log of the database before each answer',
  },
  {
    name: 'every write is a commit of its own',
    edits: [{ file: WRITER, find: 'MAX_GROUP = 64', replace: 'MAX_GROUP = 1' }],
    test: 'durability',
    notices: 'makes one sync of the writes that wait',
  },
  {
    name: 'reads are answered from what is not committed',
    edits: [
      {
        file: 'src/database/embedded.ts',
        find: 'return isRead(one.sql) ? reads.execute(one) : ((await writer.write([one]))[0] as ResultSet)',
        replace: 'return (await writer.write([one]))[0] as ResultSet',
      },
      {
        file: WRITER,
        find: '    answers.push(writeOne(request))\n',
        replace: `    const one = writeOne(request)
    const [first] = request.statements
    if (/^\\s*SELECT/.test(texts.get(first?.text ?? -1) ?? '')) send({ answers: [one], touched: [] })
    else answers.push(one)\n`,
      },
    ],
    test: 'durability',
    notices: 'shows nobody a value that could still be lost',
  },
  {
    name: 'a file is not synced',
    edits: [
      {
        file: DISK,
        find: '    await sync(() => file.datasync())\n    if (!isEntrySynced)',
        replace: '    if (!isEntrySynced)',
      },
    ],
    test: 'durability',
    notices: 'has a file and its folder entry on the disk before the row that names it',
    isAlways: true,
  },
  {
    name: 'a folder is not synced after a file was made in it',
    edits: [{ file: DISK, find: 'sync(syncEntry)', replace: 'sync(async () => {})' }],
    test: 'durability',
    notices: 'has a file and its folder entry on the disk before the row that names it',
    isAlways: true,
  },
  {
    name: 'a large file is synced at its end alone',
    edits: [
      {
        file: DISK,
        find: 'SYNC_EVERY_BYTES = 8 * 1024 * 1024',
        replace: 'SYNC_EVERY_BYTES = 1024 ** 4',
      },
    ],
    test: 'durability',
    notices: 'syncs a file every 8 MiB',
  },
  {
    name: 'a superseded file goes before the commit',
    edits: [
      {
        file: STORE,
        find: '  const token = unique(deps.random)\n',
        replace: `  const token = unique(deps.random)
  if (before?.file) await deps.blobs.remove([before.file])\n`,
      },
    ],
    test: 'durability',
    notices: 'removes no superseded file before what supersedes it is durable',
  },
  {
    name: 'a superseded file goes while others are about to read it',
    edits: [
      {
        file: DISK,
        find: "GRACE_MS = new TimeSpan(5, 'm').milliseconds()",
        replace: 'GRACE_MS = 0',
      },
    ],
    test: 'guards',
    notices: 'stays for those who are about to read it',
  },
  {
    name: 'a start serves before the log is in the database',
    edits: [
      {
        file: WRITER,
        find: 'if (checkpointFirst && checkpoint',
        replace: 'if (false && checkpoint',
      },
    ],
    test: 'durability',
    notices: 'after kill -9 has the log in the database',
    isAlways: true,
  },
  {
    name: 'the secret is not synced',
    edits: [{ file: SECRET, find: '    await file.sync()\n', replace: '' }],
    test: 'durability',
    notices: 'has the secret on the disk',
  },
  {
    name: 'the folder of the secret is not synced',
    edits: [{ file: SECRET, find: '  await syncFolder(root)\n', replace: '' }],
    test: 'durability',
    notices: 'has the secret on the disk',
  },
  {
    name: 'a write does not ask again for the token',
    edits: [
      {
        file: WRITE,
        find: "const isMatch = condition.kind === 'match' ? 'store_token = ?' : '?'",
        replace: "const isMatch = '? IS NOT NULL'",
      },
    ],
    test: 'guards',
    notices: 'loses to another that had the same token',
    isAlways: true,
  },
  {
    name: 'a deletion does not ask again for the token',
    edits: [
      {
        file: WRITE,
        find: "AND ${condition.kind === 'match' ? 'store_token = ?' : '?'}",
        replace: 'AND ? IS NOT NULL',
      },
    ],
    test: 'guards',
    notices: 'loses to a write of another version',
  },
  {
    name: 'a write does not ask again for the permission',
    edits: [{ file: WRITE, find: 'AND p.permission IN (${permissions}))', replace: ')' }],
    test: 'guards',
    notices: 'is refused when the permission was lowered meanwhile',
    isAlways: true,
  },
  {
    name: 'a write does not ask again whether the session lives',
    edits: [
      {
        file: WRITE,
        find: `SELECT 1 FROM sync_session s JOIN held_permission p ON p.sync_account_id = s.id
  WHERE s.token = ? AND s.expiration > ? AND p.store_key`,
        replace: "SELECT 1 FROM held_permission p WHERE ? <> '' AND ? > 0 AND p.store_key",
      },
    ],
    test: 'guards',
    notices: 'is refused when its session ended meanwhile',
    isAlways: true,
  },
  {
    name: 'a write does not ask again whether the session expired',
    edits: [
      {
        file: WRITE,
        find: 's.expiration > ? AND p.store_key = sync_store.store_key',
        replace: '? > 0 AND p.store_key = sync_store.store_key',
      },
    ],
    test: 'guards',
    notices: 'is refused when its session expired meanwhile',
  },
  {
    name: 'a creation does not ask again whether the session lives',
    edits: [
      {
        file: WRITE,
        find: '       WHERE ${session.ALIVE}`,',
        replace: "       WHERE ? <> '' AND ? > 0`,",
      },
    ],
    test: 'guards',
    notices: 'makes no store when its session or account ended meanwhile',
  },
  {
    name: 'a creation does not ask again for the quota',
    edits: [{ file: WRITE, find: 'OR used <= ? FROM', replace: 'OR ? > 0 FROM' }],
    test: 'guards',
    notices: 'is not passed by two uploads that each would have fitted',
  },
  {
    name: 'a write does not ask again for the quota',
    edits: [{ file: WRITE, find: 'AND a.used - t.size + ?2 <= ?3)', replace: 'AND ?3 > 0)' }],
    test: 'guards',
    notices: 'is not passed by two that replace',
  },
  {
    name: 'a grant does not ask again for OWN',
    edits: [
      {
        file: PERMISSION,
        find: `      require(OWNS, [self.token, clock.now(), found.key]),
      require(HAS_ROOM, room),`,
        replace: `      require(HAS_ROOM, room),`,
      },
    ],
    test: 'guards',
    notices: 'A grant or a revocation, at its commit',
  },
  {
    name: 'a grant does not ask whether it fits into a quota',
    edits: [{ file: PERMISSION, find: '      require(HAS_ROOM, room),\n', replace: '' }],
    test: 'quota',
    notices: 'a full quota refuses to OWN what others hand over',
  },
  {
    name: 'the last OWN may leave',
    edits: [
      {
        file: PERMISSION,
        find: '      require(IS_OWNED, [found.key]),\n    ],',
        replace: '    ],',
      },
    ],
    test: 'guards',
    notices: 'leaves an OWN when two that OWN leave at once',
  },
  {
    name: 'a small value is not checked before it is sent',
    edits: [
      { file: 'src/http/routes/store.ts', find: ' || !isIntact(inline, digest)', replace: '' },
    ],
    test: 'guards',
    notices: 'that is small is not sent',
  },
  {
    name: 'a large value is not checked before its end is sent',
    edits: [
      {
        file: STREAM,
        find: '!isEqual(hash, digest)) return false',
        replace: 'false) return false',
      },
    ],
    test: 'guards',
    notices: 'that is large is cut short',
  },
  {
    name: 'the end of a large value is sent before it is checked',
    edits: [
      {
        file: STREAM,
        find: `    if (position > end && hash !== undefined && !isEqual(hash, digest)) return false
    sent = write(outgoing, chunk)`,
        replace: `    sent = write(outgoing, chunk)
    sent.catch(() => undefined)
    const isEnd = position > end && hash !== undefined
    if (isEnd) await sent
    if (isEnd && !isEqual(hash, digest)) return false`,
      },
    ],
    test: 'guards',
    notices: 'that is large is cut short',
  },
  {
    name: 'the file of the database is opened beside SQLite',
    edits: [
      {
        file: 'src/node.ts',
        find: '(statSync(pathIn(root), { throwIfNoEntry: false })?.size ?? 0) > 0',
        replace: 'readFileSync(pathIn(root)).length > 0',
      },
    ],
    test: 'commands',
    notices: 'no code of ours does',
  },
  {
    name: 'feed: an event is sent before it is durable',
    edits: [
      {
        file: 'src/database/sqlite.ts',
        find: 'PRAGMA synchronous = FULL',
        replace: 'PRAGMA synchronous = NORMAL',
      },
      {
        file: WRITER,
        find: 'import { rmSync, statSync',
        replace: 'import { closeSync, fdatasyncSync, openSync, rmSync, statSync',
      },
      {
        file: WRITER,
        find: '  const commitMs = ',
        // What is answered is durable all the same.
        replace: `  if (failure === null) {
    send({ answers: [], touched: takeTouched() })
    const log = openSync(\`\${path}-wal\`, 'r+')
    fdatasyncSync(log)
    closeSync(log)
  }
  const commitMs = `,
      },
    ],
    test: 'durability',
    notices: 'tells nobody of a change that could still be lost',
  },
  {
    name: 'feed: an event is announced before its commit, and found by nobody',
    edits: [
      {
        file: WRITER,
        find: '  const failure = commit()\n',
        replace: `  if (isWatching) send({ answers: [], touched: takeTouched() })
  const failure = commit()\n`,
      },
    ],
    test: 'durability',
    notices: 'tells nobody of a change that could still be lost',
  },
  {
    name: 'feed: what another process wrote is found by a heartbeat alone',
    edits: [
      {
        file: WRITER,
        find: 'if (dataVersion !== undefined && version !== dataVersion) send',
        replace: 'if (dataVersion === null) send',
      },
    ],
    test: 'changes',
    notices: 'hears within two seconds what another process writes',
  },
  {
    name: 'feed: a cursor skips a change',
    edits: [
      {
        file: 'src/change.ts',
        find: 'position: advance(since, row),',
        replace: "position: advance(since, { ...row, change_seq: Number(row['change_seq']) + 1 }),",
      },
    ],
    test: 'changes',
    notices: 'answers everything at first, then what changed',
  },
  {
    name: 'feed: a tombstone is forgotten',
    edits: [
      {
        file: 'src/database/migrations/0001-init.sql',
        find: 'WHERE a.number = OLD.sync_account_id AND a.dead = 0;',
        replace: 'WHERE a.number = OLD.sync_account_id AND a.dead = 2;',
      },
    ],
    test: 'changes',
    notices: 'answers everything at first, then what changed',
  },
  {
    name: "feed: another account's cursor is taken",
    edits: [{ file: 'src/cursor.ts', find: 'update(self.keySalt)', replace: "update('')" }],
    test: 'changes',
    notices: 'is of no use to another account',
  },
  {
    name: 'feed: a cursor from after the copy that was restored is taken',
    edits: [
      {
        file: 'src/cursor.ts',
        find: "row['nonce'] === position.nonce &&",
        replace: '',
      },
    ],
    test: 'changes',
    notices: 'from after the copy that was restored is refused',
  },
  {
    name: 'feed: a stream goes on from the wrong place',
    edits: [
      {
        file: 'src/http/routes/changes.ts',
        find: "typeof last === 'string' && last !== '' ? last : asked.since",
        replace: "typeof last === 'number' ? last : asked.since",
      },
    ],
    test: 'changes',
    notices: 'tells what is there, then what happens',
  },
  {
    name: 'feed: a stream that goes on repeats what was seen',
    edits: [
      {
        file: 'src/http/event-stream.ts',
        find: 'seal(entry.position)',
        replace: 'seal(stream.position)',
      },
    ],
    test: 'changes',
    notices: 'tells what is there, then what happens',
  },
  {
    name: 'feed: a cursor from before what was forgotten is taken',
    edits: [
      {
        file: 'src/cursor.ts',
        find: "anchor >= Number(row['forgotten_seq'])",
        replace: 'true',
      },
    ],
    test: 'changes',
    notices: 'is refused, by whatever way it reads',
  },
  {
    name: 'feed: a stream outlives its session',
    edits: [
      {
        file: WRITER,
        find: 'INSERT OR IGNORE INTO touched VALUES (OLD.id)',
        replace: 'INSERT OR IGNORE INTO touched VALUES (-1)',
      },
    ],
    test: 'changes',
    notices: 'by a logout',
  },
  {
    name: 'feed: a stream is written faster than it is read',
    edits: [
      {
        file: 'src/http/event-stream.ts',
        find: 'if (!outgoing.write(text)) await drained(outgoing)',
        replace: 'outgoing.write(text)',
      },
    ],
    test: 'event-stream',
    notices: 'that nobody reads is cut after a minute',
  },
  {
    name: 'upload: a refusal closes on a client that still sends',
    edits: [{ file: 'src/http/early.ts', find: 'status >= 400 &&', replace: 'status < 400 &&' }],
    test: 'upload',
    notices: 'gets its answer even if it listens only at its end',
  },
  {
    name: 'upload: one that was refused and stopped is never cut',
    edits: [
      {
        file: 'src/http/early.ts',
        find: 'await readOn(incoming, SLOW, stopped)',
        replace: 'await readOn(incoming, { ...SLOW, bytes: 0 }, stopped)',
      },
    ],
    test: 'upload',
    notices: 'that was refused is cut when next to nothing comes',
  },
  {
    name: 'proxy: a refusal closes on a proxy that still sends',
    edits: [{ file: 'src/http/early.ts', find: 'status >= 400 &&', replace: 'status < 400 &&' }],
    test: 'proxy',
    notices: 'is no failure of the proxy, of a large value too',
  },
  {
    name: 'proxy: a refusal does not wait for a body that comes fast',
    edits: [
      {
        file: 'src/http/early.ts',
        find: '  await readOn(incoming, FAST, stopped)\n',
        replace: '',
      },
    ],
    test: 'proxy',
    notices: 'is no failure of the proxy, of a large value too',
  },
  {
    name: 'proxy: the tag of what was compressed is not understood',
    edits: [
      {
        file: 'src/http/conditions.ts',
        find: ".replace(/[-;](?:gzip|br|zstd|deflate)$/i, '')",
        replace: '',
      },
    ],
    test: 'proxy',
    notices: 'a conflict is told from none, by whatever ETag came through',
  },
  {
    name: 'proxy: a weak tag is not understood',
    edits: [{ file: 'src/http/conditions.ts', find: ".replace(/^W\\//i, '')", replace: '' }],
    test: 'proxy',
    notices: 'a conflict is told from none, by whatever ETag came through',
  },
  {
    name: 'proxy: a range of another version is given',
    edits: [
      {
        file: 'src/http/conditions.ts',
        find: 'if (ifRange !== undefined && ifRange !== etag) return null',
        replace: '',
      },
    ],
    test: 'proxy',
    notices: 'a download goes on where it broke off',
  },
  {
    name: 'proxy: the end of a damaged value is not held back',
    edits: [{ file: STREAM, find: '!isEqual(hash, digest)', replace: 'isEqual(hash, digest)' }],
    test: 'proxy',
    notices: 'a damaged value does not come whole',
  },
  {
    name: 'proxy: events wait in nginx',
    edits: [{ file: 'src/http/answer.ts', find: "  'X-Accel-Buffering': 'no',\n", replace: '' }],
    test: 'proxy',
    notices: 'events come while the stream is open',
  },
  {
    name: 'proxy: events wait in the compression of Caddy',
    edits: [
      { file: 'src/http/answer.ts', find: "  'Content-Encoding': 'identity',\n", replace: '' },
    ],
    test: 'proxy',
    notices: 'events come while the stream is open',
  },
  {
    name: 'proxy: the first address is believed',
    edits: [{ file: 'src/http/address.ts', find: 'entries.findLast(', replace: 'entries.find(' }],
    test: 'proxy',
    notices: 'clients are told apart by address, whatever they say',
  },
  {
    name: 'proxy: whoever connects is believed',
    edits: [
      {
        file: 'src/http/address.ts',
        find: 'if (!isTrusted(peer)) return toBucket(peer)',
        replace: '',
      },
    ],
    test: 'proxy',
    notices: 'one on another machine is taken at its word when trusted',
  },
  {
    name: 'proxy: a silent stream is longer silent than nginx waits',
    edits: [
      {
        file: 'src/http/event-stream.ts',
        find: 'HEARTBEAT_MS = 20_000',
        replace: 'HEARTBEAT_MS = 100_000',
      },
    ],
    test: 'proxy',
    notices: 'held polls and silent streams last',
  },
  ...[
    { lines: ' nocanon', test: 'keys arrive as they were sent' },
    { lines: '  AllowEncodedSlashes NoDecode\n', test: 'keys arrive as they were sent' },
    { lines: '  client_max_body_size 0;', test: 'values go through whole, both ways' },
    {
      lines: '  proxy_buffer_size 16k;',
      test: 'meta of 8000 characters goes both ways',
    },
    {
      lines: '    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n',
      test: 'clients are told apart by address, whatever they say',
    },
  ].map(({ lines, test: notices }) => ({
    name: `proxy: the README lacks ${lines.trim()}`,
    edits: [{ file: 'README.md', find: lines, replace: '' }],
    test: 'proxy',
    notices,
  })),
  {
    name: 'proxy: the README has nginx decode keys',
    edits: [
      {
        file: 'README.md',
        find: 'proxy_pass http://127.0.0.1:8080;',
        replace: 'proxy_pass http://127.0.0.1:8080/;',
      },
    ],
    test: 'proxy',
    notices: 'keys arrive as they were sent',
  },
  {
    name: 'backup: files go while a copy of the database needs them',
    edits: [
      {
        file: 'src/housekeeping.ts',
        find: 'AND NOT EXISTS (SELECT 1 FROM hold WHERE NOT ${lease.LEASES}) LIMIT',
        replace: 'LIMIT',
      },
    ],
    test: 'backup',
    notices: 'stay while its hold is renewed, over a restart too, and go when it has lapsed',
  },
  {
    name: 'backup: a hold that was lost is overlooked',
    edits: [
      {
        file: 'src/backup.ts',
        find: 'if (await copies.release(deps, id)) return manifest',
        replace: 'if ((await copies.release(deps, id)) || manifest) return manifest',
      },
    ],
    test: 'backup',
    notices: 'are not trusted when the hold was lost',
  },
  {
    name: 'backup: what zstd overlooks is taken',
    edits: [
      {
        file: 'src/archive.ts',
        find: 'if (!Buffer.concat([SEAL_HEAD, sha256.digest()]).equals(held)) throw broken()',
        replace: '',
      },
    ],
    test: 'verify',
    notices: 'is refused with a bit flipped in 200 places',
  },
  {
    name: 'backup: any file in it is restored, wherever its name leads',
    edits: [
      {
        file: 'src/verify.ts',
        find: 'if (!isValue(entry.name) || entry.name <= last) throw broken()',
        replace: 'if (entry.name <= last) throw broken()',
      },
    ],
    test: 'verify',
    notices: 'is refused: a path that leads out',
  },
  {
    name: 'restore: a value that is not the one of its row is taken',
    edits: [
      {
        file: 'src/restore.ts',
        find: 'if (!listed.digest().equals(sums) || !(await isOurs(copy, schema))) throw broken()',
        replace: 'if (!(await isOurs(copy, schema))) throw broken()',
      },
    ],
    test: 'verify',
    notices: 'is refused by restore, which leaves nothing: another value than it names',
  },
  {
    name: 'upgrade: the copy from before is kept without the files that it names',
    edits: [
      {
        file: 'src/upgrade.ts',
        find: '  await copies.hold(deps, id, KEPT_MS)\n',
        replace: '',
      },
    ],
    test: 'upgrade',
    notices: 'goes after 7 days, and with it the files that it needs',
  },
  {
    name: 'feed: a first sync hears of no deletion while it lasts',
    edits: [
      {
        file: CHANGE,
        find: "!('deleted' in change) || position.seq > began",
        replace: "!('deleted' in change) || began === 0",
      },
    ],
    test: 'model',
    notices: MODEL,
  },
  {
    name: 'feed: an event has the id of what comes after it',
    edits: [
      {
        file: 'src/http/event-stream.ts',
        find: 'seal(entry.position)',
        replace: 'seal(part.position)',
      },
    ],
    test: 'model',
    notices: MODEL,
  },
  {
    name: 'a burial takes what was made anew under the same name',
    edits: [
      {
        file: 'src/housekeeping.ts',
        find: `
           AND NOT \${isOwned('p.store_key')}
         LIMIT 150`,
        replace: `
         LIMIT 150`,
      },
    ],
    test: 'account',
    notices: 'takes nothing with it that was made anew under a name that died with it',
  },
  ...powerCutBugs,
  ...crashBugs,
  ...diskBugs,
  ...leakBugs,
  ...fuzzBugs,
  ...moveBugs,
  {
    name: 'an upload to a bucket is completed although a part of it made way for others',
    edits: [
      {
        file: 'src/blobs/upload.ts',
        find: '      checkAge()\n      filler.check()\n',
        replace: '      checkAge()\n',
      },
    ],
    test: 's3',
    notices: 'of an upload that made way is not missed: it is refused, however much of it is there',
  },
  {
    name: 'a bucket of other data is written to',
    edits: [
      {
        file: 'src/blobs/s3.ts',
        find: "    if (found !== null && found.id !== id) return 'another'\n",
        replace: '',
      },
    ],
    test: 's3',
    notices: 'that was of other data takes nothing there, though it came up later',
  },
  {
    name: 'what is superseded in a bucket goes as soon as on the disk',
    edits: [
      {
        file: 'src/blobs/s3.ts',
        find: "GRACE_MS = new TimeSpan(24, 'h')",
        replace: "GRACE_MS = new TimeSpan(5, 'm')",
      },
    ],
    test: 's3',
    notices: 'stays for a day, so that a database that went back finds it',
  },
]
