#!/usr/bin/env bash
# On a bare GPU machine, without a network: bash gpu-pack/run.sh OUT [--ray] [options of jobs.benchmarks.gpu]
# Puts record.json, tables.md and log.txt into OUT. Python is the one that holds torch, or what PYTHON names; all
# together takes at most TOTAL_S seconds, by default 570.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: bash run.sh OUT [--ray] [options of jobs.benchmarks.gpu]" >&2; exit 2; }
pack=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && out=$(cd "$1" && pwd) && shift
parts=(site code)
if [ "${1:-}" = --ray ]; then parts+=(ray); shift; fi
if [ -e "$pack/omniglot.tar.xz" ]; then parts+=(omniglot); fi
python=${PYTHON:-python3}

# Not beside the pack, which may be replaced at any time.
work=$(mktemp -d "${TMPDIR:-/tmp}/metaray-gpu-XXXXXX")
trap 'rm -rf "$work"' EXIT
unpacking=()
for part in "${parts[@]}"; do
    "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="data")' \
        "$pack/$part"*.tar.xz "$work" &
    unpacking+=($!)
done
for process in "${unpacking[@]}"; do wait "$process"; done
echo "unpacked ${parts[*]} in $SECONDS s"

export PYTHONPATH="$work/code:$work/site:$work/ray" PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
METARAY_CHECKOUT=$(cat "$pack/checkout.json")
export METARAY_CHECKOUT
options=(--out "$out" "$@")
if [ -e "$work/omniglot.arrow" ]; then options+=(--omniglot "$work/omniglot.arrow"); fi
cd "$work/code"
status=0
"$python" -m jobs.benchmarks.gpu "${options[@]}" 2>&1 | tee "$out/log.txt" || status=$?
if [ -d "$work/ray" ]; then
    left=$((${TOTAL_S:-570} - SECONDS))
    "$python" -m jobs.benchmarks.gpu "${options[@]}" --add --only ray --budget-s $((left < 200 ? left : 200)) 2>&1 | tee -a "$out/log.txt" || status=$?
fi
exit $status
