// Owns dropping symbol tables and debug sections from an ELF executable, in TypeScript, because a build machine may have no `strip`.

const ident = { class64: 2, littleEndian: 1 }
const header = {
  bytes: 64,
  phoff: 0x20,
  shoff: 0x28,
  phentsize: 0x36,
  phnum: 0x38,
  shentsize: 0x3a,
  shnum: 0x3c,
  shstrndx: 0x3e,
}
const programHeader = { bytes: 56, offset: 0x08, filesz: 0x20 }
const sectionHeader = {
  bytes: 64,
  name: 0,
  type: 4,
  flags: 8,
  offset: 24,
  size: 32,
  link: 40,
  info: 44,
}
const type = { strtab: 3, nobits: 8 }
const flag = { alloc: 0x2n, infoLink: 0x40n }

/** Keeps what is loaded into memory, byte for byte and at its place: only what lies behind it goes. */
export function stripElf(elf: Buffer): Buffer {
  refuseOther(elf)
  const sections = readSections(elf)
  const nameTable = sections[elf.readUInt16LE(header.shstrndx)]
  if (nameTable === undefined) throw new Error('ELF: no section names')
  const kept = sections.filter((section, index) => index === 0 || section.isLoaded)

  const names = writeNames(kept.map((section) => nameOf(elf, nameTable, section)))
  const namesAt = endOfLoaded(elf, kept)
  const tableAt = Math.ceil((namesAt + names.bytes.length) / 8) * 8
  const out = Buffer.alloc(tableAt + (kept.length + 1) * sectionHeader.bytes)
  elf.copy(out, 0, 0, namesAt)
  names.bytes.copy(out, namesAt)

  const newIndex = new Map(kept.map((section, index) => [section.index, index]))
  kept.forEach((section, index) => {
    const entry = Buffer.from(section.entry)
    entry.writeUInt32LE(names.offsets[index] ?? 0, sectionHeader.name)
    entry.writeUInt32LE(newIndex.get(section.link) ?? 0, sectionHeader.link)
    if (section.infoIsIndex)
      entry.writeUInt32LE(newIndex.get(section.info) ?? 0, sectionHeader.info)
    entry.copy(out, tableAt + index * sectionHeader.bytes)
  })
  nameTableEntry(names, namesAt).copy(out, tableAt + kept.length * sectionHeader.bytes)

  out.writeBigUInt64LE(BigInt(tableAt), header.shoff)
  out.writeUInt16LE(kept.length + 1, header.shnum)
  out.writeUInt16LE(kept.length, header.shstrndx)
  return out
}

type Section = ReturnType<typeof readSections>[number]
type Names = ReturnType<typeof writeNames>

function refuseOther(elf: Buffer): void {
  const isElf = elf.length > header.bytes && elf.readUInt32BE(0) === 0x7f454c46
  if (!isElf || elf[4] !== ident.class64 || elf[5] !== ident.littleEndian) {
    throw new Error('not a 64-bit little-endian ELF file')
  }
  if (
    elf.readUInt16LE(header.shentsize) !== sectionHeader.bytes ||
    elf.readUInt16LE(header.phentsize) !== programHeader.bytes
  ) {
    throw new Error('ELF: unexpected header sizes')
  }
}

function readSections(elf: Buffer) {
  const at = Number(elf.readBigUInt64LE(header.shoff))
  return Array.from({ length: elf.readUInt16LE(header.shnum) }, (_, index) => {
    const start = at + index * sectionHeader.bytes
    const entry = elf.subarray(start, start + sectionHeader.bytes)
    const flags = entry.readBigUInt64LE(sectionHeader.flags)
    return {
      index,
      entry,
      name: entry.readUInt32LE(sectionHeader.name),
      isLoaded: (flags & flag.alloc) !== 0n,
      hasBytes: entry.readUInt32LE(sectionHeader.type) !== type.nobits,
      offset: Number(entry.readBigUInt64LE(sectionHeader.offset)),
      size: Number(entry.readBigUInt64LE(sectionHeader.size)),
      link: entry.readUInt32LE(sectionHeader.link),
      info: entry.readUInt32LE(sectionHeader.info),
      infoIsIndex: (flags & flag.infoLink) !== 0n,
    }
  })
}

function nameOf(elf: Buffer, table: Section, section: Section): string {
  const start = table.offset + section.name
  return elf.toString('latin1', start, elf.indexOf(0, start))
}

function endOfLoaded(elf: Buffer, kept: Section[]): number {
  const at = Number(elf.readBigUInt64LE(header.phoff))
  const count = elf.readUInt16LE(header.phnum)
  const segmentEnds = Array.from({ length: count }, (_, index) => {
    const start = at + index * programHeader.bytes
    const offset = elf.readBigUInt64LE(start + programHeader.offset)
    return Number(offset + elf.readBigUInt64LE(start + programHeader.filesz))
  })
  const sectionEnds = kept.map((section) => section.offset + (section.hasBytes ? section.size : 0))
  return Math.max(at + count * programHeader.bytes, ...segmentEnds, ...sectionEnds)
}

function writeNames(names: string[]) {
  let text = ''
  const offsets = [...names, '.shstrtab'].map((name) => {
    const offset = text.length
    text += `${name}\0`
    return offset
  })
  return { bytes: Buffer.from(text, 'latin1'), offsets }
}

function nameTableEntry(names: Names, offset: number): Buffer {
  const entry = Buffer.alloc(sectionHeader.bytes)
  entry.writeUInt32LE(names.offsets.at(-1) ?? 0, sectionHeader.name)
  entry.writeUInt32LE(type.strtab, sectionHeader.type)
  entry.writeBigUInt64LE(BigInt(offset), sectionHeader.offset)
  entry.writeBigUInt64LE(BigInt(names.bytes.length), sectionHeader.size)
  entry.writeBigUInt64LE(1n, 48)
  return entry
}
