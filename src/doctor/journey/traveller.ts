// Owns who goes the way, and what all checks of the way do alike.
import { problem, warning, type Finding } from '../finding.ts'
import { linesFor, type Fault, type Proxy } from './lines.ts'
import type { Visitor } from './visitor.ts'
import { NoAnswer, tell, type Answer, type Asked, type Way } from './way.ts'

export interface Traveller {
  way: Way
  proxy: Proxy | null
  visitor: Visitor
  /** The largest value that the account may store. */
  mostBytes: number
}

type Told = { fault: Fault; text: string }

/** What is wrong on the way, and what to write into the proxy's configuration. */
export const faulty = (
  { proxy }: Pick<Traveller, 'proxy'>,
  check: string,
  { fault, text }: Told,
): Finding => problem(check, text, linesFor(fault, proxy))

export const doubtful = (
  { proxy }: Pick<Traveller, 'proxy'>,
  check: string,
  { fault, text }: Told,
): Finding => warning(check, text, linesFor(fault, proxy))

/** The name stands in the path as it is given: a check decides what is encoded. */
export const pathOf = (raw: string): string => `/store/doctor/${raw}`

/** Makes a store under a name that is used once. Throws when that does not get through. */
export async function create(
  { way }: Traveller,
  raw: string,
  asked: Asked = { body: 'doctor' },
): Promise<{ token: string; key: string }> {
  const answer = await way.ask('PUT', pathOf(raw), asked)
  if (answer.status !== 201) throw new NoAnswer(tell(answer))
  return { token: answer.header('x-sync-token'), key: answer.header('x-sync-key') }
}

/** The answer, or why there is none. */
export async function outcome(work: Promise<Answer>): Promise<Answer | string> {
  try {
    return await work
  } catch (error) {
    if (error instanceof NoAnswer) return error.message
    throw error
  }
}
