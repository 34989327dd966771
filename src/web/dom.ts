// Owns what this page does to its document: elements, forms, the confirmation, what is announced.
import { messageOf } from './words.ts'

export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`the page has no #${id}`)
  return found as E
}

type Child = Node | string

/** An element; text is only ever text, never HTML: names come from anybody. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string>,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

/** A button; `about` is for those who do not see what it stands beside. */
export function button(
  label: string,
  { about, kind = 'quiet' }: { about: string; kind?: 'quiet' | 'danger' },
  act: (button: HTMLButtonElement) => Promise<void>,
): HTMLButtonElement {
  const made = make('button', { type: 'button', class: kind }, label)
  made.append(make('span', { class: 'unseen' }, ` ${about}`))
  made.addEventListener('click', () => {
    void whileBusy(made, () => act(made)).catch((error: unknown) => {
      if (!isLoggedOut(error)) announce(messageOf(error), true)
    })
  })
  return made
}

/** The page shows the login by then, and has said why. */
export const isLoggedOut = (error: unknown): boolean =>
  (error as { code?: string }).code === 'AUTH01'

/** Does it unless it is being done; the button keeps the focus meanwhile. */
async function whileBusy(of: HTMLElement, work: () => Promise<void>): Promise<void> {
  if (of.ariaDisabled === 'true') return
  of.ariaDisabled = 'true'
  announce('')
  try {
    await work()
  } finally {
    of.ariaDisabled = 'false'
  }
}

/** Tells everybody, also those who listen. */
export function announce(text: string, isBad = false): void {
  const status = byId('status')
  status.classList.toggle('bad', isBad)
  status.textContent = ''
  // Anew, or the same words twice would be said once.
  requestAnimationFrame(() => {
    status.textContent = text
  })
}

export interface Form {
  element: HTMLFormElement
  submit(values: Record<string, string>): Promise<void>
  /** Words of this form for some codes. */
  words?: Record<string, string>
}

export function onSubmit(id: string, form: Omit<Form, 'element'>): HTMLFormElement {
  const element = byId<HTMLFormElement>(id)
  const error = element.querySelector('.error') as HTMLElement
  const submitter = element.querySelector('button[type=submit]') as HTMLElement
  element.addEventListener('submit', (event) => {
    event.preventDefault()
    error.textContent = ''
    const values = Object.fromEntries(
      [...new FormData(element)].map(([name, value]) => [name, String(value)]),
    )
    void whileBusy(submitter, () => form.submit(values)).catch((reason: unknown) => {
      if (!isLoggedOut(reason)) error.textContent = messageOf(reason, form.words)
    })
  })
  element.addEventListener('reset', () => {
    error.textContent = ''
    for (const box of element.querySelectorAll<HTMLInputElement>('[data-reveals]')) {
      reveal(box, false)
    }
  })
  return element
}

function reveal({ dataset }: HTMLElement, isShown: boolean): void {
  for (const id of dataset['reveals']?.split(' ') ?? []) {
    byId<HTMLInputElement>(id).type = isShown ? 'text' : 'password'
  }
}

export function wireReveals(): void {
  for (const box of document.querySelectorAll<HTMLInputElement>('[data-reveals]')) {
    box.addEventListener('change', () => reveal(box, box.checked))
  }
}

/** Asks before something that cannot be undone. */
export function confirmed(title: string, text: string, yes: string): Promise<boolean> {
  const dialog = byId<HTMLDialogElement>('confirm')
  byId('confirm-title').textContent = title
  byId('confirm-text').textContent = text
  byId('confirm-yes').textContent = yes
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise((resolve) => {
    const end = (): void => {
      for (const id of ['title', 'text', 'yes']) byId(`confirm-${id}`).textContent = ''
      resolve(dialog.returnValue === 'yes')
    }
    dialog.addEventListener('close', end, { once: true })
  })
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' })
const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' })

export const time = (ms: number): HTMLElement =>
  make('time', { datetime: new Date(ms).toISOString() }, moment.format(ms))

export const date = (ms: number): HTMLElement =>
  make('time', { datetime: new Date(ms).toISOString() }, day.format(ms))

/** Puts the focus where the next thing is to be read. */
export function focusOn(id: string): void {
  const target = byId(id)
  target.tabIndex = -1
  target.focus()
}
