// Owns the search for an order: each operation at one moment between its call and its answer, all as the
// model has them. The search is Wing and Gong's with Lowe's cache ("Testing for linearizability", 2017, §3).
import { absent, step, type Operation, type State } from './model.ts'

interface Frame {
  node: number
  state: State
  low: number
  beyond: number[]
}

/** An order of those that happened, as indexes; or the operation that had no place when the search had come furthest. */
export type Verdict = { order: number[] } | { order: null; stuck: number }

/** `operations` by their call. Each is a node at its call, and one more at its answer. */
export function findOrder(operations: readonly Operation[], accounts: number): Verdict {
  const list = eventList(operations)
  const seen = new Set<string>()
  const frames: Frame[] = []
  let state = absent(accounts)
  let missing = operations.filter(isAnswered).length
  // All answered ones below it have their place, and of the others those in `beyond`.
  let low = 0
  let beyond: number[] = []
  let furthest = { frames: -1, stuck: 0 }
  let node = list.first()

  function place(index: number): boolean {
    const after = step(state, operations[index] as Operation)
    if (after === null) return false
    let end = low
    const rest = [...beyond, index].toSorted((a, b) => a - b)
    while (end < operations.length && (!isAnswered(operations[end]) || rest.includes(end))) end++
    const kept = rest.filter((one) => one >= end || !isAnswered(operations[one]))
    const key = `${end};${kept.join()};${after.value};${after.permissions.join()}`
    if (seen.has(key)) return false
    seen.add(key)
    frames.push({ node, state, low, beyond })
    state = after
    low = end
    beyond = kept
    return true
  }

  while (missing > 0) {
    const index = list.calledAt(node)
    if (index !== null && place(index)) {
      list.take(node)
      if (isAnswered(operations[index])) missing--
      node = list.first()
    } else if (index !== null) {
      node = list.after(node)
    } else {
      // Something had its answer here, and has no place before: what was placed last was wrong.
      if (frames.length > furthest.frames) {
        furthest = { frames: frames.length, stuck: list.answeredAt(node) }
      }
      const frame = frames.pop()
      if (frame === undefined) return { order: null, stuck: furthest.stuck }
      ;({ node, state, low, beyond } = frame)
      list.giveBack(node)
      if (isAnswered(operations[list.calledAt(node) as number])) missing++
      node = list.after(node)
    }
  }
  return { order: frames.map((frame) => list.calledAt(frame.node) as number) }
}

/** What had no place in an order, and all that overlaps with it. */
export function explain(history: Operation[], accounts: number): string[] {
  const verdict = findOrder(history, accounts)
  if (verdict.order !== null) return []
  const stuck = history[verdict.stuck] as Operation
  const around = history.filter(
    ({ call, answered }) => call <= stuck.answered && answered >= stuck.call,
  )
  return [[stuck, ...around].map((operation) => JSON.stringify(operation)).join('\n')]
}

const isAnswered = (operation: Operation | undefined): boolean =>
  operation !== undefined && operation.answered !== Infinity

/** Calls and answers by time, linked, so that an operation can be taken out and given back. */
function eventList(operations: readonly Operation[]) {
  const events = operations
    .flatMap(({ call, answered }, index) => [
      { time: call, index, isCall: true },
      { time: answered, index, isCall: false },
    ])
    .filter(({ time }) => time !== Infinity)
    // Of the same moment the call counts as the earlier one.
    .toSorted((a, b) => a.time - b.time || Number(b.isCall) - Number(a.isCall))
  const end = events.length
  const next = Array.from({ length: end + 1 }, (_, i) => i + 1)
  const previous = Array.from({ length: end + 1 }, (_, i) => i - 1)
  const answers = new Map(
    events.flatMap(({ index, isCall }, node) => (isCall ? [] : [[index, node] as const])),
  )
  let first = 0

  function unlink(node: number): void {
    const [before, after] = [previous[node] as number, next[node] as number]
    if (before === -1) first = after
    else next[before] = after
    previous[after] = before
  }

  function link(node: number): void {
    const [before, after] = [previous[node] as number, next[node] as number]
    if (before === -1) first = node
    else next[before] = node
    previous[after] = node
  }

  const answerOf = (node: number): number | undefined => answers.get(events[node]?.index as number)

  return {
    first: () => first,
    after: (node: number) => next[node] as number,
    /** The operation that is called here; null for an answer, and at the end. */
    calledAt: (node: number) =>
      events[node]?.isCall === true ? (events[node]?.index ?? null) : null,
    answeredAt: (node: number) => events[node]?.index ?? 0,
    take(node: number) {
      unlink(node)
      const answer = answerOf(node)
      if (answer !== undefined) unlink(answer)
    },
    giveBack(node: number) {
      const answer = answerOf(node)
      if (answer !== undefined) link(answer)
      link(node)
    },
  }
}
