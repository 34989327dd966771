// Owns the log: JSON lines on stdout for machines, one line of words on a terminal. No secret, account
// id, key name, value or client address goes in.
import { pino, type Logger } from 'pino'
import type { Config } from './config.ts'

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'child'>

const LABELS: Record<number, string> = {
  10: 'trace',
  20: 'debug',
  30: '',
  40: 'warning: ',
  50: 'error: ',
  60: 'fatal: ',
}
const HIDDEN = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'err'])

export function openLog(config: Pick<Config, 'logLevel'>): Log {
  const options = { level: config.logLevel, base: null }
  return process.stdout.isTTY ? pino(options, { write: writeForPeople }) : pino(options)
}

function writeForPeople(line: string): void {
  const entry = JSON.parse(line) as Record<string, unknown> & {
    level: number
    msg?: string
    err?: { stack?: string }
  }
  const rest = Object.entries(entry)
    .filter(([name]) => !HIDDEN.has(name))
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  const words = [`${LABELS[entry.level]}${entry.msg ?? ''}`, ...rest].join('  ')
  process.stdout.write(`${words}${entry.err?.stack === undefined ? '' : `\n${entry.err.stack}`}\n`)
}
