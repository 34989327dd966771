// Owns reading server-sent events from a stream of bytes.

export interface ServerEvent {
  type: string
  id: string
  data: string
}

/** Takes text as it comes; answers the events that it completes. */
export function eventParser(): (text: string) => ServerEvent[] {
  let rest = ''
  let event: ServerEvent = { type: '', id: '', data: '' }

  function take(line: string, events: ServerEvent[]): void {
    if (line === '') {
      // An event without data is none.
      if (event.data !== '') events.push({ ...event, data: event.data.slice(0, -1) })
      event = { type: '', id: event.id, data: '' }
      return
    }
    const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? []
    if (field === 'event') event.type = value
    if (field === 'id') event.id = value
    if (field === 'data') event.data += `${value}\n`
  }

  return (text) => {
    const events: ServerEvent[] = []
    // A lone \r at the end may be half of a \r\n.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop() ?? ''
    for (const line of lines) take(line, events)
    return events
  }
}
