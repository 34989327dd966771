// Proves that what README.md says of installing, of the service and of removing it works as it stands, on
// a machine of its own; and that what goes wrong there says what README.md explains.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runInMachine, skipWithoutMachine } from './helpers/machine.ts'
import { block, readme } from './helpers/readme.ts'
import { version } from './helpers/release.ts'

/** A place for the release, sudo, and an apt that asks nothing and makes no index of manual pages, which takes long. */
const BEFORE = `
cat >/tmp/place.js <<'END'
const { createReadStream } = require('node:fs')
require('node:http').createServer(({ url }, answer) => {
  createReadStream('/release' + url).on('error', () => answer.destroy()).pipe(answer)
}).listen(8000, '127.0.0.1')
END
/checkout/node_modules/node-linux-${process.arch}/bin/node /tmp/place.js &
printf '#!/bin/sh\\nexec "$@"\\n' >/usr/local/bin/sudo
chmod +x /usr/local/bin/sudo
rm -f /var/lib/man-db/auto-update
echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/yes
export DEBIAN_FRONTEND=noninteractive url=http://localhost:8000 version=${version}
call() { curl -sS --fail-with-body --retry 50 --retry-all-errors --retry-delay 1 "$@"; echo; }
fresh() { mkdir "/root/$1" && cd "/root/$1"; }
call $url/SHA256SUMS >/dev/null
`

/** Commands of the shell: what the service says from now on goes with `log`, and `drop` adds lines to its unit. */
const TROUBLE = `
log() { journalctl --sync; journalctl --unit sync-node --output cat --no-pager --since "$since"; }
drop() {
  mkdir -p /run/systemd/system/sync-node.service.d
  printf "[Service]\\n$1\\n" >/run/systemd/system/sync-node.service.d/trouble.conf
  systemctl daemon-reload
}
trouble() {
  systemctl stop sync-node
  since=@$(date +%s)
  drop "$1"
  systemctl start sync-node && exit 1
  log
}
`

/** The same commands for the machine that this is. */
const forThis = (commands: string): string =>
  commands.replaceAll('linux-x64', `linux-${process.arch}`)

describe('What README.md says of installing', { skip: skipWithoutMachine }, () => {
  it('works as it stands, from install.sh to the last file', async (t) => {
    const output = await runInMachine(
      t,
      `${BEFORE}
      fresh script
      ${block('install')}
      echo installed: $(systemctl is-active sync-node)
      ${block('settings')}
      call http://localhost:8080/info

      echo smtp://user:password@localhost:587 >smtp-url
      without_mail() { journalctl --sync; journalctl --unit sync-node | grep -c 'SMTP_URL is not set'; }
      before=$(without_mail)
      ${block('credential')}
      echo starts without mail: $(($(without_mail) - $before))
      stat --format '%a %U %n' /etc/sync-node/smtp-url

      sync-node account add ana >/dev/null
      sync-node backup sync-node.tar.zst
      sync-node account add ben >/dev/null
      ${block('restore-service')}
      ${block('folder')}
      sync-node account list | grep -c ^~ | xargs echo accounts
      sync-node healthcheck

      ${block('install')}
      echo upgraded: $(systemctl is-active sync-node)
      ${block('uninstall')}
      [ ! -e /usr/local/bin/sync-node ]
      [ -s /srv/sync-node/sync-node.db ]
      rm -r /srv/sync-node /var/lib/sync-node.before
      ${block('delete')}
      find /etc /srv /usr/lib /usr/local /var/lib -name '*sync-node*' | grep -v /node_modules/ | xargs echo left:`,
    )
    assert.match(output, /^installed: active$/m)
    assert.match(output, /^REGISTRATION +invite /m)
    assert.match(output, /"registration":"invite"/)
    assert.match(output, /^starts without mail: 0$/m)
    assert.match(output, /^600 root \/etc\/sync-node\/smtp-url$/m)
    assert.match(output, /^accounts 1$/m)
    assert.match(output, /^\{"database":"ok","disk":"ok"\}$/m)
    assert.match(output, /^upgraded: active$/m)
    assert.match(output, /^left:$/m)
  })

  it('works as it stands, for one file, by hand and as a package; and trouble says what it explains', async (t) => {
    const output = await runInMachine(
      t,
      `${BEFORE}${TROUBLE}
      fresh binary
      { ${forThis(block('binary'))} } &
      call http://localhost:8080/info >/dev/null
      ls data | xargs echo made:
      kill $(pgrep -f ./sync-node-)
      wait $!

      fresh hand
      tar -xJf /release/sync-node-$version-linux-${process.arch}.tar.xz --strip-components=1
      ${block('unit')}
      echo by hand: $(systemctl is-active sync-node)
      ps -o user:32= -p $(systemctl show --property=MainPID --value sync-node)
      ${block('uninstall')}
      ${block('delete')}

      fresh package
      ${block('deb')}
      echo package: $(systemctl is-active sync-node)

      trouble 'ExecStart=\\nExecStart=/usr/local/bin/sync-node serve'
      trouble 'User=nobody-of-this-name'
      trouble 'ReadWritePaths=/srv/nowhere'
      trouble 'LoadCredential=SMTP_URL:/etc/nowhere'
      trouble 'Environment=PORT=80'
      install -d -o sync-node /srv/elsewhere
      trouble 'Environment=STATIC_ROOT=/srv/elsewhere'
      trouble 'Environment=STATIC_ROOT=/srv/elsewhere/new'
      library=$(ldconfig -p | sed -n 's/.*libatomic\\.so\\.1 .*=> //p')
      mv "$(readlink -f "$library")" /root/
      sync-node version || true

      systemctl stop sync-node
      ${block('purge')}
      [ ! -e /usr/bin/sync-node ]
      ${block('delete')}
      id sync-node || true`,
    )
    assert.match(output, /^made: blobs .* sync-node\.db /m)
    assert.match(output, /^by hand: active\nsync-node$/m)
    assert.match(output, /^package: active$/m)
    for (const [status] of readme.matchAll(/status=\d+\/[A-Z]+/g)) {
      assert.ok(output.includes(status), status)
    }
    assert.match(output, /listen EACCES: permission denied :::80$/m)
    assert.match(output, /^sync-node: STATIC_ROOT cannot be used: \/srv\/elsewhere: EROFS: /m)
    assert.match(output, /^sync-node: STATIC_ROOT cannot be used: \/srv\/elsewhere\/new: EROFS: /m)
    assert.match(output, /libatomic\.so\.1: cannot open shared object file: No such file/)
    assert.match(output, /no such user\n$/)
  })
})
