// Owns what somebody with a session sees and does, but for the stores.
import { connect, type SessionInfo } from '../client/client.ts'
import { client, device, kept, leave, mine, url } from './app.ts'
import { announce, button, byId, date, focusOn, isLoggedOut, make, onSubmit, time } from './dom.ts'
import { clearStores, showStores } from './stores.ts'
import { messageOf } from './words.ts'

/** Fills the page for the session that there is, and with nothing where there is none. */
export function showAccount(): void {
  byId('handle').textContent = kept?.user ?? ''
  for (const form of ['change', 'delete']) {
    const field = byId<HTMLFormElement>(form).elements.namedItem('id') as HTMLInputElement
    // As its default, so that it outlives a reset of the form.
    field.defaultValue = kept?.id ?? ''
  }
  byId('sessions').replaceChildren()
  clearStores()
  if (kept === null) return
  byId('usage').textContent = 'Loading…'
  for (const load of [showStores, showSessions]) {
    load().catch((error: unknown) => {
      if (!isLoggedOut(error)) announce(messageOf(error), true)
    })
  }
}

async function showSessions(): Promise<void> {
  const sessions = await mine(client.sessions())
  const recent = sessions.toSorted(
    (a, b) => Number(b.current) - Number(a.current) || b.used - a.used,
  )
  byId('sessions').replaceChildren(...recent.map(toItem))
}

function toItem(session: SessionInfo): HTMLLIElement {
  const name = session.device ?? 'A device without a name'
  const title = make('h3', {}, name)
  const told = make(
    'p',
    { class: 'hint' },
    'Logged in ',
    time(session.created),
    ' · last used ',
    date(session.used),
    ' · ends ',
    date(session.expiration),
  )
  const row = make('div', { class: 'row' }, make('div', {}, title, told))
  if (session.current) title.append(' ', make('span', { class: 'tag' }, 'this one'))
  else {
    row.append(
      button('Log out', { about: name }, async () => {
        await mine(client.endSession(session.token))
        await showSessions()
        focusOn('sessions-title')
        announce(`${name} is logged out.`)
      }),
    )
  }
  return make('li', {}, row)
}

export function wireAccount(): void {
  byId('logout').addEventListener('click', () => {
    // It ends here in any case: what the server does not hear now, it forgets in time.
    void client.logout().catch(() => undefined)
    leave('You are logged out.')
  })
  byId('copy').addEventListener('click', () => void copyHandle())

  const change = onSubmit('change', {
    words: { AUTH02: 'The current password is wrong.' },
    async submit({ password = '', current = '' }) {
      await mine(client.changePassword({ password, current }))
      change.reset()
      await showSessions()
      announce('The password is changed. Your other devices are logged out.')
    },
  })

  wireDeletion()
}

async function copyHandle(): Promise<void> {
  const handle = byId('handle')
  try {
    await navigator.clipboard.writeText(handle.textContent)
  } catch {
    // Over plain http there is no clipboard: select it, as a person would.
    getSelection()?.selectAllChildren(handle)
    if (!document.execCommand('copy')) return announce('It is selected: copy it by hand.')
  }
  announce('The handle is copied.')
}

function wireDeletion(): void {
  const dialog = byId<HTMLDialogElement>('delete-dialog')
  const form = onSubmit('delete', {
    words: { ERR01: 'This is the user name of another account.' },
    async submit({ id = '', password = '' }) {
      await mine(deleteAccount(id, password))
      dialog.close()
      leave('The account is deleted.')
    },
  })
  byId('delete-open').addEventListener('click', () => dialog.showModal())
  byId('delete-cancel').addEventListener('click', () => dialog.close())
  dialog.addEventListener('close', () => form.reset())
}

/** With a session of its own, opened for this: only a fresh one may. */
async function deleteAccount(id: string, password: string): Promise<void> {
  const fresh = connect({ url })
  const { user } = await fresh.login({ id, password, device })
  try {
    if (user !== kept?.user) throw Object.assign(new Error('another account'), { code: 'ERR01' })
    await fresh.deleteAccount()
  } catch (error) {
    await fresh.logout().catch(() => undefined)
    throw error
  }
}
