import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { OLDER_PACKAGE, runInMachine, skipWithoutMachine } from './helpers/machine.ts'

const PASSWORD = 'correct horse battery'

// Triggers are the machine's own business, and slow.
const FUNCTIONS = `
install() { timeout 60 dpkg --no-triggers --install "$1"; }
main_pid() { systemctl show --property=MainPID --value sync-node; }
owners() { find /var/lib/sync-node -printf '%u:%g\\n' | sort -u | xargs echo owners; }
has() { grep -qF -e "$2" "$1" || { echo "$1 has no $2"; exit 1; }; }
call() { curl -sS --fail-with-body --retry 50 --retry-all-errors --retry-delay 1 "$@"; echo; }
login() { call "http://localhost:$1/auth" -d '{"id":"ana","password":"${PASSWORD}"}' >/dev/null; echo logged in; }
new=$(ls /release/sync-node_*_$(dpkg --print-architecture).deb)
`

describe('The Debian package', { skip: skipWithoutMachine }, () => {
  it('starts a confined server, and an upgrade keeps data and settings', async (t) => {
    const output = await runInMachine(
      t,
      `${FUNCTIONS}${OLDER_PACKAGE}
      install /tmp/old.deb
      systemctl is-active sync-node
      call http://localhost:8080/account -d '{"id":"ana","password":"${PASSWORD}"}' >/dev/null
      grep -E '^(Uid|NoNewPrivs|CapBnd|Seccomp):' /proc/$(main_pid)/status
      stat --format '%a %U:%G %n' /var/lib/sync-node
      ps -o user= -p $(main_pid)

      echo PORT=8081 >>/etc/default/sync-node
      systemctl restart sync-node
      login 8081
      before=$(main_pid)
      install "$new"
      [ "$before" != "$(main_pid)" ]
      has /etc/default/sync-node PORT=8081
      login 8081

      sync-node reset ana 2>&1 | sed 's/^[A-Za-z0-9_-]*$/TOKEN/'
      owners
      sync-node config | grep -E '^(PORT|STATIC_ROOT)'
      before=$(main_pid)
      kill -KILL "$before"
      login 8081
      [ "$before" != "$(main_pid)" ]

      systemctl disable --now --quiet sync-node
      install "$new"
      systemctl is-enabled sync-node || true`,
    )
    assert.match(output, /^active$/m)
    assert.match(output, /^CapBnd:\t0+$/m)
    assert.match(output, /^NoNewPrivs:\t1$/m)
    assert.match(output, /^Seccomp:\t2$/m)
    assert.match(output, /^700 sync-node:sync-node \/var\/lib\/sync-node$/m)
    assert.match(output, /^sync-no\S*$/m)
    assert.equal(output.match(/^logged in$/gm)?.length, 3)
    assert.match(output, /^Data: \/var\/lib\/sync-node\nTOKEN$/m)
    assert.match(output, /^owners sync-node:sync-node$/m)
    assert.match(output, /^PORT +8081 /m)
    assert.match(output, /^disabled$/m)
  })

  it('leaves the data and its owner when it is purged, and nothing where there is no data', async (t) => {
    const output = await runInMachine(
      t,
      `${FUNCTIONS}
      install "$new"
      dpkg --no-triggers --remove sync-node
      [ ! -e /usr/bin/sync-node ]
      [ -z "$(pgrep -u sync-node)" ]
      [ -e /etc/default/sync-node ]
      dpkg --no-triggers --purge sync-node
      [ ! -e /etc/default/sync-node ]
      [ -s /var/lib/sync-node/sync-node.db ]
      owners

      install "$new"
      systemctl is-active sync-node
      systemctl stop sync-node
      rm -r /var/lib/sync-node/*
      dpkg --no-triggers --purge sync-node
      [ ! -e /var/lib/sync-node ]
      id sync-node || echo nobody
      find /etc /usr/lib /var/lib/systemd -name '*sync-node*' -not -path '*/node_modules/*'`,
    )
    assert.match(output, /data in \/var\/lib\/sync-node stays, and the user/)
    assert.match(output, /^owners sync-node:sync-node$/m)
    assert.match(output, /^active$/m)
    assert.match(output, /no such user\nnobody\n$/)
  })
})
