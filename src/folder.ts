// Owns folders that survive a power cut.
import { existsSync } from 'node:fs'
import { mkdir, open } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Makes a folder and its parents, for their owner alone; each new entry is synced. */
export async function createFolder(path: string): Promise<void> {
  if (existsSync(path)) return
  const first = await mkdir(path, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  const parent = dirname(first)
  await syncFolder(parent)
  let made = parent
  for (const name of relative(parent, path).split(sep)) {
    made = join(made, name)
    await syncFolder(made)
  }
}
