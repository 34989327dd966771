#!/bin/sh
# Owns installing Sync Node on Linux from the files of a release, upgrading it in place, and removing it.
#
#   install.sh [--no-start] URL    from an address, or from a folder that has the files
#   install.sh --uninstall         removes all but the data and the settings
#
# The URL may also stand in SYNC_NODE_URL, or in the first line below. DESTDIR=/some/root installs into a
# tree that is not the running system: no user is made there, and nothing is started.
set -eu

url=${SYNC_NODE_URL:-}
glibc_floor=2.28

destination=${DESTDIR:-}
executable=$destination/usr/local/bin/sync-node
manual=$destination/usr/local/share/man/man1/sync-node.1
unit=$destination/etc/systemd/system/sync-node.service
settings=$destination/etc/default/sync-node
data=$destination/var/lib/sync-node

say() {
  echo "install.sh: $*" >&2
}

die() {
  say "$@"
  exit 1
}

main() {
  task=install
  start=yes
  for word in "$@"; do
    case $word in
      --uninstall) task=uninstall ;;
      --no-start) start=no ;;
      -*) die "there is no option $word; it takes [--no-start] URL, or --uninstall" ;;
      *) url=${word%/} ;;
    esac
  done
  if [ -z "$destination" ] && [ "$(id -u)" != 0 ]; then die 'run it as root, as with sudo'; fi
  if [ -z "$destination" ] && [ -x /usr/bin/sync-node ]; then
    die 'Sync Node is installed as a package here: apt upgrades and removes it'
  fi
  umask 022
  $task
}

install() {
  [ -n "$url" ] || die 'say where the release is: install.sh https://…, or a folder'
  check_system
  work=$(mktemp -d)
  trap 'rm -rf "$work" "$executable.new"' EXIT
  # A signal alone would end it without that.
  trap 'exit 1' INT TERM HUP
  fetch SHA256SUMS
  archive=$(sed -n "s/^[0-9a-f]*  \(sync-node-[0-9A-Za-z.~-]*-linux-$architecture\.tar\.xz\)$/\1/p" "$work/SHA256SUMS")
  [ -n "$archive" ] || die "$url has no release for $architecture"
  say "downloading $archive"
  fetch "$archive"
  # Nothing of it is unpacked, let alone run, before this.
  (cd "$work" && grep "  $archive\$" SHA256SUMS | sha256sum --check --status) ||
    die "$archive is not what SHA256SUMS says: nothing was installed"
  tar -xJf "$work/$archive" -C "$work" || die "$archive cannot be unpacked: is xz (xz-utils) installed?"
  place "$work/${archive%.tar.xz}"
  run_service
  say "Sync Node $version is installed: settings in $settings, data in $data"
}

check_system() {
  case $(uname -s)-$(uname -m) in
    Linux-x86_64 | Linux-amd64) architecture=x64 ;;
    Linux-aarch64 | Linux-arm64) architecture=arm64 ;;
    *) die "Sync Node runs on Linux on x64 or arm64, not on $(uname -s) on $(uname -m)" ;;
  esac
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || glibc=none
  glibc=${glibc#glibc }
  awk -v found="$glibc" -v floor="$glibc_floor" 'BEGIN {
    split(found, f, "."); split(floor, l, ".")
    exit !(f[1] + 0 > l[1] + 0 || (f[1] == l[1] && f[2] + 0 >= l[2] + 0))
  }' || die "Sync Node needs glibc $glibc_floor or later; this system has $glibc"
  # Not every administrator has sbin in PATH.
  libraries=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null) || return 0
  case $libraries in
    *libatomic.so.1*) ;;
    *) die 'Sync Node needs libatomic.so.1: install libatomic1 (Debian, Ubuntu) or libatomic (Fedora) first' ;;
  esac
}

fetch() {
  case $url in
    http://* | https://*)
      if command -v curl >/dev/null; then
        curl -fsSL -o "$work/$1" "$url/$1"
      elif command -v wget >/dev/null; then
        wget -q -O "$work/$1" "$url/$1"
      else
        die 'it needs curl or wget'
      fi
      ;;
    *) cp "$url/$1" "$work/$1" ;;
  esac || die "$url/$1 cannot be had"
}

place() {
  is_new=yes
  if [ -e "$unit" ]; then is_new=no; fi
  mkdir -p "${executable%/*}" "${manual%/*}" "${unit%/*}" "${settings%/*}" "${data%/*}"
  # Beside the old one: a rename replaces it as a whole, also while it runs.
  cp "$1/sync-node" "$executable.new"
  chmod 0755 "$executable.new"
  version=$("$executable.new" version) || die 'the executable does not run here: nothing was installed'
  mv -f "$executable.new" "$executable"
  cp "$1/sync-node.1" "$manual"
  sed 's|/usr/bin/sync-node|/usr/local/bin/sync-node|' "$1/sync-node.service" >"$unit"
  if [ ! -e "$settings" ]; then
    cp "$1/sync-node.default" "$settings"
    # People put passwords there.
    chmod 0640 "$settings"
  fi
  if [ -z "$destination" ] && ! getent passwd sync-node >/dev/null; then
    useradd --system --user-group --home-dir /nonexistent --no-create-home \
      --shell "$(command -v nologin || echo /bin/false)" sync-node
  fi
  if [ ! -e "$data" ]; then
    mkdir -m 0700 "$data"
    if [ -z "$destination" ]; then chown sync-node:sync-node "$data"; fi
  fi
}

run_service() {
  if [ -n "$destination" ]; then return; fi
  if [ ! -d /run/systemd/system ]; then
    say 'there is no systemd here: sync-node serve, run by root, starts the server as the user sync-node'
    return
  fi
  systemctl daemon-reload
  if [ "$start" = no ]; then return; fi
  if [ "$is_new" = yes ]; then
    systemctl enable --quiet sync-node.service
  elif ! systemctl is-enabled --quiet sync-node.service && ! systemctl is-active --quiet sync-node.service; then
    # Somebody has switched it off since.
    return
  fi
  systemctl restart sync-node.service || die 'it is installed and does not start: journalctl -u sync-node says why'
}

uninstall() {
  if [ -z "$destination" ] && [ -d /run/systemd/system ] && [ -e "$unit" ]; then
    systemctl disable --now --quiet sync-node.service
  fi
  rm -f "$executable" "$manual" "$unit"
  if [ -z "$destination" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
  say "Sync Node is removed. The data in $data stays, its owner sync-node, and $settings."
  say "To delete them: rm -r $data $settings && userdel sync-node"
}

# At the end: half a script that was piped into a shell does nothing.
main "$@"
