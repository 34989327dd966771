// Owns the list of stores: what each is, who has access, and how a share is ended.
import type { Permission, StoreInfo } from '../client/client.ts'
import { client, mine } from './app.ts'
import { announce, button, byId, confirmed, focusOn, make, time } from './dom.ts'
import { RIGHTS, percentOf, shortened, sizeOf } from './words.ts'

type Member = { user: string; permission: Permission; current: boolean }

// Somebody has ten thousand: a page of them at a time.
const PAGE = 50

let panels = 0

export function clearStores(): void {
  byId('stores').replaceChildren()
  byId('usage').textContent = ''
  const meter = byId<HTMLMeterElement>('meter')
  meter.hidden = true
  for (const name of ['value', 'max', 'low', 'high']) meter.removeAttribute(name)
  const more = byId('more')
  more.hidden = true
  more.textContent = ''
  more.onclick = null
}

export async function showStores(): Promise<void> {
  const { stores, used, limit } = await mine(client.list())
  showUsage(used, limit)
  const waiting = stores.toSorted((a, b) => b.modified - a.modified)
  const list = byId('stores')
  const more = byId('more')
  list.replaceChildren()
  if (stores.length === 0) list.append(make('li', { class: 'hint' }, 'None yet.'))

  function showPage(): void {
    const page = waiting.splice(0, PAGE).map(toItem)
    list.append(...page)
    more.hidden = waiting.length === 0
    more.textContent = `Show more (${waiting.length.toLocaleString()} left)`
    more.onclick = () => {
      const first = list.children.length
      showPage()
      list.children[first]?.querySelector('button')?.focus()
    }
  }
  showPage()
}

function showUsage(used: number, limit: number | null): void {
  const meter = byId<HTMLMeterElement>('meter')
  meter.hidden = limit === null
  byId('usage').textContent =
    limit === null
      ? `${sizeOf(used)} used. There is no limit but the server's disk.`
      : `${sizeOf(used)} of ${sizeOf(limit)} used (${percentOf(used, limit)}).`
  if (limit === null) return
  meter.max = Math.max(limit, 1)
  meter.low = 0.8 * limit
  meter.high = 0.95 * limit
  meter.optimum = 0
  meter.value = used
}

function toItem(store: StoreInfo): HTMLLIElement {
  const name = store.name ?? shortened(store.key)
  const panel = make('ul', {
    class: 'list',
    id: `members-${++panels}`,
    'aria-label': `Access to ${name}`,
  })
  panel.hidden = true
  const access = button('Who has access', { about: `to ${name}` }, async () => {
    if (panel.hidden) await showMembers(panel, store, name)
    panel.hidden = !panel.hidden
    access.ariaExpanded = String(!panel.hidden)
  })
  access.ariaExpanded = 'false'
  access.setAttribute('aria-controls', panel.id)
  const end =
    store.permission === 'OWN'
      ? button('Delete', { about: name, kind: 'danger' }, () => remove(store, name))
      : button('Leave', { about: name }, () => leave(store, name))
  const title = store.name ?? make('code', { title: store.key }, name)
  return make(
    'li',
    {},
    make(
      'div',
      { class: 'row' },
      make(
        'div',
        {},
        make('h3', {}, title),
        make(
          'p',
          { class: 'hint' },
          `${sizeOf(store.size)} · `,
          time(store.modified),
          ` · ${RIGHTS[store.permission]}`,
        ),
      ),
      access,
      end,
    ),
    panel,
  )
}

async function showMembers(panel: HTMLElement, store: StoreInfo, name: string): Promise<void> {
  const members = await mine(client.store(store.key).members())
  const owners = members.filter(({ permission }) => permission === 'OWN').length
  panel.replaceChildren(...members.map((member) => toMember(member)))

  function toMember(member: Member): HTMLLIElement {
    const { user, permission, current } = member
    const who = current ? 'You' : make('code', {}, user)
    const isLast = permission === 'OWN' && owners === 1
    const row = make(
      'div',
      { class: 'row' },
      make('div', {}, who, ' ', make('span', { class: 'tag' }, RIGHTS[permission] ?? permission)),
    )
    if (current && store.permission === 'OWN' && !isLast) {
      row.append(button('Leave', { about: name }, () => leave(store, name)))
    }
    if (!current && store.permission === 'OWN') {
      const about = `the access of ${shortened(user)}`
      row.append(
        button('Revoke', { about, kind: 'danger' }, async () => {
          const text = `${shortened(user)} will not see ${name} any more. What is on their devices stays there.`
          if (!(await confirmed('Revoke the access?', text, 'Revoke'))) return
          await mine(client.store(store.key).revoke(user))
          await showMembers(panel, store, name)
          announce('The access is revoked.')
          panel.parentElement?.querySelector('button')?.focus()
        }),
      )
    }
    return make('li', {}, row)
  }
}

async function leave(store: StoreInfo, name: string): Promise<void> {
  const text = `You will not see ${name} any more, unless somebody shares it with you again.`
  if (!(await confirmed('Leave this store?', text, 'Leave'))) return
  await mine(client.store(store.key).leave())
  await refresh(`You left ${name}.`)
}

async function remove(store: StoreInfo, name: string): Promise<void> {
  const text = `${name} goes for everybody who has access to it, at once and for good.`
  if (!(await confirmed('Delete this store?', text, 'Delete'))) return
  await mine(client.store(store.key).delete({ token: store.token }))
  await refresh(`${name} is deleted.`)
}

async function refresh(done: string): Promise<void> {
  await showStores()
  focusOn('stores-title')
  announce(done)
}
