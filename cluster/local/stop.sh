#!/usr/bin/env bash
# Stops the local cluster, and nothing else: stop.sh [--delete] [FOLDER]
# Its data stays, unless --delete is given.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

delete=
if [[ ${1-} == --delete ]]; then
  delete=yes
  shift
fi
folder="$(realpath "${1:-local-cluster}")"
[[ -f $folder/env.sh && -d $folder/pids ]] || fail "no cluster in $folder"

mapfile -t names < <(services)
end "${names[@]}"
remove_hosts
echo "stopped: ${names[*]:-nothing was running}"
if [[ -n $delete ]]; then
  temporary="$(readlink "$folder/ray" || true)"
  if [[ $temporary == /tmp/metaray-local-* ]]; then rm -rf "$temporary"; fi
  rm -rf "$folder"
  echo "deleted: $folder"
fi
