// Owns the seeded bugs that histories of many clients have to notice: those of the list that break what
// clients see of each other, and some more.
import type { SeededBug } from './bug.ts'
import { seededBugs } from './bugs.ts'
import { CRASHES } from './power-cuts.ts'

const NOTICES = { test: 'linearizable', notices: 'has one order, from source' }

const OF_THE_LIST = [
  'a commit is answered before it is made',
  'a write does not ask again for the token',
  'a deletion does not ask again for the token',
  'feed: a cursor skips a change',
  'feed: a tombstone is forgotten',
  'feed: a stream goes on from the wrong place',
  'feed: a stream that goes on repeats what was seen',
]

const STORE = 'src/store.ts'
const PERMISSION = 'src/permission.ts'
const SCHEMA = 'src/database/migrations/0001-init.sql'

const EARLY = `const early = async (...given: Parameters<typeof commit>) => {
    setTimeout(() => void commit(...given).catch(() => undefined), 5)
  }`

const one = (name: string, file: string, find: string, replace: string): SeededBug => ({
  name: `order: ${name}`,
  edits: [{ file, find, replace }],
  ...NOTICES,
})

export const bugsOfOrder: SeededBug[] = [
  ...OF_THE_LIST.map((name) => {
    const bug = seededBugs.find((known) => known.name === name) as SeededBug
    return { name: `order: ${name}`, edits: bug.edits, ...NOTICES }
  }),
  one(
    'a token is used twice',
    STORE,
    'const token = unique(deps.random)',
    'const token = unique(() => new Uint8Array(16).fill(deps.random(1)[0] as number))',
  ),
  one(
    'a read is of some time ago',
    'src/database/embedded.ts',
    `    const rows = prepare(sql).all(...toArguments(args)) as Record<string, unknown>[]
`,
    `    if (!database.isTransaction) {
      database.exec('BEGIN')
      setTimeout(() => database.exec('COMMIT'), 5)
    }
    const rows = prepare(sql).all(...toArguments(args)) as Record<string, unknown>[]
`,
  ),
  one(
    'a conflict is told by what was there before it',
    STORE,
    `        ;({ before, room } = await mayPut(deps, self, key, condition))
        if`,
    `        if (before !== null) throw changed(412, before)
        if`,
  ),
  one(
    'a deletion is answered before it is done',
    STORE,
    `  let store = await mayRemove(deps, self, key, condition)
  const results = await commit(`,
    `  let store = await mayRemove(deps, self, key, condition)
  if (store.size > 0) {
    setTimeout(
      () => void deps.database.batch(removal(deps, self, { condition, before: store }), 'write').catch(() => undefined),
      5,
    )
    return { key: store.key, used: 0 }
  }
  const results = await commit(`,
  ),
  one(
    'a grant is answered before it is done',
    PERMISSION,
    `?? Number.MAX_SAFE_INTEGER]
  await commit(`,
    `?? Number.MAX_SAFE_INTEGER]
  ${EARLY}
  await early(`,
  ),
  one(
    'a revocation is answered before it is done',
    PERMISSION,
    `throw store.notEnough()
  await commit(`,
    `throw store.notEnough()
  ${EARLY}
  await early(`,
  ),
  one(
    'what replaces anything makes what is not there',
    STORE,
    "condition.kind === 'match' || condition.kind === 'any'",
    "condition.kind === 'match'",
  ),
  one(
    'who leaves may do so twice',
    PERMISSION,
    'require(isLeaving ? HOLDS : OWNS, [self.token, clock.now(), found.key])',
    `isLeaving ? sql('SELECT 1') : require(OWNS, [self.token, clock.now(), found.key])`,
  ),
  one(
    'a deletion leaves the permissions of others',
    SCHEMA,
    'DELETE FROM account_permission WHERE store_key = OLD.store_key;',
    `DELETE FROM account_permission WHERE store_key = OLD.store_key AND permission = 'OWN';`,
  ),
  one(
    'a batch does not ask for tokens again',
    'src/batch.ts',
    'replacement(deps, self, row, { condition, before: store })',
    `replacement(deps, self, row, { condition: { kind: 'any' }, before: store })`,
  ),
  one(
    'who makes a store anew takes the place of who just did',
    'src/write.ts',
    'sql(`DELETE FROM sync_store WHERE store_key = ?1 AND ${isDead}`, [key])',
    'sql(`DELETE FROM sync_store WHERE store_key = ?1 AND (1 OR ${isDead})`, [key])',
  ),
  one(
    'a small value is written before its token is compared',
    'src/write.ts',
    '    requireChanges(),\n    ...(isInPlace',
    '    ...(isInPlace',
  ),
  one(
    'a revocation is not told',
    SCHEMA,
    'CREATE TRIGGER account_permission_revoked AFTER DELETE ON account_permission',
    'CREATE TRIGGER account_permission_revoked AFTER DELETE ON account_permission WHEN 0',
  ),
  one('the server crashes of itself now and then', CRASHES.file, CRASHES.find, CRASHES.replace),
  one(
    'a batch that was done is answered as an unexpected error now and then',
    'src/http/routes/batch.ts',
    '      return json({ results }, quotaHeaders(deps, used))',
    `      if (Math.random() < 0.1) throw new Error('seeded')
      return json({ results }, quotaHeaders(deps, used))`,
  ),
  one(
    'a connection ends without an answer now and then',
    'src/http/server.ts',
    '    const refusal = check(incoming)\n',
    `    if (Math.random() < 0.001) return void incoming.socket.destroy()
    const refusal = check(incoming)\n`,
  ),
]
