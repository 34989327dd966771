// Owns what a check finds: how it is, in one line that says what to do when something is wrong.

export interface Finding {
  check: string
  level: 'ok' | 'warning' | 'problem'
  text: string
  /** What it is about, or what to write where: a line each. */
  items?: string[]
}

const finding =
  (level: Finding['level']) =>
  (check: string, text: string, items: string[] = []): Finding => ({
    check,
    level,
    text,
    ...(items.length === 0 ? {} : { items }),
  })

export const ok = finding('ok')
/** It works, but is worth a look. */
export const warning = finding('warning')
export const problem = finding('problem')

/** What `look` finds; a check that cannot be done is a problem of its own. */
export async function attempt(
  check: string,
  look: () => Finding | Finding[] | Promise<Finding | Finding[]>,
): Promise<Finding[]> {
  try {
    return [await look()].flat()
  } catch (error) {
    return [problem(check, `could not be looked at: ${(error as Error).message}`)]
  }
}
