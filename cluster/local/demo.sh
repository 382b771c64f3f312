#!/usr/bin/env bash
# Shows the whole of it on one machine, and fails where something does not hold: demo.sh [FOLDER]
#
# Submission to two nodes, a store fetched once a node, adaptation elsewhere, a node lost and replaced, who is refused,
# where secrets are not. Takes minutes; FOLDER keeps the logs and data. STORE names a class store to train on, by
# default that of the embedded glyphs.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

if (($#)); then
  [[ ! -e $1 ]] || fail "$1 is there already"
  METARAY_DEMO_FOLDER="$(realpath "$1")" && export METARAY_DEMO_FOLDER
fi
if [[ -n ${STORE-} ]]; then STORE="$(realpath "$STORE")" && export STORE; fi
cd "$here/../.."
"$python" -c 'import importlib.util as find, sys; sys.exit(not all(map(find.find_spec, ("flask_wtf", "moto"))))' ||
  fail "$python lacks packages: $python -m pip install -e '.[cluster]'" # the tests would be skipped
exec "$python" -m pytest -m slow -s -x -p no:cacheprovider tests/cluster/test_end_to_end.py
