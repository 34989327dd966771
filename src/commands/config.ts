// Owns `sync-node config`.
import type { Place } from '../blobs/calls.ts'
import { readConfig, sourceOf, type Config } from '../config.ts'
import { JSON_OPTION, printJson, printTable, type Command } from './command.ts'

export const config: Command = {
  name: 'config',
  takes: [],
  options: JSON_OPTION,
  summary: 'print the settings in force, and where each comes from; no secret',
  async run({ options }, environment) {
    const read = readConfig(environment)
    const settings = Object.entries(VALUES).map(([name, valueOf]) => ({
      name,
      value: valueOf(read),
      source: sourceOf(environment, name),
    }))
    if (options['json'] === true) return printJson(settings)
    printTable([
      ['SETTING', 'VALUE', 'FROM'],
      ...settings.map(({ name, value, source }) => [name, String(value ?? '-'), source]),
    ])
  },
}

const VALUES: Record<string, (config: Config) => string | number | null> = {
  PORT: ({ port }) => port,
  HOST: ({ host }) => host,
  STATIC_ROOT: ({ root }) => root,
  REGISTRATION: ({ registration }) => registration,
  QUOTA: ({ quota }) => quota ?? 'none',
  MAX_VALUE_SIZE: ({ maxValueSize }) => maxValueSize,
  PUBLIC_URL: ({ publicUrl }) => publicUrl,
  TRUSTED_PROXIES: ({ trustedProxies }) => trustedProxies.rules.join(', ') || null,
  SECRET_KEY: ({ secretKey }) => (secretKey === null ? 'STATIC_ROOT/secret' : 'set'),
  SMTP_URL: ({ smtpUrl }) => smtpUrl && withoutPassword(smtpUrl),
  MAIL_FROM: ({ mailFrom }) => mailFrom,
  METRICS_PORT: ({ metricsPort }) => metricsPort,
  LOG_LEVEL: ({ logLevel }) => logLevel,
  DATABASE_URL: ({ database }) => database?.url ?? 'file:',
  DATABASE_AUTH_TOKEN: ({ database }) => (database?.authToken ? 'set' : null),
  BLOB_URL: ({ blobUrl }) => blobUrl && toUrl(blobUrl),
  AWS_ACCESS_KEY_ID: ({ blobUrl }) => blobUrl && 'set',
  AWS_SECRET_ACCESS_KEY: ({ blobUrl }) => blobUrl && 'set',
  AWS_SESSION_TOKEN: ({ blobUrl }) => (blobUrl?.sessionToken ? 'set' : null),
}

const toUrl = ({ bucket, prefix, endpoint, region }: Place): string =>
  `s3://${bucket}/${prefix}?endpoint=${endpoint}&region=${region}`

function withoutPassword(text: string): string {
  const url = new URL(text)
  if (url.password !== '') url.password = '…'
  return decodeURI(url.href)
}
