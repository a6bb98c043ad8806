# shellcheck shell=bash
# What the scripts share: printing, packages, ports and processes. To be sourced.

program=${0##*/}

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# die [EXIT_CODE] MESSAGE
die() {
  local code=1
  if [[ $1 =~ ^[0-9]+$ ]]; then code=$1 && shift; fi
  say "$*"
  exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }

now_ms() { date +%s%3N; }

# seconds_since MS: "12.3 s"
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

can_install() {
  have apt-get && { [ "$(id -u)" = 0 ] || have sudo; }
}

# install_packages PACKAGE…: Debian packages, those that are missing. The system services that some of them start
# and enable (etcd, RabbitMQ, nginx, HAProxy, Mosquitto, NATS) are stopped again: the scripts run servers of their own.
install_packages() {
  local missing=() package unit log code=0
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! can_install; then
    say "cannot install what is missing: this is not Debian, or there is neither root nor sudo"
    say "please install by hand what Debian calls: ${missing[*]}"
    return 1
  fi
  say "installing ${missing[*]} (apt-get)"
  log=$(mktemp)
  {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
  } </dev/null >"$log" 2>&1 || code=$?
  if [ "$code" != 0 ]; then
    tail -20 "$log" >&2
    say "apt-get failed (its last lines stand above)"
  fi
  rm -f "$log"
  for package in "${missing[@]}"; do
    case $package in
      etcd-server) unit=etcd ;;
      rabbitmq-server | nginx | haproxy | mosquitto | nats-server) unit=$package ;;
      *) continue ;;
    esac
    if [ -d /run/systemd/system ]; then
      as_root systemctl disable --now "$unit" >/dev/null 2>&1 || say "could not stop the system service $unit"
    elif [ -x "/etc/init.d/$unit" ]; then
      as_root "/etc/init.d/$unit" stop </dev/null >/dev/null 2>&1 || true # it is not running in most containers
    fi
  done
  return "$code"
}

# port_taken PORT: something listens on it, on any address
port_taken() {
  local hex
  hex=$(printf ':%04X' "$1")
  awk -v port="$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }' \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# free_port: one below the range that the kernel gives to outgoing connections, so it stays free until it is used
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    port_taken "$port" || { echo "$port" && return; }
  done
  die "found no free port between 20000 and 32000"
}

# A process is named by its id, its start time and the boot, so that a number used again is never taken for ours.
# identity PID
identity() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # shellcheck disable=SC2086 # the fields after the name in parentheses are to be split
  set -- "$1" ${stat##*) }
  [ "$2" != Z ] || return 1
  echo "$1 ${21} $(cat /proc/sys/kernel/random/boot_id)"
}

# our_pid FILE: the id in a pid file, if that process is still the one that was started
our_pid() {
  local line
  line=$(cat "$1" 2>/dev/null) && [ -n "$line" ] || return 1
  [ "$(identity "${line%% *}")" = "$line" ] && echo "${line%% *}"
}

# launch PID_FILE LOG_FILE COMMAND…: in a session of its own, so that it outlives the script and ends as a group
launch() {
  local pid_file=$1 log_file=$2 pid
  shift 2
  setsid "$@" </dev/null >>"$log_file" 2>&1 &
  pid=$!
  # setsid execs in place when its process leads no group, which holds for a child of a script
  identity "$pid" >"$pid_file" || { rm -f "$pid_file" && return 1; }
}

# stop PID_FILE SECONDS: SIGTERM, then SIGKILL to its group; only if the process is ours
stop() {
  local pid deadline
  pid=$(our_pid "$1") || { rm -f "$1" && return 0; }
  kill -TERM "$pid" 2>/dev/null || true
  deadline=$(($(now_ms) + $2 * 1000))
  while our_pid "$1" >/dev/null; do
    if [ "$(now_ms)" -gt "$deadline" ]; then
      say "process $pid did not end in $2 s: killing it"
      kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
      deadline=$(($(now_ms) + 5000))
    fi
    sleep 0.05
  done
  rm -f "$1"
}

# protoc_works: it is there, and so are the files that its imports need (Debian has them in libprotobuf-dev)
protoc_works() {
  have protoc && printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";' |
    protoc --proto_path=/ --proto_path=/usr/include --descriptor_set_out=/dev/null /dev/stdin >/dev/null 2>&1
}

# need_build_tools: what `cargo build` of this repository needs: cargo, a C compiler (ring) and protoc (etcd-client)
need_build_tools() {
  local wanted found missing=()
  [ -x "$(command -v cargo)" ] || PATH=$HOME/.cargo/bin:$PATH
  have cargo || die 69 "there is no cargo: install a Rust toolchain first (rustup.rs)"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  found=$(cargo --version | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" != "$wanted" ]; then
    die 69 "cargo $found is too old: goms needs $wanted or newer (\`rustup update stable\`)"
  fi
  have cc || missing+=(gcc libc6-dev)
  protoc_works || missing+=(protobuf-compiler libprotobuf-dev)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" || exit 69
}

# build_go_once NAME PACKAGE: builds a program from the pinned sources of this folder (go.mod) into the cache, once, and prints
# where it is
build_go_once() {
  local name=$1 package=$2 cache home began
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/goms
  home=$cache/$name-$(cat go.mod go.sum | sha256sum | cut -c1-12)
  mkdir -p "$cache"
  [ -x "$(command -v go)" ] || PATH=$PATH:/usr/local/go/bin
  (
    flock 9 # two checkouts that start at once: one builds, the other waits
    [ ! -x "$home/$name" ] || exit 0
    have go || install_packages golang-go
    began=$(now_ms)
    say "$name: building (once, some minutes)"
    mkdir -p "$home"
    GOFLAGS=-mod=readonly GOTOOLCHAIN=local go build -trimpath -ldflags='-s -w' -o "$home/$name.new" "$package" >&2
    mv "$home/$name.new" "$home/$name"
    say "$name: built in $(seconds_since "$began")"
  ) 9>"$cache/$name.lock" </dev/null
  echo "$home/$name"
}
