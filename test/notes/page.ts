// Owns what every page needs: elements, what they do, and the line that says what went wrong.

export const byId = <E extends HTMLElement = HTMLElement>(id: string): E =>
  document.getElementById(id) as E

/** Does `work` at each such event; a form hands in what it holds. */
export function on(
  element: HTMLElement,
  type: string,
  work: (fields: Record<string, string>) => Promise<void>,
): void {
  element.addEventListener(type, (event) => {
    const { submitter = null } = event as Partial<SubmitEvent>
    const data = element instanceof HTMLFormElement ? new FormData(element, submitter) : []
    if (type === 'submit') event.preventDefault()
    byId('problem').textContent = ''
    work(Object.fromEntries(data) as Record<string, string>).catch((error: Error) => {
      byId('problem').textContent = error.message
    })
  })
}

export function button(label: string, work: () => Promise<void>): HTMLButtonElement {
  const made = document.createElement('button')
  made.type = 'button'
  made.textContent = label
  on(made, 'click', work)
  return made
}

/** Shows these lines in a list. What others wrote is text, never HTML. */
export function fill(list: string, lines: (string | Node)[][]): void {
  byId(list).replaceChildren(
    ...lines.map((parts) => {
      const line = document.createElement('li')
      line.append(...parts)
      return line
    }),
  )
}
