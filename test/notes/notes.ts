// Owns a small notes app: what is typed is kept on the device at once, and synced when that is possible.
// Built with: esbuild notes.ts --bundle --format=esm --outfile=notes.js
import { connect } from 'sync-node/client'
import { indexedDbStore, openReplica, type ReplicaItem } from 'sync-node/replica'
import { decode, encode, mergeNotes, type Note } from './note.ts'
import { button, byId, fill, on } from './page.ts'

interface Session {
  url: string
  token: string
  /** The account's handle. */
  user: string
}

const NOTHING: Note = { title: '', text: '' }

const STATES = {
  stopped: 'Stopped',
  waiting: 'Another tab syncs',
  syncing: 'Syncing',
  live: 'Synced',
  offline: 'Offline',
  unauthorized: 'Logged out',
}

const joined = (...words: (string | false)[]): string => words.filter(Boolean).join(', ')

const labelOf = ({ value, permission, isPending }: ReplicaItem): string =>
  joined(
    decode(value).title || 'Untitled',
    permission !== 'OWN' && 'shared with me',
    permission === 'READ' && 'to read',
    isPending && 'not sent yet',
  )

const session = JSON.parse(localStorage.getItem('notes-session') ?? 'null') as Session | null
const login = byId<HTMLFormElement>('login')
const server = login.elements.namedItem('url') as HTMLInputElement
server.value = session?.url ?? location.origin
login.hidden = session !== null
on(login, 'submit', async ({ url = '', id = '', password = '', action }) => {
  const client = connect({ url })
  const enter = action === 'register' ? client.register : client.login
  const { token, user } = await enter({ id, password, device: 'Notes' })
  localStorage.setItem('notes-session', JSON.stringify({ url, token, user } satisfies Session))
  location.reload()
})
if (session !== null) await openNotes(session)

async function openNotes({ url, token, user }: Session): Promise<void> {
  const client = connect({ url, token, user })
  const notes = await openReplica({
    client,
    local: await indexedDbStore(`notes-${user}`),
    // The account may be of other apps, too.
    accepts: ({ name }) => name?.startsWith('notes/') === true,
    merge: ({ base, local, remote }) =>
      local && remote
        ? encode(mergeNotes(base ? decode(base) : NOTHING, decode(local), decode(remote)))
        : // Deleted on one side and edited on the other: what was written stays.
          (local ?? remote),
  })
  const [title, text] = [byId<HTMLInputElement>('title'), byId<HTMLTextAreaElement>('text')]
  let open = ''
  /** What the editor was last known to hold, which is what typing started from. */
  let shown = NOTHING
  let saving = 0

  async function show(): Promise<void> {
    const items = await notes.list()
    const { state, pending, parked } = notes.status()
    byId('status').textContent = joined(
      STATES[state],
      pending > 0 && `${pending} to send`,
      parked.length > 0 && `${parked.length} refused`,
    )
    login.hidden = state !== 'unauthorized'
    const lineOf = (item: ReplicaItem) => {
      const line = [button(labelOf(item), () => choose(item.id))]
      const refusal = parked.find(({ id }) => id === item.id)
      if (refusal === undefined) return line
      return [...line, ` ${refusal.message} `, button('Take back', () => notes.discard(item.id))]
    }
    fill('list', items.map(lineOf))
    showNote(items.find(({ id }) => id === open))
  }

  function showNote(item: ReplicaItem | undefined): void {
    byId('share').hidden = item?.permission !== 'OWN'
    if (item === undefined) byId('editor').hidden = true
    // What is being typed is newer.
    if (item === undefined || saving > 0) return
    byId('editor').hidden = false
    byId('delete').textContent = item.permission === 'OWN' ? 'Delete' : 'Leave'
    title.readOnly = text.readOnly = item.permission === 'READ'
    shown = decode(item.value)
    title.value = shown.title
    text.value = shown.text
  }

  async function choose(id: string): Promise<void> {
    open = id
    byId('editor').hidden = true
    fill('members', [])
    await show()
    // The server alone knows them, and may be away.
    await showMembers().catch(() => undefined)
  }

  async function save(): Promise<void> {
    const [base, local] = [shown, { title: title.value, text: text.value }]
    shown = local
    saving++
    try {
      // What came in while this was typed is kept, too.
      await notes.update(open, (now) =>
        encode(now === null ? local : mergeNotes(base, local, decode(now))),
      )
    } finally {
      saving--
    }
    await show()
  }

  async function showMembers(): Promise<void> {
    const id = open
    const store = client.store(id)
    const others = (await store.members()).filter(({ current }) => !current)
    const lineOf = ({ user: other, permission }: (typeof others)[number]) => [
      `${other} may ${permission} `,
      button('Stop sharing', async () => {
        await store.revoke(other)
        await showMembers()
      }),
    ]
    if (id === open) fill('members', others.map(lineOf))
  }

  notes.subscribe(() => void show())
  on(byId('editor'), 'input', save)
  on(byId('new'), 'click', async () => {
    const id = `notes/${crypto.getRandomValues(new Uint32Array(4)).join('-')}`
    await notes.put(id, encode({ title: 'New note', text: '' }))
    await choose(id)
    title.select()
  })
  on(byId('delete'), 'click', async () => {
    const isOwn = !byId('share').hidden
    await (isOwn ? notes.delete(open) : client.store(open).leave())
  })
  on(byId('share'), 'submit', async ({ user: other = '', permission }) => {
    if (notes.status().pending > 0) throw new Error('Share it when everything is sent.')
    await client.store(open).share(other.trim(), permission === 'WRITE' ? 'WRITE' : 'READ')
    await showMembers()
  })
  on(byId('logout'), 'click', async () => {
    await client.logout()
    localStorage.removeItem('notes-session')
    location.reload()
  })
  byId('app').hidden = false
  byId('handle').textContent = user
  await show()
}
