// Owns the year of a self-hoster, played as root on a throwaway machine: the package of a release, its
// service, and the devices of two people, who lose nothing by whatever comes.
import assert from 'node:assert/strict'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import type { Finding } from '../../src/doctor/finding.ts'
import { done, expectExact, refused } from '../helpers/backups.ts'
import { eventually } from '../helpers/eventually.ts'
import { expectProblem, expectStatus } from '../helpers/expect.ts'
import { changes } from '../helpers/fixtures.ts'
import { MIXED, busyWriters, expectCut, type Load } from '../helpers/load.ts'
import { SCHEMA, takeBack } from '../helpers/newer.ts'
import { PASSWORD, type TestNode } from '../helpers/node.ts'
import { post, remoteClient, signUp } from '../helpers/remote.ts'
import { converge, openDevice, reads, synced, until, type Device } from '../helpers/replicas.ts'
import * as service from './service.ts'

const [OLD = '', NEW = ''] = process.env['PACKAGES']?.split(' ') ?? []
const DATA = '/var/lib/sync-node'
const ELSEWHERE = '/srv/sync-node'
const BACKUP = '/root/monday.tar.zst'
const PHOTO = 'a photo '.repeat(30_000)

interface People {
  laptop: Device
  phone: Device
  /** Of somebody else, with whom a note is shared. */
  tablet: Device
  /** The store key of the shared note. */
  shared: string
  devices: Device[]
}

it('A year of a self-hoster costs nobody anything', async (t) => {
  await installs()
  const people = await sync(t)
  const app = await openApp()
  await powerGoesWhileItWrites(app, people)
  const cut = await backsUpWhileItWrites(app)
  const position = await goesOnAfterTheBackup(app, people)
  await diskRunsFull(app, people)
  await valueIsDamaged(people)
  await movesByTheBackup(people)
  await expectCut(app.client(), MIXED, cut)
  await expectProblem(await app.client().request(`/changes?since=${position}`), 'FEED01', 410)
  await upgrades(people)
  await goesBack(people)
  await ends()
})

/** On a disk of its own, where the package finds the folder made. */
async function installs(): Promise<void> {
  await service.root('mkdir', '-p', DATA)
  await service.root('mount', '-t', 'tmpfs', '-o', 'size=400m', 'tmpfs', DATA)
  await service.installPackage(OLD)
  assert.deepEqual(await service.processOf(), {
    command: ['/usr/bin/sync-node', 'serve'],
    user: 'sync-node',
  })
  assert.equal(statSync(DATA).mode & 0o777, 0o700)
  done(await service.command(['healthcheck']))
}

async function sync(t: TestContext): Promise<People> {
  const at = { url: service.ADDRESS } as TestNode
  const laptop = await openDevice(t, at, { id: 'ana' })
  const phone = await openDevice(t, at, { id: 'ana' })
  const tablet = await openDevice(t, at, { id: 'ben' })
  await laptop.replica.put('note', 'buy milk')
  await phone.replica.put('photo', PHOTO)
  assert.deepEqual(await converge(laptop, phone), { note: 'buy milk', photo: PHOTO })
  await laptop.client.store('note').share('ben', 'WRITE')
  const shared = await keyOf(laptop, 'note')
  await until(tablet, reads(tablet, shared, 'buy milk'))
  return { laptop, phone, tablet, shared, devices: [laptop, phone, tablet] }
}

const keyOf = async ({ client }: Device, name: string): Promise<string> =>
  (await client.store(name).get())?.key as string

interface App {
  client(): ReturnType<typeof remoteClient>
  write(): Load
}

/** An account that has a busy program behind it. */
async function openApp(): Promise<App> {
  const opened = await signUp(service.ADDRESS, { id: 'app' })
  const client = () => remoteClient(service.ADDRESS, opened)
  const most = Number.POSITIVE_INFINITY
  return { client, write: () => busyWriters(client, { kinds: MIXED, most }) }
}

/** Adds a line to the shared note on each device, all at once; they agree on all of them. */
async function everybodyWrites(people: People, when: string): Promise<void> {
  const { laptop, phone, tablet, shared } = people
  const added = (device: Device, id: string, line: string) =>
    device.replica.update(id, (now) => `${new TextDecoder().decode(now ?? undefined)}\n${line}`)
  await Promise.all([
    added(laptop, 'note', `laptop, ${when}`),
    added(phone, 'note', `phone, ${when}`),
    added(tablet, shared, `tablet, ${when}`),
  ])
  await expectLines(people, ...['laptop', 'phone', 'tablet'].map((who) => `${who}, ${when}`))
}

async function expectLines(people: People, ...lines: string[]): Promise<void> {
  const { laptop, phone, tablet, shared, devices } = people
  for (const device of devices) await synced(device)
  await until(devices, async () => {
    const notes = [await laptop.read('note'), await phone.read('note'), await tablet.read(shared)]
    return notes.every((note) => note === notes[0] && lines.every((line) => note?.includes(line)))
  })
}

/** Rather than wait until the devices try again by themselves, which they do less and less often. */
async function openApps({ devices }: People): Promise<void> {
  for (const { replica } of devices) {
    await replica.stop()
    replica.start()
  }
}

async function powerGoesWhileItWrites(app: App, people: People): Promise<void> {
  const load = app.write()
  await load.reached(200)
  await service.powerOff()
  const steps = load.steps()
  await load.stop()
  await expectCut(app.client(), MIXED, { least: steps, most: steps })
  await everybodyWrites(people, 'after the power came back')
  for (const { key } of await app.client().list()) await app.client().delete(key, '*')
}

async function backsUpWhileItWrites(app: App): Promise<{ least: number[]; most: number[] }> {
  const load = app.write()
  await load.reached(100)
  const least = load.steps()
  done(await service.command(['backup', BACKUP]))
  const most = load.steps()
  await load.stop()
  assert.notDeepEqual(most, least, 'it was written meanwhile')
  assert.deepEqual(load.failures, [])
  assert.match(done(await service.command(['verify', BACKUP])), /^accounts +3$/m)
  return { least, most }
}

/** Answers where the app is in its feed. */
async function goesOnAfterTheBackup(app: App, people: People): Promise<string> {
  await everybodyWrites(people, 'after the backup')
  await app.client().save('new', 'after the backup')
  return (await changes(app.client())).cursor
}

async function diskRunsFull(app: App, people: People): Promise<void> {
  await eventually(() => existsSync(join(DATA, 'reserve')), true)
  const pid = await service.mainPid()
  const free = await service.fill(DATA)
  let count = 0
  const put = () => app.client().put(`when full ${count++}`, 'is refused')
  await eventually(async () => (await put()).status, 507)
  await expectProblem(await put(), 'SIZE03', 507)
  await people.laptop.replica.put('when full', 'is kept here')
  assert.match(refused(await service.command(['healthcheck'])), /full/)
  assert.equal(await (await app.client().get('new')).text(), 'after the backup')
  await expectStatus(await post(service.ADDRESS, '/auth', { id: 'app', password: PASSWORD }), 200)
  assert.equal(people.laptop.replica.status().pending, 1)
  free()
  await until(people.phone, reads(people.phone, 'when full', 'is kept here'))
  await everybodyWrites(people, 'when there was room again')
  assert.equal(await service.mainPid(), pid)
}

async function valueIsDamaged({ laptop, phone }: People): Promise<void> {
  const blobs = join(DATA, 'blobs')
  const isPhoto = (name: string) => readFileSync(join(blobs, name), 'utf8') === PHOTO
  const name = readdirSync(blobs).find(isPhoto) as string
  const key = await keyOf(laptop, 'photo')
  service.corrupt(join(blobs, name))
  const found = await service.command(['doctor', '--deep'])
  assert.equal(found.code, 1)
  assert.match(found.stdout, new RegExp(`${key}: its bytes are not those [^\\n]*${name}`))
  assert.equal((await service.command(['backup', '/root/damaged'])).code, 1)
  // A device that has it writes it again.
  await laptop.replica.put('photo', `${PHOTO}again`)
  await until(phone, reads(phone, 'photo', `${PHOTO}again`))
  await expectWell()
}

// The machine's are in memory: fast, and gone with its power.
const OF_DISKS = ['file system', 'syncs']

async function expectWell(): Promise<void> {
  const { stdout } = await service.command(['doctor', '--deep', '--json'])
  const found = JSON.parse(stdout) as Finding[]
  const wrong = found.filter(({ check, level }) => level !== 'ok' && !OF_DISKS.includes(check))
  assert.deepEqual(wrong, [])
}

/** To another folder, on another disk; what came after the backup comes back from the devices. */
async function movesByTheBackup(people: People): Promise<void> {
  const { laptop, phone } = people
  phone.net.cut()
  await phone.replica.put('offline', 'written when there was no server')
  await service.stop()
  await service.root('sh', '-c', `install -d -o sync-node -g sync-node -m 700 ${ELSEWHERE}`)
  done(await service.command(['restore', BACKUP], { STATIC_ROOT: ELSEWHERE }))
  await service.configure(ELSEWHERE)
  await service.start()
  phone.net.mend()
  await openApps(people)
  const all = await converge(laptop, phone)
  assert.deepEqual(Object.keys(all).sort(), ['note', 'offline', 'photo', 'when full'])
  assert.ok(all['photo']?.includes(`${PHOTO}again`))
  await expectLines(people, 'laptop, after the backup', 'phone, when there was room again')
  await everybodyWrites(people, 'after the move')
}

/** The data is as the version before this one left it, whose schema was another. */
async function upgrades(people: People): Promise<void> {
  await service.stop()
  takeBack(ELSEWHERE)
  await service.installPackage(NEW)
  assert.ok(existsSync(join(ELSEWHERE, `before-schema-${SCHEMA}.db`)))
  await openApps(people)
  await everybodyWrites(people, 'after the upgrade')
  await service.powerOff()
  await everybodyWrites(people, 'after the power came back once more')
}

async function goesBack(people: People): Promise<void> {
  await service.stop()
  const { code, stderr } = await service.command(['rollback', '--yes'])
  assert.equal(code, 0, stderr)
  assert.match(stderr, /1 stores were written/)
  assert.ok(!existsSync(join(ELSEWHERE, `before-schema-${SCHEMA}.db`)))
  await service.installPackage(OLD)
  await service.start()
  await openApps(people)
  await expectLines(
    people,
    'laptop, after the upgrade',
    'tablet, after the power came back once more',
  )
  await everybodyWrites(people, 'after the rollback')
}

async function ends(): Promise<void> {
  await expectWell()
  await service.stop()
  expectExact(ELSEWHERE)
}
