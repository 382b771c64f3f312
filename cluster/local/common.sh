# Sourced by start.sh, node.sh and stop.sh: where things are, and how a service is started, found alive and ended.
# shellcheck shell=bash

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${METARAY_PYTHON:-$here/../../.venv/bin/python}"
ray=("$python" -m ray.scripts.scripts)

fail() {
  echo "$*" >&2
  exit 1
}

# started PID: when it was, in clock ticks since boot. Ids of processes are used again, the two together are not.
started() {
  local stat
  stat="$(cat "/proc/$1/stat" 2>/dev/null)" || return 1
  read -ra stat <<<"${stat##*) }" # a name between the parentheses may hold spaces
  [[ ${stat[0]} != Z ]] && echo "${stat[19]}"
}

# alive NAME: does the service run?
alive() {
  local file="$folder/pids/$1"
  [[ -s $file && -s $file.started ]] && [[ "$(started "$(<"$file")")" == "$(<"$file.started")" ]]
}

# services: the names of all that were started, one a line.
services() {
  local file
  for file in "$folder"/pids/*.started; do
    if [[ -f $file ]]; then basename "$file" .started; fi
  done
}

# Where FOLDER/hosts is, each service has a host of its own: a network namespace with an address on a common bridge. The
# file's first line is the beginning of all addresses, and each other line names a service: line 2 has address .2.

# has_hosts: has it?
has_hosts() {
  [[ -s $folder/hosts ]]
}

# address NAME: of the service's host.
address() {
  if has_hosts; then
    echo "$(head -n 1 "$folder/hosts").$(grep -nx -- "$1" "$folder/hosts" | cut -d: -f1)"
  else
    echo 127.0.0.1
  fi
}

# node_address NAME: an option of `ray start` that says it; on this machine Ray finds it out itself.
node_address() {
  if has_hosts; then echo "--node-ip-address=$(address "$1")"; fi
}

# make_hosts PREFIX: none as yet, and the bridge, by which this machine reaches them.
make_hosts() {
  local octet='(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})'
  [[ $1 =~ ^10\.$octet\.$octet$ ]] || fail "METARAY_HOSTS begins the hosts' addresses, such as 10.77.0, not '$1'"
  [[ -z $(ip route show root "$1.0/24") ]] || fail "this machine reaches other hosts at $1.0/24: choose another METARAY_HOSTS"
  ip link add "mr-$1" type bridge || fail "METARAY_HOSTS needs iproute2 and root, and no other cluster at $1"
  echo "$1" >"$folder/hosts"
  ip address add "$1.1/24" dev "mr-$1"
  ip link set "mr-$1" up
}

# add_host NAME: with its name in the file, unless it is there or no service has one.
add_host() {
  local at
  has_hosts || return 0
  grep -qx -- "$1" "$folder/hosts" || echo "$1" >>"$folder/hosts"
  at="$(address "$1")"
  if ip -n "metaray-$at" route show dev eth0 2>/dev/null | grep -q .; then return; fi # it is there, and connected
  ip link delete "mr$at" 2>/dev/null || true
  ip netns delete "metaray-$at" 2>/dev/null || true
  ip netns add "metaray-$at"
  ip link add "mr$at" type veth peer name eth0 netns "metaray-$at"
  ip link set "mr$at" master "mr-${at%.*}" up
  ip -n "metaray-$at" address add "$at/24" dev eth0
  ip -n "metaray-$at" link set eth0 up
  ip -n "metaray-$at" link set lo up
}

# remove_hosts: all of them, and the bridge; also where a restart of the machine has removed them.
remove_hosts() {
  local name at
  has_hosts || return 0
  while read -r name; do
    at="$(address "$name")"
    ip link delete "mr$at" 2>/dev/null || true # at once: a namespace goes when the last process has left it
    ip netns delete "metaray-$at" 2>/dev/null || true
  done < <(tail -n +2 "$folder/hosts")
  ip link delete "mr-$(head -n 1 "$folder/hosts")" 2>/dev/null || true
  rm -f "$folder/hosts"
}

# launch NAME COMMAND...: in a session, and so a process group, of its own, which outlives this shell.
launch() {
  local name="$1" pid where=()
  shift
  if has_hosts; then where=(ip netns exec "metaray-$(address "$name")"); fi
  (cd "$folder" && exec setsid "${where[@]}" "$@") >"$folder/logs/$name.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$folder/pids/$name"
  started "$pid" >"$folder/pids/$name.started" || true
}

# await NAME COMMAND...: until the command succeeds; fails when the service ends, or after two minutes.
await() {
  local name="$1" deadline=$((SECONDS + 120))
  shift
  until "$@" 2>/dev/null; do
    if ! alive "$name" || ((SECONDS > deadline)); then
      tail -n 20 "$folder/logs/$name.log" >&2
      fail "$name did not start: $folder/logs/$name.log"
    fi
    sleep 0.2
  done
}

# answers ADDRESS PORT: does anything listen there?
answers() {
  (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

# says NAME TEXT: is it in the service's log?
says() {
  grep -q "$2" "$folder/logs/$1.log"
}

# family PID...: these processes and all below them, each as PID:STARTED.
family() {
  { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v roots="$*" '
    { pid = $1; sub(/^.*\) /, ""); split($0, field, " "); parent[pid] = field[2]; since[pid] = field[20] }
    END {
      count = split(roots, queue, " ")
      for (i = 1; i <= count; i++) {
        if (queue[i] in parent) print queue[i] ":" since[queue[i]]
        for (pid in parent) if (parent[pid] == queue[i]) queue[++count] = pid
      }
    }'
}

# remaining PID:STARTED...: the ids of those that still run.
remaining() {
  local one
  for one in "$@"; do
    if [[ "$(started "${one%:*}")" == "${one#*:}" ]]; then echo "${one%:*}"; fi
  done
}

# end NAME...: asks the services to end, and after 20 s makes them.
end() {
  local name processes roots=() left deadline=$((SECONDS + 20))
  for name in "$@"; do
    if alive "$name"; then roots+=("$(<"$folder/pids/$name")"); fi
  done
  if ((${#roots[@]})); then
    # Ray starts some of its processes in groups of their own, hence the list.
    mapfile -t processes < <(family "${roots[@]}")
    for name in "${roots[@]}"; do kill -TERM -- "-$name" 2>/dev/null || true; done
    left=some
    while [[ -n $left ]] && ((SECONDS < deadline)); do
      sleep 0.2
      left="$(remaining "${processes[@]}")"
    done
    # shellcheck disable=SC2086  # a list of numbers
    if [[ -n $left ]]; then kill -KILL $left 2>/dev/null || true; fi
  fi
  for name in "$@"; do rm -f "$folder/pids/$name" "$folder/pids/$name.started"; done
}
