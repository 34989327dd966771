// Owns what a note is: how it is kept, and what becomes of one that was changed in two places.

export interface Note {
  title: string
  text: string
}

export const encode = (note: Note): Uint8Array => new TextEncoder().encode(JSON.stringify(note))

export const decode = (bytes: Uint8Array): Note =>
  JSON.parse(new TextDecoder().decode(bytes)) as Note

/** Loses nothing that was written in either. `base` is what both were once. */
export const mergeNotes = (base: Note, local: Note, remote: Note): Note => ({
  title: pick(base.title, local.title, remote.title) ?? `${remote.title} / ${local.title}`,
  text: pick(base.text, local.text, remote.text) ?? mergeLines(base.text, local.text, remote.text),
})

/** The side that changed; null when both did. */
function pick(base: string, local: string, remote: string): string | null {
  if (local === base || local === remote) return remote
  return remote === base ? local : null
}

/** The remote lines without those that were taken out here, and then the new ones of here. */
function mergeLines(base: string, local: string, remote: string): string {
  const [was, here, there] = [base.split('\n'), local.split('\n'), remote.split('\n')]
  const kept = there.filter((line) => here.includes(line) || !was.includes(line))
  const added = here.filter((line) => !there.includes(line) && !was.includes(line))
  return [...kept, ...added].join('\n')
}
