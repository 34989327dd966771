// Owns the proof that whatever several people do, with several devices each, in whatever order, every
// answer is the one that a small model in memory gives, and every device ends with what it has.
import { describe, it } from 'node:test'
import { startNode } from './helpers/node.ts'
import { expectModel } from './model/history.ts'

describe('Several people with several devices', () => {
  it('get the answers of the model, and end with what it has', async (t) => {
    await expectModel(t, await startNode(t), 20)
  })
})
