// Owns OpenStack Swift with its S3 API, as Debian has it: a store of another make, which checks
// signatures, on one disk of a temporary folder.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openBucket, type Bucket } from '../../src/blobs/bucket.ts'
import { openCalls } from '../../src/blobs/calls.ts'
import { readConfig } from '../../src/config.ts'
import { eventually } from './eventually.ts'

const KINDS = ['account', 'container', 'object'] as const
// Debian's own, which has its packages.
const PYTHON = '/usr/bin/python3'
const isHere = ['proxy', ...KINDS].every((name) => existsSync(`/usr/bin/swift-${name}-server`))

export const skip = isHere || process.env['CI'] !== undefined ? false : 'Swift is not installed'

// Its own programs read /etc/swift/swift.conf, and no other.
const SERVE = `
import sys
from swift.common import utils
folder, kind = sys.argv[1:]
utils.SWIFT_CONF_FILE = folder + '/swift.conf'
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(folder + '/' + kind + '.conf', kind + '-server', verbose=True))
`

const RINGS = `
import sys
from swift.common.ring import RingBuilder
folder, *rings = sys.argv[1:]
for ring in rings:
    kind, port = ring.split(':')
    builder = RingBuilder(4, 1, 0)
    builder.add_dev({'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': int(port), 'device': 'd1', 'weight': 1})
    builder.rebalance()
    builder.get_ring().save(folder + '/' + kind + '.ring.gz')
`

export interface Swift {
  /** For BLOB_URL, with its credentials, of a bucket of its own. */
  environment: Record<string, string>
  bucket: Bucket
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer().listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

function configure(folder: string, proxyPort: number, ports: number[]): void {
  mkdirSync(join(folder, 'disks/d1'), { recursive: true })
  const common = `swift_dir = ${folder}\nbind_ip = 127.0.0.1\nuser = ${userInfo().username}\nworkers = 0\nlog_address = ${folder}/none`
  writeFileSync(join(folder, 'swift.conf'), '[swift-hash]\nswift_hash_path_suffix = test\n')
  KINDS.forEach((kind, i) => {
    const port = ports[i]
    writeFileSync(
      join(folder, `${kind}.conf`),
      `[DEFAULT]\n${common}\nbind_port = ${port}\ndevices = ${folder}/disks\nmount_check = false\n` +
        `[pipeline:main]\npipeline = ${kind}-server\n[app:${kind}-server]\nuse = egg:swift#${kind}\n`,
    )
  })
  execFileSync(PYTHON, ['-c', RINGS, folder, ...KINDS.map((kind, i) => `${kind}:${ports[i]}`)])
  const parts = 'catch_errors gatekeeper cache listing_formats s3api tempauth copy slo'
  const filters = parts
    .split(' ')
    .map((name) => `[filter:${name}]\nuse = egg:swift#${FILTERS[name] ?? name}\n`)
  writeFileSync(
    join(folder, 'proxy.conf'),
    `[DEFAULT]\n${common}\nbind_port = ${proxyPort}\n` +
      `[pipeline:main]\npipeline = ${parts} proxy-server\n` +
      `[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n${PATIENCE}${filters.join('')}`
        .replace('#s3api\n', '#s3api\nauth_pipeline_check = false\n')
        .replace('#tempauth\n', '#tempauth\nuser_test_tester = testing .admin\n')
        .replace('#memcache\n', '#memcache\nmemcache_servers = 127.0.0.1:9\n'),
  )
}

const FILTERS: Record<string, string> = { cache: 'memcache' }

// Else the proxy asks a server that was not up at first ten times, and then not for a minute.
const PATIENCE = 'error_suppression_limit = 1000000\n'

/** Starts it for a test file; what it keeps goes when that ends. */
export async function startSwift(t: Pick<TestContext, 'after'>): Promise<Swift> {
  const folder = mkdtempSync(join(tmpdir(), 'swift-'))
  const [port = 0, ...ports] = await freePorts(4)
  configure(folder, port, ports)
  const log = join(folder, 'log')
  const children = ['proxy', ...KINDS].map((kind): ChildProcess => {
    const output = openSync(log, 'a')
    const child = spawn(PYTHON, ['-c', SERVE, folder, kind], { stdio: ['ignore', output, output] })
    closeSync(output)
    return child
  })
  const ended = children.map((child) => new Promise((resolve) => child.once('close', resolve)))
  t.after(async () => {
    for (const child of children) child.kill('SIGKILL')
    await Promise.all(ended)
    rmSync(folder, { recursive: true, force: true })
  })
  const environment = {
    BLOB_URL: `s3://values/of/ana?endpoint=http://127.0.0.1:${port}`,
    AWS_ACCESS_KEY_ID: 'test:tester',
    AWS_SECRET_ACCESS_KEY: 'testing',
  }
  const { blobUrl } = readConfig(environment)
  if (blobUrl === null) throw new Error('no bucket')
  const calls = openCalls(blobUrl, () => undefined)
  t.after(() => calls.close())
  const make = async () => {
    const ended = children.some((child) => child.exitCode !== null)
    if (ended) throw new Error(`Swift does not start: ${readFileSync(log, 'utf8')}`)
    return (await calls.call({ method: 'PUT' }).catch(() => null))?.status
  }
  await eventually(make, 200)
  const bucket = openBucket(blobUrl, () => undefined)
  t.after(() => bucket.close())
  return { environment, bucket }
}
