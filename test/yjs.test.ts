import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import * as Y from 'yjs'
import type { Merge, Replica } from '../src/client/replica.ts'
import { startNode } from './helpers/node.ts'
import { openDevice, until, type Device } from './helpers/replicas.ts'

// The recipe of the README: a store holds a document's whole state, and merging is Yjs's own.
const join = (...states: (Uint8Array | null)[]): Uint8Array =>
  Y.mergeUpdates(states.filter((state) => state !== null))

const merge: Merge = ({ local, remote }) => join(local, remote)

/** The document of a store: what is typed goes out, what comes in is applied. */
async function openDocument(replica: Replica, name: string): Promise<Y.Doc> {
  const doc = new Y.Doc()
  doc.on('update', (_, origin) => {
    if (origin === replica) return
    void replica.update(name, (now) => join(now, Y.encodeStateAsUpdate(doc)))
  })
  replica.subscribe((event) => {
    if (event.type !== 'change' || event.id !== name || event.value === null) return
    Y.applyUpdate(doc, event.value, replica)
  })
  const saved = await replica.get(name)
  if (saved !== null) Y.applyUpdate(doc, saved, replica)
  return doc
}

async function openEditor(t: TestContext, node: Parameters<typeof openDevice>[1]) {
  const device = await openDevice(t, node, { merge })
  const doc = await openDocument(device.replica, 'essay')
  return { device, doc, text: doc.getText('body') }
}

const shows =
  ({ doc }: { doc: Y.Doc }, expected: () => string) =>
  () =>
    doc.getText('body').toString() === expected()

describe('A Yjs document in a replica', () => {
  it('converges on all devices, edited at once and offline', async (t) => {
    const node = await startNode(t)
    const [phone, laptop] = [await openEditor(t, node), await openEditor(t, node)]
    phone.text.insert(0, 'Hello')
    await until(
      laptop.device,
      shows(laptop, () => 'Hello'),
    )
    const offline = ({ replica, net }: Device): Promise<void> => {
      net.cut()
      return until({ replica }, () => replica.status().state === 'offline')
    }
    await Promise.all([offline(phone.device), offline(laptop.device)])
    for (const letter of ' from the phone') phone.text.insert(phone.text.length, letter)
    laptop.text.insert(0, 'Oh! ')
    laptop.text.delete(4, 1)
    laptop.text.insert(4, 'h')
    await node.restart()
    for (const { device } of [phone, laptop]) device.net.mend()
    const expected = 'Oh! hello from the phone'
    await until(
      phone.device,
      shows(phone, () => expected),
    )
    await until(
      laptop.device,
      shows(laptop, () => expected),
    )
    for (const { device } of [phone, laptop]) await device.replica.synced()
    const third = await openEditor(t, node)
    await until(
      third.device,
      shows(third, () => expected),
    )
    assert.equal(third.text.toString(), expected)
  })

  it('converges with many devices typing at once', async (t) => {
    const node = await startNode(t)
    const editors: Awaited<ReturnType<typeof openEditor>>[] = []
    for (let n = 0; n < 4; n++) editors.push(await openEditor(t, node))
    for (const [i, { text }] of editors.entries()) {
      for (let n = 0; n < 10; n++) text.insert(0, String(i))
    }
    await Promise.all(
      editors.map((editor) => until(editor.device, () => editor.text.length === 40)),
    )
    const [first] = editors
    await Promise.all(
      editors.map((editor) =>
        until(
          editor.device,
          shows(editor, () => String(first?.text)),
        ),
      ),
    )
    for (const { device } of editors) await device.replica.synced()
    const fresh = await openEditor(t, node)
    await until(
      fresh.device,
      shows(fresh, () => String(first?.text)),
    )
    assert.deepEqual(
      [...String(first?.text)].toSorted((a, b) => a.localeCompare(b)).join(''),
      '0123'.replace(/./g, (digit) => digit.repeat(10)),
    )
  })
})
