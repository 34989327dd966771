// Owns the manual page: its template, filled with what `--help` and the README's table of settings say.
import { readFileSync } from 'node:fs'

interface Facts {
  version: string
  seconds: number
  /** What `sync-node --help` prints. */
  help: string
  readme: string
}

export function manual({ version, seconds, help, readme }: Facts): string {
  const commands = [...help.matchAll(/^ {2}(\S.*?) {2,}(.+)$/gm)]
  const settings = [...readme.matchAll(/^\| `([A-Z_]+)` \|(.*?)\|(.*)\|$/gm)]
  const filled: Record<string, string> = {
    VERSION: version,
    DATE: new Date(seconds * 1000).toISOString().slice(0, 10),
    COMMANDS: commands.map(([, name = '', does = '']) => tagged(name, `${does}.`)).join('\n'),
    SETTINGS: settings
      .map(([, name = '', usual = '', is = '']) => {
        const text = `${is.trim()}.`
        return tagged(name, usual.trim() === '' ? text : `${text} Default: ${usual.trim()}.`)
      })
      .join('\n'),
  }
  const template = readFileSync('scripts/packaging/sync-node.1', 'utf8')
  return template.replace(/@([A-Z]+)@/g, (_, name: string) => {
    const text = filled[name]
    if (!text) throw new Error(`the manual page has no ${name}`)
    return text
  })
}

const tagged = (term: string, text: string): string => `.TP\n.B ${escaped(term)}\n${roff(text)}`

/** Markdown of one line, as roff. */
function roff(text: string): string {
  const line = escaped(text[0]?.toUpperCase() + text.slice(1))
  return line.replace(/`([^`]+)`/g, '\\fB$1\\fR').replace(/^([.'])/, '\\&$1')
}

const escaped = (text: string): string => text.replace(/\\/g, '\\e').replace(/-/g, '\\-')
