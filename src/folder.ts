// Owns folders that survive a power cut.
import { accessSync, constants, existsSync } from 'node:fs'
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

/** The folder, or the first above it that is there. */
export function nearest(path: string): string {
  let folder = path
  while (!existsSync(folder)) folder = dirname(folder)
  return folder
}

/** Makes a folder and its parents, for their owner alone; each new entry is synced. One that is there can be written. */
export async function createFolder(path: string): Promise<void> {
  // Of what is for reading only, mkdir would say that it is not there, and SQLite that it cannot open a file.
  accessSync(nearest(path), constants.W_OK)
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
