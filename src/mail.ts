// Owns mail: the one letter this server writes.
import { domainToASCII, domainToUnicode } from 'node:url'
import type { Transporter } from 'nodemailer'
import type { Config } from './config.ts'
import { load } from './packed.ts'

export interface Mailer {
  /** A letter begins at any time within so long, as its work tells who sends other requests meanwhile. */
  maxDelayMs: number
  /** Sends a password reset token to the address that is the account's id. */
  sendReset(address: string, token: string): Promise<void>
}

/** Null without SMTP_URL. */
export function openMailer({
  smtpUrl,
  mailFrom,
  publicUrl,
}: Pick<Config, 'smtpUrl' | 'mailFrom' | 'publicUrl'>): Mailer | null {
  if (smtpUrl === null || mailFrom === null) return null
  let transport: Promise<Transporter> | undefined
  return {
    maxDelayMs: 1000,
    async sendReset(address, token) {
      if (!isPlain(address)) return
      transport ??= load('nodemailer').then(({ createTransport }) => createTransport(smtpUrl))
      await (
        await transport
      ).sendMail({
        from: mailFrom,
        to: { name: '', address },
        envelope: { from: mailFrom.replace(/^.*<|>$/g, ''), to: [address] },
        subject: 'Set a new password',
        text: letter(token, publicUrl),
        disableFileAccess: true,
        disableUrlAccess: true,
      })
    },
  }
}

/**
 * Anything but one plain address could name further recipients; and what mail software drops or maps
 * to other characters would reach somebody else than the account's owner.
 */
function isPlain(address: string): boolean {
  const [, domain] = /^[^\s@<>,;:"()[\]\\\p{C}]+@([^\s@<>,;:"()[\]\\\p{C}]+)$/u.exec(address) ?? []
  const isAscii = domain !== undefined && /^[\w.-]+$/.test(domain)
  return isAscii || (domain !== undefined && domainToUnicode(domainToASCII(domain)) === domain)
}

// The link is built from PUBLIC_URL alone: the Host header of a request is anybody's.
const letter = (token: string, publicUrl: string | null): string => `\
Somebody, hopefully you, asked to set a new password for your account on this sync server.
${publicUrl === null ? '' : `\nOpen this link within an hour:\n\n${publicUrl}/#reset=${token}\n`}
${publicUrl === null ? 'Give this token to your app within an hour:' : 'Or give this token to your app:'}

${token}

If it was not you, do nothing: your password stays as it is.
`
