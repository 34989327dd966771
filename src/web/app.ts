// Owns which part of the page is shown, and the session: its token is kept in the sessionStorage of this
// origin, where no value that an app stored can run.
import { connect, type Client, type OpenedSession, type ServerInfo } from '../client/client.ts'
import { announce, byId } from './dom.ts'
import { deviceOf } from './words.ts'

export type View = 'login' | 'register' | 'forgot' | 'reset' | 'account'

export interface Kept {
  token: string
  /** The own handle. */
  user: string
  /** What was typed at the login, for password managers. */
  id: string
}

const STORAGE_KEY = 'sync-node'

export const url = location.origin
export const device = deviceOf(navigator.userAgent)

export let kept: Kept | null = readKept()
export let registration: ServerInfo['registration'] = 'open'
let fill: () => void = () => undefined

export const client: Client = connect({
  url,
  token: kept?.token ?? null,
  onUnauthorized: () => {
    if (kept !== null) leave('You were logged out. Log in again.')
    return null
  },
})

function readKept(): Kept | null {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? 'null') as Kept | null
  } catch {
    return null
  }
}

/** `onSession` is called whenever somebody comes in, or has gone. */
export function start(onSession: () => void): void {
  fill = onSession
}

/** What the server says to one person, unless by then it would be shown to nobody, or to the next. */
export async function mine<T>(answer: Promise<T>): Promise<T> {
  const asking = kept
  const answered = await answer
  if (kept !== asking) throw Object.assign(new Error('another session'), { code: 'AUTH01' })
  return answered
}

export function enterAs({ token, user }: OpenedSession, id: string): void {
  kept = { token, user, id }
  try {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify(kept))
  } catch {
    // Switched off in this browser: a reload asks for a login again.
  }
  clearAddress()
  show('account')
  fill()
}

/** Forgets the session, and says why. */
export function leave(why: string): void {
  kept = null
  try {
    sessionStorage.removeItem(STORAGE_KEY)
  } catch {
    // As above.
  }
  for (const dialog of document.querySelectorAll('dialog')) dialog.close()
  fill()
  clearAddress()
  show('login')
  announce(why)
}

/** A token in the fragment must not stay in the address bar, nor in the history. */
export const clearAddress = (): void => {
  history.replaceState(null, '', location.pathname)
}

export function show(view: View, { isFirst = false } = {}): void {
  for (const part of document.querySelectorAll<HTMLElement>('[data-view]')) {
    const isShown = part.dataset['view'] === view
    part.hidden = !isShown
    // What was typed is not left behind for whoever comes next.
    if (!isShown) for (const form of part.querySelectorAll('form')) form.reset()
  }
  byId('logout').hidden = view !== 'account'
  announce('')
  const title = byId(`${view}-title`)
  document.title = `${title.textContent} · Sync Node`
  if (!isFirst) title.focus()
}

/** Asks who may register here, and shows what belongs to that. */
export async function readRegistration(): Promise<void> {
  registration = (await client.info()).registration
  for (const part of document.querySelectorAll<HTMLElement>('[data-registration]')) {
    part.hidden = part.dataset['registration'] !== registration
  }
}
