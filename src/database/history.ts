// Owns the doubt whether a database server still has what it had. One that was away may have come back
// with an older copy: before anything else is asked of it then, a new range of the history begins, so
// that no cursor from beyond is taken for one of this history.
import { randomBytes } from 'node:crypto'
import { sql, type Database } from './database.ts'
import { NotSent, type Wire } from './wire.ts'

export interface History {
  /** Resolves when the database is known to be the one that it was, else throws NotSent. */
  sure(): Promise<void>
  /** It did not answer, and may come back as another. */
  doubt(): void
  /** Its sequence was found to be this. */
  saw(seq: number): Promise<void>
}

/** `client` speaks over the wire anyway. Nothing is doubted before a sequence was seen. */
export function openHistory(
  client: Database,
  wire: Pick<Wire, 'trust' | 'doubt' | 'isTrusted'>,
  {
    onWarning,
    onChange,
  }: { onWarning: (reason: string) => void; onChange: (accounts: null) => void },
): History {
  let seen: number | undefined
  let beginning: Promise<void> | undefined

  async function begin(): Promise<void> {
    const nonce = randomBytes(4).readUInt32BE()
    const [, found] = await client.batch(
      [
        sql('INSERT OR REPLACE INTO feed_start SELECT seq + 1, ? FROM node', [nonce]),
        sql('SELECT seq FROM node'),
      ],
      'write',
    )
    const seq = Number(found?.rows[0]?.['seq'])
    if (seq < (seen ?? 0)) onWarning('the database went back in time: clients sync again')
    seen = seq
    wire.trust()
    // Who waits looks whether the place where it stands is still known.
    onChange(null)
  }

  async function sure(): Promise<void> {
    if (seen === undefined || wire.isTrusted()) return
    beginning ??= begin().finally(() => {
      beginning = undefined
    })
    await beginning.catch((error: Error) => {
      wire.doubt()
      throw new NotSent(error.message, { cause: error.cause ?? error })
    })
  }

  return {
    sure,
    doubt: wire.doubt,
    async saw(seq) {
      if (seen === undefined) wire.trust()
      if (seq >= (seen ?? 0)) seen = seq
      else {
        wire.doubt()
        await sure()
      }
    },
  }
}
