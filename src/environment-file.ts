// Owns the format of an EnvironmentFile as systemd reads it, so that a command that is typed has the same
// settings as the service.

// Quotes count where a value begins, and again behind a closing one; all else goes up to the line's end.
const QUOTED = /[ \t\r]*(?:'([^']*)'|"((?:\\[^]|[^"\\])*)")/y
const PLAIN = /[ \t\r]*((?:\\[^]|[^\\\n])*)/y
const COMMENT = /[#;](?:\\[^]|[^\\\n])*/y
const NAME = /([^=\n]*?)[ \t\r]*(=|\n|$)/y
const SPACE = /\s*/y

export function parseEnvironmentFile(text: string): Record<string, string> {
  const variables: Record<string, string> = {}
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    at = match === null ? at : pattern.lastIndex
    return match
  }
  while (at < text.length) {
    take(SPACE)
    if (take(COMMENT) !== null) continue
    const [, name = '', end] = take(NAME) ?? []
    if (end !== '=') continue
    let value = ''
    for (let part = take(QUOTED); part !== null; part = take(QUOTED)) {
      value += part[1] ?? unescapeQuoted(part[2] ?? '')
    }
    value += unescapePlain(take(PLAIN)?.[1] ?? '')
    if (/^[A-Za-z_]\w*$/.test(name)) variables[name] = value
  }
  return variables
}

/** In double quotes a backslash stands for itself, but before these and at the end of a line. */
const unescapeQuoted = (text: string): string =>
  text.replace(/\\([^])/g, (both, one: string) =>
    one === '\n' ? '' : '"\\`$'.includes(one) ? one : both,
  )

/** Spaces at the end go, unless they are escaped; an escaped end of the line joins it with the next. */
const unescapePlain = (text: string): string =>
  text.replace(/\\([^])|[ \t\r]+$/g, (_, one: string | undefined) =>
    one === undefined || one === '\n' ? '' : one,
  )
