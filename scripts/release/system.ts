// Owns what the executable may ask of the system it is started on. README, install.sh and the .deb
// promise it to people, so a Node that asks for more must not slip in.
import { compareVersions, needsOf, newest } from './elf.ts'

const MOST: Record<string, string> = { GLIBC: '2.28', GLIBCXX: '3.4.21', CXXABI: '1.3.11' }

const LIBC = `libc6 (>= ${MOST['GLIBC']})`
/** GCC 7 is the first with these versions of GLIBCXX and CXXABI. */
const LIBSTDCXX = 'libstdc++6 (>= 7)'
const PACKAGES: Record<string, string> = {
  'ld-linux-aarch64.so.1': LIBC,
  'ld-linux-x86-64.so.2': LIBC,
  'libatomic.so.1': 'libatomic1',
  'libc.so.6': LIBC,
  'libdl.so.2': LIBC,
  'libgcc_s.so.1': 'libgcc-s1 | libgcc1',
  'libm.so.6': LIBC,
  'libpthread.so.0': LIBC,
  'libstdc++.so.6': LIBSTDCXX,
}

/** The Debian packages that an executable needs. Throws when it needs more than is promised. */
export function systemNeeds(elf: Buffer): string[] {
  const needs = needsOf(elf)
  for (const [prefix, most] of Object.entries(MOST)) {
    const asked = newest(needs, prefix)
    if (compareVersions(asked, most) > 0) {
      throw new Error(`the executable needs ${prefix} ${asked}, and ${most} is promised`)
    }
  }
  const packages = [...needs.keys()].map((library) => {
    const name = PACKAGES[library]
    if (name === undefined)
      throw new Error(`the executable needs ${library}, which is not promised`)
    return name
  })
  return [...new Set(packages)].sort()
}
