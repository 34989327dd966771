// Owns a reverse proxy for a test: Debian's nginx, Caddy or Apache, with the very lines that the README
// has for it, compressing what it can, and otherwise as Debian has it.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { eventually } from './eventually.ts'

export type ProxyName = 'nginx' | 'caddy' | 'apache'

export interface Proxy {
  /** https://127.0.0.1 and its port. */
  url: string
  port: number
}

interface Site {
  folder: string
  port: number
  /** The README's lines, on these ports and with this certificate. */
  lines: string
}

interface Kind {
  program: string
  package: string
  /** In the foreground, as one process where it can be. */
  arguments(file: string, folder: string): string[]
  /** What stands around the README's lines. */
  config(site: Site): string
}

const KINDS: Record<ProxyName, Kind> = {
  nginx: {
    program: '/usr/sbin/nginx',
    package: 'nginx',
    arguments: (file, folder) => ['-c', file, '-p', folder, '-e', 'stderr'],
    config: ({ folder, lines }) => `
daemon off;
master_process off;
pid ${folder}/pid;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join('\n  ')}
  gzip on;
  gzip_types *;
  gzip_min_length 1;
  ${lines}
}`,
  },
  caddy: {
    program: '/usr/bin/caddy',
    package: 'caddy',
    arguments: (file) => ['run', '--adapter', 'caddyfile', '--config', file],
    config: ({ folder, lines }) => `{
	admin off
	auto_https disable_redirects
	grace_period 1s
	storage file_system ${folder}
}
${lines.replace(
  '{\n',
  `{
	tls ${folder}/fullchain.pem ${folder}/privkey.pem
	encode {
		gzip
		minimum_length 1
	}
`,
)}`,
  },
  apache: {
    program: '/usr/sbin/apache2',
    package: 'apache2-bin',
    arguments: (file, folder) => ['-X', '-d', folder, '-f', file],
    config: ({ folder, port, lines }) => `
${modulesFor(lines)
  .map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`)
  .join('\n')}
User www-data
Group www-data
DefaultRuntimeDir ${folder}
PidFile ${folder}/pid
ErrorLog ${folder}/log
ServerName localhost
Listen 127.0.0.1:${port}
Timeout 300
RequestReadTimeout header=20-40,minrate=500 body=10,minrate=500
SetOutputFilter DEFLATE
${lines}`,
  },
}

export const PROXY_NAMES = Object.keys(KINDS) as ProxyName[]

// Those of Debian's that have a say in what is proxied.
const APACHE_MODULES = ['mpm_event', 'authz_core', 'filter', 'deflate', 'reqtimeout', 'setenvif']
const NEEDED_BY: Record<string, string[]> = { proxy_http: ['proxy'], ssl: ['socache_shmcb'] }

/** The modules that Debian has on, and those that the README says to add. */
function modulesFor(lines: string): string[] {
  const [, named = ''] = /^# a2enmod (.*)$/m.exec(lines) ?? []
  const added = named.split(' ').flatMap((name) => [...(NEEDED_BY[name] ?? []), name])
  return [...APACHE_MODULES, ...added]
}

const missing = PROXY_NAMES.filter((name) => !existsSync(KINDS[name].program))
if (process.env['CI'] !== undefined) missing.length = 0
for (const name of missing) {
  process.stderr.write(`NOT TESTED, the server behind ${name}: ${KINDS[name].package} is missing\n`)
}

/** For `describe`: where the proxy is missing, its tests are left out; in CI they fail. */
export const skipOf = (name: ProxyName): string | false =>
  missing.includes(name) && `${name} is not installed: apt-get install ${KINDS[name].package}`

/** Starts a proxy before a node; the test's end stops it. */
export function startProxy(
  t: Pick<TestContext, 'after'>,
  name: ProxyName,
  { host = '127.0.0.1', port }: { host?: string; port: number },
): Promise<Proxy> {
  return launch(t, name, readmeLines(name).replaceAll('127.0.0.1:8080', `${host}:${port}`))
}

/** Starts nginx before several nodes, with what the README has for them. */
export function startBalancer(t: Pick<TestContext, 'after'>, ports: number[]): Promise<Proxy> {
  const block = readmeLines('nginx nodes')
  const [upstream = ''] = /^upstream [^]*?^}\n/m.exec(block) ?? []
  const [server = ''] = /^ +server .*$/m.exec(upstream) ?? []
  const passing = block.match(/^ +proxy_.*$/gm) ?? []
  const servers = ports.map((port) => server.replace(/[\d.]+:8080/, `127.0.0.1:${port}`))
  const nodes = upstream.replace(/(?:^ +server .*\n)+/m, `${servers.join('\n')}\n`)
  const site = readmeLines('nginx').replace(/^ +proxy_pass .*$/m, passing.join('\n'))
  return launch(t, 'nginx', `${nodes}${site}`)
}

async function launch(
  t: Pick<TestContext, 'after'>,
  name: ProxyName,
  readme: string,
): Promise<Proxy> {
  const { program, arguments: argumentsOf, config } = KINDS[name]
  const folder = mkdtempSync(join(tmpdir(), 'sync-node-'))
  const port = await freePort()
  const { certificate, key } = loopbackCertificate()
  writeFileSync(join(folder, 'fullchain.pem'), certificate)
  writeFileSync(join(folder, 'privkey.pem'), key)
  const lines = readme
    .replaceAll('/etc/letsencrypt/live/sync.example.org', folder)
    .replace(/^sync\.example\.org \{/, `https://127.0.0.1:${port} {`)
    .replace(/\*:443|(?<=listen )443/, `127.0.0.1:${port}`)
  const file = join(folder, 'config')
  writeFileSync(file, config({ folder, port, lines }))
  const log = join(folder, 'log')
  const output = openSync(log, 'a')
  const child = spawn(program, argumentsOf(file, folder), {
    env: { PATH: process.env['PATH'], HOME: folder },
    stdio: ['ignore', output, output],
  })
  closeSync(output)
  t.after(async () => {
    await stop(child)
    if (process.env['TEST_LOG'] !== undefined) process.stderr.write(readFileSync(log))
    rmSync(folder, { recursive: true, force: true })
  })
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error(`${name} ended: ${readFileSync(log, 'utf8')}`)
    return isListening(port)
  }, true)
  return { url: `https://127.0.0.1:${port}`, port }
}

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')

function readmeLines(name: ProxyName | 'nginx nodes'): string {
  const lines = new RegExp(`^\`\`\`${name}\n([^]*?)^\`\`\``, 'm').exec(readme)?.[1]
  if (lines === undefined) throw new Error(`README.md has no lines for ${name}`)
  return lines
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

let made: { certificate: string; key: string } | undefined

/** A certificate for 127.0.0.1, made once, which this process trusts. */
function loopbackCertificate(): { certificate: string; key: string } {
  if (made !== undefined) return made
  const pem = execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-subj',
      '/CN=127.0.0.1',
      '-addext',
      'subjectAltName=IP:127.0.0.1',
      '-days',
      '2',
      '-keyout',
      '-',
      '-out',
      '-',
    ],
    { encoding: 'utf8', stdio: 'pipe' },
  )
  const at = pem.indexOf('-----BEGIN CERTIFICATE-----')
  made = { key: pem.slice(0, at), certificate: pem.slice(at) }
  setDefaultCACertificates([...getCACertificates(), made.certificate])
  return made
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}

const KILL_MS = 5000

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  const kill = setTimeout(() => child.kill('SIGKILL'), KILL_MS)
  child.kill('SIGTERM')
  await ended
  clearTimeout(kill)
}
