// Owns what `--help` prints: of everything, of one command, or of those that begin alike.
import { version } from '../packed.ts'
import type { Command } from './command.ts'

export const help = (
  commands: Command[],
): string => `sync-node ${version}: a sync server for local-first apps

Usage: sync-node [command]

${lines(commands)}

\`sync-node COMMAND --help\` tells more of one. Settings are environment variables (PORT, STATIC_ROOT,
REGISTRATION, …), each also as NAME_FILE: \`sync-node config\` prints what is in force. Exit codes: 0,
1 when it could not be done, 2 when it was called wrongly.`

/** Of the command that `words` begin with, or of all that begin with them. */
export function commandHelp(commands: Command[], words: string[]): string {
  const text = `${words.join(' ')} `
  const one = commands.find(({ name }) => text.startsWith(`${name} `))
  if (one !== undefined) return helpOf(one)
  const some = commands.filter(({ name }) => name.startsWith(`${words[0]} `))
  return some.length === 0 ? help(commands) : lines(some)
}

function helpOf({ name, takes, options = {}, summary, details }: Command): string {
  const named = Object.entries(options).map(
    ([option, { takes: value, summary: does }]): [string, string] => [
      `--${option}${value === undefined ? '' : ` ${value}`}`,
      does,
    ],
  )
  // One that may come again has to come once.
  const lists = Object.values(options).map(({ isList }) => isList === true)
  const calls = named.map(([option], i) => (lists[i] ? `${option} [${option}]` : `[${option}]`))
  const usage = [name, ...takes, ...calls].join(' ')
  const parts = [`Usage: sync-node ${usage}`, sentence(summary)]
  if (details !== undefined) parts.push(details)
  if (named.length > 0) parts.push(columns(named))
  return parts.join('\n\n')
}

const sentence = (summary: string): string => `${summary[0]?.toUpperCase()}${summary.slice(1)}.`

const lines = (commands: Command[]): string =>
  columns(commands.map(({ name, takes, summary }) => [[name, ...takes].join(' '), summary]))

function columns(rows: [string, string][]): string {
  const width = Math.max(...rows.map(([first]) => first.length))
  return rows.map(([first, rest]) => `  ${first.padEnd(width)}  ${rest}`).join('\n')
}
