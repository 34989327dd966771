// Owns what is tried of a reset by mail on a disk that fails: the answer comes first and promises nothing,
// but a token that was mailed is good.
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { SMTPServer } from 'smtp-server'
import type { Deed } from './deeds.ts'
import { STOPS, type Place, type Scope } from './place.ts'

const LOOK_MS = 10
const MOST_MS = 30_000
const NOT_SENT = 'a reset mail was not sent'
/** To whom a letter was taken. */
const received: string[] = []

async function openPostOffice(scope: Scope): Promise<Record<string, string>> {
  const server = new SMTPServer({
    hideSTARTTLS: true,
    authOptional: true,
    onData(stream, { envelope }, done) {
      void text(stream).then(() => {
        received.push(...envelope.rcptTo.map(({ address }) => address))
        done()
      })
    },
  })
  server.listen(0, '127.0.0.1')
  await once(server.server, 'listening')
  scope.after(() => server.close())
  const { port } = server.server.address() as AddressInfo
  return { SMTP_URL: `smtp://127.0.0.1:${port}`, MAIL_FROM: 'sync@example.org' }
}

const FIND = `SELECT count(*) AS n FROM password_reset_token t JOIN sync_account a ON a.number = t.id
  WHERE a.id = ?`

function hasToken(root: string, user: string): boolean {
  const database = new DatabaseSync(join(root, 'sync-node.db'), { readOnly: true, timeout: 5000 })
  try {
    return database.prepare(FIND).get(user)?.['n'] === 1
  } finally {
    database.close()
  }
}

/** What it does comes after the answer, within a second or so. */
async function heard(place: Place, address: string): Promise<void> {
  const isOver = (): boolean => {
    const said = place.output()
    return received.includes(address) || said.includes(NOT_SENT) || STOPS.test(said)
  }
  for (const until = performance.now() + MOST_MS; !isOver() && performance.now() < until;)
    await pause(LOOK_MS)
}

export const mailed: Deed = {
  name: 'POST /resetpassword',
  route: 'POST /resetpassword',
  settings: openPostOffice,
  async prepare(place) {
    const address = `${randomUUID()}@example.org`
    const { user } = await place.signUp(address)
    return [
      {
        promisesNothing: true,
        async act() {
          const body = JSON.stringify({ id: address })
          const response = await place.request('/resetpassword', { method: 'POST', body })
          await heard(place, address)
          return response
        },
        async look() {
          // Of a server that is not there nothing is seen.
          await place.request('/info')
          if (hasToken(place.root, user)) return 'new'
          return received.includes(address) ? 'a token that was mailed, and is none' : 'old'
        },
      },
    ]
  },
}
