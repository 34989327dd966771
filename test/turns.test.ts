// Proves who comes in when more want to than may: the lowest rank first, and whoever came first among equals.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { turns } from '../src/turns.ts'

/** One place is taken until `free`; what asks for it is noted when it begins, or with the code that refused it. */
function line(waiting?: number) {
  const inTurn = turns(1, waiting)
  const { promise: taken, resolve: free } = Promise.withResolvers<void>()
  const first = inTurn(() => taken)
  const began: string[] = []
  const refused: string[] = []
  const asked = [first]
  return {
    began,
    refused,
    ask(name: string, rank?: number) {
      const work = inTurn(async () => void began.push(name), rank)
      asked.push(work.catch(({ code }: { code: string }) => void refused.push(`${name} ${code}`)))
    },
    async end() {
      free()
      await Promise.all(asked)
    },
  }
}

describe('turns', () => {
  it('are in order among equals, and by rank else', async () => {
    const { ask, began, end } = line()
    for (const [name, rank] of [['c', 2], ['a'], ['d', 9], ['b'], ['c too', 2]] as const) {
      ask(name, rank)
    }
    await end()
    assert.deepEqual(began, ['a', 'b', 'c', 'c too', 'd'])
  })

  it('that are not to be had are refused to the last of the highest rank, new or waiting', async () => {
    const { ask, began, refused, end } = line(2)
    for (const [name, rank] of [
      ['a', 5],
      ['b', 5],
      ['c', 5],
      ['d', 6],
      ['e', 1],
    ] as const) {
      ask(name, rank)
    }
    await end()
    assert.deepEqual(began, ['e', 'a'])
    assert.deepEqual(refused.sort(), ['b ERR05', 'c ERR05', 'd ERR05'])
  })
})
