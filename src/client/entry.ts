// Owns how an entry of a replica changes: each step a function of what it was.
import { isEqual } from './encoding.ts'
import { isStoreKey } from './key.ts'
import type { LocalEntry } from './local.ts'
import { checkMeta } from './meta.ts'
import type { Meta, Permission } from './types.ts'

/** What the server has in a store. */
export interface Remote {
  key: string
  token: string
  value: Uint8Array
  meta: Meta
  permission?: Permission
  write?: string | undefined
}

export const emptyEntry = (id: string): LocalEntry => ({
  id,
  key: isStoreKey(id) ? id : null,
  meta: isStoreKey(id) ? {} : { name: id },
  permission: 'OWN',
  value: null,
  base: null,
  queued: null,
  // Not from 0: a tab that is sending would take a later entry of this id for the one that it knows.
  edits: Math.floor(Math.random() * 2 ** 48),
  writes: [],
  parked: null,
  isStale: false,
  isDoubtful: false,
})

/** Edited here; null as the value for a deletion. Throws REQ01 for meta that is too long. */
export function edited(
  before: LocalEntry | null,
  id: string,
  { value, meta }: { value: Uint8Array | null; meta?: Meta | undefined },
): LocalEntry | null {
  const entry = before ?? emptyEntry(id)
  // The server never heard of it.
  if (value === null && entry.base === null && entry.writes.length === 0) return null
  const next = meta === undefined ? entry.meta : plain({ ...entry.meta, ...meta })
  if (value !== null) checkMeta(next)
  return {
    ...entry,
    value,
    meta: next,
    queued: entry.queued ?? Date.now(),
    edits: entry.edits + 1,
    parked: null,
  }
}

interface Sent {
  token: string
  key: string
  value: Uint8Array
  meta: Meta
  edits: number
}

/** The server took `value` and `meta`, which the entry had after so many edits. */
export const sent = (entry: LocalEntry, { token, key, value, meta, edits }: Sent): LocalEntry => ({
  ...entry,
  key,
  base: { token, value, meta },
  queued: entry.edits === edits ? null : entry.queued,
  writes: [],
  isStale: false,
  isDoubtful: false,
})

/** The server still has what `base` says. */
export function confirmed(entry: LocalEntry, permission = entry.permission): LocalEntry {
  const parked = entry.queued === null ? null : entry.parked
  const isKnown = entry.permission === permission && entry.parked === parked
  if (isKnown && !entry.isStale && !entry.isDoubtful) return entry
  return { ...entry, permission, parked, isStale: false, isDoubtful: false }
}

/** The server has nothing any more: what is left is new. */
export const ungrounded = (entry: LocalEntry): LocalEntry => ({
  ...entry,
  key: isStoreKey(entry.id) ? entry.id : null,
  base: null,
  queued: entry.queued ?? Date.now(),
  writes: [],
  isStale: false,
  isDoubtful: false,
})

/** What both made of the meta that both began with: each member as it was changed, here in the first place. */
export function mergedMeta({ base, meta, isDoubtful }: LocalEntry, remote: Meta): Meta {
  const before = new Map(Object.entries((!isDoubtful && base?.meta) || {}))
  const merged = new Map(Object.entries(remote))
  const here = new Map(Object.entries(meta))
  for (const name of [...before.keys(), ...here.keys()]) {
    const isChanged = JSON.stringify(here.get(name)) !== JSON.stringify(before.get(name))
    if (isChanged) merged.set(name, here.get(name))
  }
  return plain(Object.fromEntries(merged))
}

/** A copy, as JSON has it; without what is undefined. */
const plain = (meta: Meta): Meta => JSON.parse(JSON.stringify(meta)) as Meta

const sorted = (meta: Meta): string =>
  JSON.stringify(Object.entries(meta).sort(([a], [b]) => (a < b ? -1 : 1)))

/** The server has `remote`, and `both` is what it came to here: the same, or what merging made of both. */
export function grounded(
  entry: LocalEntry,
  remote: Remote,
  { value, meta }: Pick<LocalEntry, 'value' | 'meta'>,
): LocalEntry {
  const isSame =
    value !== null && isEqual(value, remote.value) && sorted(meta) === sorted(remote.meta)
  const { value: before } = entry
  const wasSame = value === before || (value && before && isEqual(value, before)) === true
  return {
    ...entry,
    key: remote.key,
    meta,
    permission: remote.permission ?? entry.permission,
    value: isSame ? remote.value : value,
    base: { token: remote.token, value: remote.value, meta: remote.meta },
    queued: isSame ? null : (entry.queued ?? Date.now()),
    edits: wasSame ? entry.edits : entry.edits + 1,
    writes: [],
    parked: null,
    isStale: false,
    isDoubtful: false,
  }
}

/** Back to what the server had, which is still to be fetched if it is stale; null when that was nothing. */
export const discarded = (entry: LocalEntry): LocalEntry | null =>
  entry.base === null && !entry.isStale
    ? null
    : {
        ...entry,
        value: entry.base?.value ?? null,
        meta: entry.base?.meta ?? entry.meta,
        queued: null,
        edits: entry.edits + 1,
        writes: [],
        parked: null,
      }

/** Has something for the sync to do. */
export const isDue = (entry: LocalEntry): boolean =>
  entry.parked === null && (entry.queued !== null || entry.isStale)
