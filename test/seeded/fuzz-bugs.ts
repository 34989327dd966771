// Owns the seeded bugs that hostile traffic has to show.
import type { SeededBug } from './bug.ts'

const APP = 'src/http/app.ts'
const VALUE = 'src/value.ts'

const REQUESTS = 'is answered as the document says'
const UPLOADS = 'leaves no file behind'

type Bug = Omit<SeededBug, 'test' | 'edits'> & SeededBug['edits'][number]

const bugs: Bug[] = [
  {
    name: 'a member of a body is not checked',
    file: 'src/http/routes/batch.ts',
    find: 'data: v.pipe(v.string(),',
    replace: 'data: v.pipe(v.any(),',
    notices: REQUESTS,
  },
  {
    name: 'a target that cannot be decoded ends the process',
    file: 'src/http/server.ts',
    find: 'if (!TARGET.test(url)) {',
    replace: "if (!TARGET.test(url) || decodeURIComponent(url) === '') {",
    notices: REQUESTS,
  },
  {
    name: 'the log has the target of what is refused',
    file: APP,
    find: 'app.onError((error) => refuse(deps, error))',
    replace: `app.onError((error, c) => {
    deps.log.info({ url: c.env.incoming.url }, 'refused')
    return refuse(deps, error)
  })`,
    notices: REQUESTS,
  },
  {
    name: 'a refusal repeats a name that is not known',
    file: APP,
    find: 'isUnknown ? known.slice(0, -1) : known',
    replace: 'known',
    notices: REQUESTS,
  },
  {
    name: 'a listener stays for each call of /changes',
    file: 'src/http/routes/changes.ts',
    find: '    stopListening()\n',
    replace: '    if (deps.listeners.isOver()) stopListening()\n',
    notices: REQUESTS,
  },
  {
    name: 'what stands behind an upgrade is dropped in silence',
    file: 'src/http/server.ts',
    find: 'headers.upgrade !== undefined',
    replace: 'headers.upgrade === null',
    notices: REQUESTS,
  },
  {
    name: 'any number of requests wait on a connection',
    file: 'src/http/connections.ts',
    find: 'if (waiting > MOST_WAITING) {',
    replace: 'if (waiting > 100 * 1000 * MOST_WAITING) {',
    notices: 'that asks in a row and reads nothing',
  },
  {
    name: 'an upload that broke off leaves its file',
    file: VALUE,
    find: '} else await discard()',
    replace: '} else release()',
    notices: UPLOADS,
  },
  {
    name: 'an upload that broke off keeps its turn',
    file: VALUE,
    find: '    release()\n    await upload?.discard()',
    replace: '    await upload?.discard()',
    notices: UPLOADS,
  },
  {
    name: 'a body that ends early is taken as whole',
    file: 'src/http/body.ts',
    find: '(error: unknown) => reject(endedEarly(error))',
    replace: '() => resolve({ done: true, value: undefined })',
    notices: UPLOADS,
  },
]

export const fuzzBugs: SeededBug[] = [
  ...bugs.map(({ name, file, find, replace, notices }) => ({
    name: `fuzz: ${name}`,
    edits: [{ file, find, replace }],
    test: 'fuzz',
    notices,
  })),
  {
    name: 'fuzz: who may read may write',
    edits: [
      {
        file: 'src/store.ts',
        find: "  if (store.permission === 'READ') throw notEnough()\n",
        replace: '',
      },
      {
        file: 'src/write.ts',
        find: "MAY(`'WRITE', 'OWN'`)",
        replace: "MAY(`'READ', 'WRITE', 'OWN'`)",
      },
    ],
    test: 'fuzz',
    notices: REQUESTS,
  },
]
