// Owns the account page: what its address asks for, and how its parts start.
import { clearAddress, kept, readRegistration, show, start } from './app.ts'
import { showAccount, wireAccount } from './account.ts'
import { announce, byId, wireReveals } from './dom.ts'
import { prepareRegistration, prepareReset, wireGuest } from './guest.ts'
import { messageOf } from './words.ts'

byId('host').textContent = location.host
start(showAccount)
wireGuest()
wireAccount()
wireReveals()
// Each with its own address: by the time that one is told of, the next may be there, and then gone.
addEventListener('hashchange', ({ newURL }) => follow(new URL(newURL).hash))

const asked = location.hash
const isKnown = readRegistration()
follow(asked, { isFirst: true })
isKnown.then(
  // Who may register was not known before: the form may ask for an invitation after all.
  () => asked.startsWith('#invitation=') || prepareRegistration(''),
  (error: unknown) => announce(messageOf(error), true),
)

/** Shows what the fragment of the address names; a token in it is taken out of the address at once. */
function follow(hash: string, { isFirst = false } = {}): void {
  const [, name = '', token = ''] = /^#(\w+)(?:=([\w-]+))?/.exec(hash) ?? []
  if (token !== '') clearAddress()
  if (name === 'register' || name === 'invitation') {
    show('register', { isFirst })
    prepareRegistration(token)
  } else if (name === 'token' || name === 'reset') {
    show('reset', { isFirst })
    prepareReset(token)
  } else if (name === 'forgot') show('forgot', { isFirst })
  else if (kept === null) show('login', { isFirst })
  else {
    show('account', { isFirst })
    showAccount()
  }
}
