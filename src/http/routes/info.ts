// Owns the routes that anyone may ask: /health and /info.
import * as v from 'valibot'
import { INLINE_BYTES } from '../../value.ts'
import type { Deps } from '../../deps.ts'
import { SyncError } from '../../errors.ts'
import { version } from '../../packed.ts'
import { json } from '../answer.ts'
import { route } from '../route.ts'
import { bytes } from '../schemas.ts'

const state = v.object({
  database: v.pipe(
    v.picklist(['ok', 'damaged', 'unreadable', 'unreachable']),
    v.description('`unreachable`: the database server does not answer.'),
  ),
  disk: v.pipe(v.picklist(['ok', 'full']), v.description('`full`: values are not taken.')),
  values: v.optional(
    v.pipe(
      v.picklist(['ok', 'unreachable', 'refused']),
      v.description(
        'Those above 16 KiB, where they are in a bucket: all else goes on without them.',
      ),
    ),
  ),
})

export const infoRoutes = [
  route({
    method: 'GET',
    path: '/health',
    summary: 'Whether the server can do its work',
    session: false,
    answers: { 200: { description: 'It can.', schema: state } },
    errors: ['ERR02', 'ERR05'],
    handle: async ({ deps }) => {
      const members = {
        database: await databaseState(deps),
        disk: diskState(deps),
        ...(deps.blobs.isShared && { values: await deps.blobs.state() }),
      }
      if (Object.values(members).every((member) => member === 'ok')) return json(members)
      if (members.database === 'unreachable') {
        throw new SyncError('ERR05', 'The database does not answer: it is asked again and again.', {
          members,
        })
      }
      throw new SyncError('ERR02', 'The server cannot do all its work: tell its operator.', {
        members,
      })
    },
  }),
  route({
    method: 'GET',
    path: '/info',
    summary: 'What this server is, and its limits',
    session: false,
    answers: {
      200: {
        description: 'What a client may want to know before it starts.',
        schema: v.object({
          name: v.literal('sync-node'),
          version: v.string(),
          registration: v.picklist(['open', 'invite', 'closed']),
          durability: v.picklist(['disk', 'database']),
          limits: v.object({
            value: v.pipe(bytes, v.description('The largest value.')),
            inline: v.pipe(bytes, v.description('The largest value that a batch or feed carries.')),
            quota: v.nullable(bytes),
            key: v.pipe(v.number(), v.description('Code points of a key.')),
            meta: v.pipe(v.number(), v.description('Characters of meta.')),
            members: v.pipe(v.number(), v.description('Accounts a store.')),
          }),
        }),
      },
    },
    errors: [],
    handle: ({ deps: { config } }) =>
      json({
        name: 'sync-node',
        version,
        registration: config.registration,
        durability: config.database === null ? 'disk' : 'database',
        limits: {
          value: config.maxValueSize,
          inline: INLINE_BYTES,
          quota: config.quota,
          key: 8000,
          meta: 8000,
          members: 1000,
        },
      }),
  }),
]

async function databaseState({ config, database, health }: Deps): Promise<string> {
  if (health.isDamaged) return 'damaged'
  try {
    await database.execute('SELECT 1 FROM node')
    return 'ok'
  } catch {
    return config.database === null ? 'unreadable' : 'unreachable'
  }
}

function diskState({ space }: Deps): string {
  try {
    return space.isLow() ? 'full' : 'ok'
  } catch {
    return 'full'
  }
}
