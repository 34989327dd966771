// Owns what to write into a reverse proxy's configuration for each fault that is found behind it.
import type { Answer } from './way.ts'

const PROXIES = ['nginx', 'Caddy', 'Apache'] as const
export type Proxy = (typeof PROXIES)[number]

export type Fault = keyof typeof LINES

const SIGNS: [RegExp, Proxy][] = [
  [/nginx|openresty/i, 'nginx'],
  [/caddy/i, 'Caddy'],
  [/apache|httpd/i, 'Apache'],
]

/** Which proxy answers, as far as it says so. */
export function proxyOf(answer: Pick<Answer, 'header'>): Proxy | null {
  const said = `${answer.header('server')} ${answer.header('via')}`
  return SIGNS.find(([sign]) => sign.test(said))?.[1] ?? null
}

/** Those of the proxy that is there, or of all three where that is not known. */
export const linesFor = (fault: Fault, proxy: Proxy | null): string[] =>
  (proxy === null ? PROXIES : [proxy]).flatMap((one) =>
    LINES[fault][one].map((line) => `${one}: ${line}`),
  )

// Comments stand for what has to go, where a default already does what is needed.
const LINES = {
  body: {
    nginx: ['client_max_body_size 0;', 'proxy_request_buffering off;', 'proxy_http_version 1.1;'],
    Caddy: ['# take out request_body { max_size … }: by itself it has no limit'],
    Apache: ['LimitRequestBody 0', 'RequestReadTimeout body=0'],
  },
  compression: {
    nginx: ['gzip off;'],
    Caddy: ['# take out encode: or let it match other paths only'],
    Apache: ['SetEnv no-gzip 1', 'SetEnv no-brotli 1'],
  },
  headers: {
    nginx: [
      'proxy_pass_request_headers on;',
      '# take out proxy_set_header and proxy_hide_header of the headers named above',
    ],
    Caddy: ['# take out header_up and header_down of the headers named above'],
    Apache: ['# take out RequestHeader and Header of the headers named above'],
  },
  authorization: {
    nginx: ['proxy_set_header Authorization $http_authorization;', 'auth_basic off;'],
    Caddy: ['# take out basic_auth, and header_up -Authorization'],
    Apache: ['# take out AuthType and Require, and RequestHeader unset Authorization'],
  },
  meta: {
    nginx: [
      'large_client_header_buffers 4 32k;',
      'proxy_buffer_size 32k;',
      'proxy_buffers 8 32k;',
      'proxy_busy_buffers_size 64k;',
    ],
    Caddy: ['# in the first block:', 'servers {', '  max_header_size 64KB', '}'],
    Apache: [
      'LimitRequestFieldSize 32768',
      'ProxyPass / http://127.0.0.1:8080/ nocanon responsefieldsize=32768',
    ],
  },
  paths: {
    nginx: ['# nothing behind the port, not even a slash:', 'proxy_pass http://127.0.0.1:8080;'],
    Caddy: ['# take out rewrite, uri and handle_path', 'reverse_proxy 127.0.0.1:8080'],
    Apache: ['AllowEncodedSlashes NoDecode', 'ProxyPass / http://127.0.0.1:8080/ nocanon'],
  },
  buffering: {
    nginx: ['proxy_buffering off;', 'proxy_read_timeout 90s;', 'gzip off;'],
    Caddy: ['reverse_proxy 127.0.0.1:8080 {', '  flush_interval -1', '}'],
    Apache: [
      'ProxyPass / http://127.0.0.1:8080/ nocanon flushpackets=on timeout=90',
      'SetEnv no-gzip 1',
    ],
  },
  cors: {
    nginx: ['# take out add_header Access-Control-…: the server says it all'],
    Caddy: ['# take out header Access-Control-…: the server says it all'],
    Apache: ['# take out Header set Access-Control-…: the server says it all'],
  },
  methods: {
    nginx: ['# take out limit_except, and dav_methods'],
    Caddy: ['# take out matchers of method'],
    Apache: ['# take out Limit, LimitExcept and AllowMethods'],
  },
  ranges: {
    nginx: ['proxy_cache off;', 'proxy_set_header Range $http_range;'],
    Caddy: ['# take out header_up -Range, and any cache'],
    Apache: ['CacheDisable /', '# take out RequestHeader unset Range, and MaxRanges'],
  },
  cache: {
    nginx: ['proxy_cache off;'],
    Caddy: ['# take out any cache'],
    Apache: ['CacheDisable /'],
  },
  forwarded: {
    nginx: ['proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;'],
    Caddy: ['# take out header_up X-Forwarded-For: by itself it sends the right one'],
    Apache: ['ProxyAddHeaders On', '# take out RequestHeader of X-Forwarded-For'],
  },
  certificate: {
    nginx: [
      'ssl_certificate /etc/letsencrypt/live/NAME/fullchain.pem;',
      'ssl_certificate_key /etc/letsencrypt/live/NAME/privkey.pem;',
    ],
    Caddy: [
      '# brings one itself, for a site that is named:',
      'NAME {',
      '  reverse_proxy 127.0.0.1:8080',
      '}',
    ],
    Apache: [
      'SSLCertificateFile /etc/letsencrypt/live/NAME/fullchain.pem',
      'SSLCertificateKeyFile /etc/letsencrypt/live/NAME/privkey.pem',
    ],
  },
  https: {
    nginx: ['# in the server of port 80:', 'return 308 https://$host$request_uri;'],
    Caddy: ['# name the site without http://: it redirects by itself'],
    Apache: ['# in the VirtualHost of port 80:', 'Redirect permanent / https://NAME/'],
  },
} satisfies Record<string, Record<Proxy, string[]>>
