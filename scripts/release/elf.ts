// Owns what an ELF executable asks of the system it is started on: which libraries, and how new.

const header = { bytes: 64, shoff: 0x28, shnum: 0x3c }
const sectionHeader = { bytes: 64, type: 4, offset: 24, size: 32, link: 40 }
const type = { dynamic: 6, versionNeeds: 0x6ffffffe }
const entry = { bytes: 16, needed: 1n }
const need = { file: 4, aux: 8, next: 12 }
const version = { name: 8, next: 12 }

/** The version names of each library that is needed, such as `libc.so.6` → `GLIBC_2.28`, …. */
export type Needs = Map<string, string[]>

export function needsOf(elf: Buffer): Needs {
  const at = Number(elf.readBigUInt64LE(header.shoff))
  const sections = Array.from({ length: elf.readUInt16LE(header.shnum) }, (_, index) => {
    const start = at + index * sectionHeader.bytes
    return {
      type: elf.readUInt32LE(start + sectionHeader.type),
      offset: Number(elf.readBigUInt64LE(start + sectionHeader.offset)),
      size: Number(elf.readBigUInt64LE(start + sectionHeader.size)),
      link: elf.readUInt32LE(start + sectionHeader.link),
    }
  })
  const dynamic = sections.find((section) => section.type === type.dynamic)
  const versions = sections.find((section) => section.type === type.versionNeeds)
  const strings = sections[dynamic?.link ?? -1]
  if (dynamic === undefined || versions === undefined || strings === undefined) {
    throw new Error('ELF: no dynamic section')
  }
  const textAt = (offset: number): string => {
    const start = strings.offset + offset
    return elf.toString('latin1', start, elf.indexOf(0, start))
  }

  const needs: Needs = new Map()
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += entry.bytes) {
    if (elf.readBigUInt64LE(at) === entry.needed) {
      needs.set(textAt(Number(elf.readBigUInt64LE(at + 8))), [])
    }
  }
  for (const at of chain(elf, versions.offset, need.next)) {
    const library = textAt(elf.readUInt32LE(at + need.file))
    const first = at + elf.readUInt32LE(at + need.aux)
    const names = chain(elf, first, version.next).map((one) =>
      textAt(elf.readUInt32LE(one + version.name)),
    )
    needs.set(library, names)
  }
  return needs
}

/** Offsets of a list whose members say how far the next one is, the last one 0. */
function chain(elf: Buffer, first: number, next: number): number[] {
  const offsets = [first]
  for (let at = first; elf.readUInt32LE(at + next) !== 0;) {
    at += elf.readUInt32LE(at + next)
    offsets.push(at)
  }
  return offsets
}

/** The newest version that is asked for under a prefix: `2.28` of `GLIBC`. */
export function newest(needs: Needs, prefix: string): string {
  const numbers = [...needs.values()]
    .flat()
    .map((name) => new RegExp(`^${prefix}_([\\d.]+)$`).exec(name)?.[1])
    .filter((number) => number !== undefined)
  const [last] = numbers.sort(compareVersions).slice(-1)
  if (last === undefined) throw new Error(`ELF: nothing of ${prefix} is needed`)
  return last
}

export function compareVersions(a: string, b: string): number {
  const [left, right] = [a.split('.').map(Number), b.split('.').map(Number)]
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
