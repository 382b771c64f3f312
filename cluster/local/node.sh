#!/usr/bin/env bash
# Adds a worker node to the local cluster: node.sh FOLDER NAME [OPTIONS OF ray start]
# A node is one CPU of the cluster, or what the options say. To kill it: kill -KILL -- "-$(cat FOLDER/pids/NAME)"
set -euo pipefail
umask 077
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

(($# >= 2)) || fail "usage: $0 FOLDER NAME [OPTIONS OF ray start]"
folder="$(realpath "$1")"
name="$2"
shift 2
[[ $name =~ ^[a-z0-9-]{1,16}$ && ! $name =~ ^(head|mlflow|s3)$ ]] || fail "a node's name is a few of a-z, 0-9 and -, not '$name'"
[[ -f $folder/env.sh ]] || fail "no cluster in $folder"
alive head || fail "the head of $folder does not run: start.sh"
! alive "$name" || fail "$name runs already"

# Tasks get the credentials from their node's environment; they are in no job's description.
# shellcheck disable=SC1091
source "$folder/env.sh"
export METARAY_CACHE="$folder/cache/$name" # a disk of its own, as on a machine of its own
unset RAY_ADDRESS RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER # with the latter, Ray refuses to start a second node

add_host "$name"
head="$(address head)"
# In small letters Ray would replace it, as 127.0.0.1, by an address that others reach.
if ! has_hosts; then head=LOCALHOST; fi
trap 'end "$name"' EXIT
# A folder of its own: nodes would delete each other's unpacked working directories in a common one.
# shellcheck disable=SC2046  # one word or none
launch "$name" "${ray[@]}" start --block --address="$head:${METARAY_CLUSTER##*:}" --node-name="$name" \
  $(node_address "$name") \
  --num-cpus=1 --num-gpus=0 --object-store-memory=200000000 --temp-dir="$(realpath "$folder/ray")/$name" \
  --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 --disable-usage-stats "$@"
await "$name" says "$name" "Ray runtime started"
trap - EXIT
echo "$name: process $(<"$folder/pids/$name")"
