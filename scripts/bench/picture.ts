// Owns the picture: a bar for everybody, in rates and in memory, as SVG that is readable in light and dark.
import { FLOOR, SYNC_NODE } from './peers.ts'
import { toDigits, type Figure, type Report } from './report.ts'

const WIDTH = 720
const ROW = 22
const HEAD = 40
const NAME = 180
const BAR = 430
const MARGIN = 20

const STYLE = `
  .ground { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 } .other { fill: #afb8c1 } .floor { fill: #d8dee4 } .own { fill: #1f883d }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 }
    .other { fill: #57606a } .floor { fill: #30363d } .own { fill: #3fb950 }
  }`

/** The works that it shows, by how they begin. */
const PANELS = ['GET 4 KiB', 'PUT 4 KiB, token checked, synced before', 'memory after these loads']

/** Null where nothing of this was measured. */
export function toPicture({ results }: Report): string | null {
  const shown = PANELS.flatMap((start) => results.filter(({ work }) => work.startsWith(start)))
  if (shown.length === 0) return null
  let y = MARGIN
  const parts = shown.map(({ work, unit, figures }) => {
    const top = y
    y += HEAD + figures.length * ROW
    return panel(`${work} (${unit})`, figures, top)
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" role="img" aria-label="Sync Node beside other servers">
<style>${STYLE}
</style>
<rect class="ground" width="${WIDTH}" height="${y}" rx="8"/>
${parts.join('\n')}
</svg>
`
}

function panel(title: string, bars: Figure[], top: number): string {
  const most = Math.max(...bars.map(({ value }) => value))
  const lines = bars.map(({ who, value }, i) => {
    const kind = { [SYNC_NODE]: 'own', [FLOOR]: 'floor' }[who] ?? 'other'
    const y = top + HEAD - 12 + i * ROW
    const width = Math.max(1, (value / most) * BAR).toFixed(1)
    const end = MARGIN + NAME + Number(width) + 6
    return `<text x="${MARGIN}" y="${y + 12}">${who}</text><rect class="${kind}" x="${MARGIN + NAME}" y="${y}" width="${width}" height="${ROW - 6}" rx="2"/><text x="${end}" y="${y + 12}">${toDigits(value)}</text>`
  })
  return [`<text class="title" x="${MARGIN}" y="${top + 12}">${title}</text>`, ...lines].join('\n')
}
