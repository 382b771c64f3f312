#!/usr/bin/env bash
# Starts a cluster of several nodes on this machine, on loopback: start.sh [FOLDER]
# As root, METARAY_HOSTS=10.77.0 makes a host of each, a network namespace with an address of its own.
#
# A Ray head and worker nodes with token authentication, an MLflow server with basic authentication, an S3 server.
# Logs, data, ids of processes and secrets are in FOLDER, ./local-cluster by default. See README.md beside this file.
set -euo pipefail
umask 077 # all that is made here, by these services too, is for this user alone
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

gcs_port="${METARAY_GCS_PORT:-6379}"
dashboard_port="${METARAY_DASHBOARD_PORT:-8265}"
client_port="${METARAY_CLIENT_PORT:-10001}"
mlflow_port="${METARAY_MLFLOW_PORT:-5000}"
s3_port="${METARAY_S3_PORT:-5050}"
workers="${METARAY_NODES:-2}"

mkdir -p "${1:-local-cluster}"
folder="$(realpath "${1:-local-cluster}")"
mkdir -p "$folder/logs" "$folder/pids"
chmod 700 "$folder"

for name in $(services); do
  if alive "$name"; then
    if alive head && alive mlflow && alive s3; then
      echo "runs already in $folder: source $folder/env.sh"
      exit 0
    fi
    fail "$folder runs in part ($name does): stop.sh first"
  fi
  rm -f "$folder/pids/$name" "$folder/pids/$name.started"
done
[[ -x $python ]] || fail "no Python at $python: run make, or set METARAY_PYTHON"
"$python" -c 'import importlib.util as find, sys; sys.exit(not all(map(find.find_spec, ("ray", "mlflow", "flask_wtf", "moto"))))' ||
  fail "$python lacks packages: $python -m pip install -e '.[cluster]'"
for port in "$gcs_port" "$dashboard_port" "$client_port" "$mlflow_port" "$s3_port"; do
  [[ -n ${METARAY_HOSTS-} ]] || ! answers 127.0.0.1 "$port" || fail "something listens on port $port: choose others, METARAY_MLFLOW_PORT=5001 for instance (README.md)"
done

# Started all or none.
trap 'mapfile -t names < <(services); end "${names[@]}"; remove_hosts' EXIT
remove_hosts # of a start that was killed
if [[ -n ${METARAY_HOSTS-} ]]; then make_hosts "$METARAY_HOSTS"; fi
for name in head mlflow s3; do add_host "$name"; done
head="$(address head)" mlflow="$(address mlflow)" s3="$(address s3)"

# secret NAME: a file of 32 random bytes in hexadecimal; the same one when the cluster is started again.
secret() {
  [[ -s $folder/$1 ]] || head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$folder/$1"
  chmod 600 "$folder/$1"
}
for name in auth_token mlflow_admin_password mlflow_password mlflow_session_key s3_access_key s3_secret_key; do secret "$name"; done

cat >"$folder/mlflow_auth.ini" <<INI
[mlflow]
default_permission = READ
database_uri = sqlite:///$folder/mlflow_auth.db
admin_username = admin
admin_password = $(<"$folder/mlflow_admin_password")
INI

cat >"$folder/env.sh" <<ENV
# Made by cluster/local/start.sh. Whoever can read this file can run programs as $(id -un).
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH='$folder/auth_token'
export RAY_API_SERVER_ADDRESS=http://$head:$dashboard_port
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # leave 127.0.0.1 as it is: Ray would replace it by an address that others reach
export RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # a node that is stopped goes at once, not after 30 s
export METARAY_CLUSTER=$head:$gcs_port # for --address; not RAY_ADDRESS, or each program would join
export MLFLOW_TRACKING_URI=http://$mlflow:$mlflow_port
export MLFLOW_TRACKING_USERNAME=metaray
export MLFLOW_TRACKING_PASSWORD=$(<"$folder/mlflow_password")
export AWS_ACCESS_KEY_ID=$(<"$folder/s3_access_key")
export AWS_SECRET_ACCESS_KEY=$(<"$folder/s3_secret_key")
export AWS_DEFAULT_REGION=us-east-1
export AWS_ENDPOINT_URL=http://$s3:$s3_port
export AWS_EC2_METADATA_DISABLED=true
ENV
if has_hosts; then # a proxy for the wide world does not know them
  echo "export no_proxy='${no_proxy:+$no_proxy,}$head,$mlflow,$s3' NO_PROXY='${no_proxy:+$no_proxy,}$head,$mlflow,$s3'" >>"$folder/env.sh"
fi
chmod 600 "$folder/mlflow_auth.ini" "$folder/env.sh"

# Sockets need short paths, so that Ray's files are elsewhere.
[[ -d $folder/ray ]] || ln -sfn "$(mktemp -d /tmp/metaray-local-XXXXXX)" "$folder/ray"

launch s3 "$python" -m moto.server -H "$s3" -p "$s3_port"
(
  export MLFLOW_AUTH_CONFIG_PATH="$folder/mlflow_auth.ini" MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
  MLFLOW_FLASK_SERVER_SECRET_KEY="$(<"$folder/mlflow_session_key")" && export MLFLOW_FLASK_SERVER_SECRET_KEY
  unset MLFLOW_TRACKING_URI
  launch mlflow "$python" -m mlflow server --app-name basic-auth --host "$mlflow" --port "$mlflow_port" --workers 1 \
    --backend-store-uri "sqlite:///$folder/mlflow.db" --serve-artifacts --artifacts-destination "$folder/artifacts"
)
(
  # shellcheck disable=SC1091
  source "$folder/env.sh" # credentials for what a job runs on the head: its driver
  export METARAY_CACHE="$folder/cache/head"
  unset RAY_ADDRESS
  # shellcheck disable=SC2046  # one word or none
  # No CPUs: the work goes to the worker nodes, of which each can be killed. A job's driver needs none.
  launch head "${ray[@]}" start --head --block --node-name=head --port="$gcs_port" $(node_address head) \
    --include-dashboard=true --dashboard-host="$head" --dashboard-port="$dashboard_port" \
    --ray-client-server-port="$client_port" --num-cpus=0 --num-gpus=0 --object-store-memory=200000000 \
    --temp-dir="$(realpath "$folder/ray")/head" --min-worker-port=0 --max-worker-port=0 \
    --dashboard-agent-listen-port=0 --disable-usage-stats
)
await head says head "Ray runtime started"
for ((i = 1; i <= workers; i++)); do "$here/node.sh" "$folder" "worker-$i"; done

# request METHOD URL, with the JSON in $REQUEST_BODY as MLflow's administrator.
request() {
  PASSWORD="$(<"$folder/mlflow_admin_password")" "$python" - "$@" <<'PYTHON'
import base64, os, sys, urllib.error, urllib.request

method, url = sys.argv[1:]
body = os.environ.get("REQUEST_BODY")
request = urllib.request.Request(url, method=method, data=body.encode() if body else None)
if body:
    login = base64.b64encode(f"admin:{os.environ['PASSWORD']}".encode()).decode()
    request.headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
except urllib.error.HTTPError as error:
    if "RESOURCE_ALREADY_EXISTS" not in (text := error.read().decode()):
        sys.exit(f"{method} {url}: {error.code} {text}")
PYTHON
}
await s3 answers "$s3" "$s3_port"
for bucket in data runs; do request PUT "http://$s3:$s3_port/$bucket"; done
await mlflow answers "$mlflow" "$mlflow_port"
REQUEST_BODY="{\"username\": \"metaray\", \"password\": \"$(<"$folder/mlflow_password")\"}" \
  request POST "http://$mlflow:$mlflow_port/api/2.0/mlflow/users/create"

trap - EXIT
cat <<TEXT
Ray:       $head:$gcs_port, dashboard and jobs http://$head:$dashboard_port
MLflow:    http://$mlflow:$mlflow_port
S3:        http://$s3:$s3_port, buckets data and runs
to use it: source $folder/env.sh
TEXT
