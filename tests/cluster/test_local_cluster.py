"""The scripts in cluster/local: who gets in and who does not, what a node's death changes, what a stop leaves."""

import base64
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.patience import PATIENT_S, wait_until

SCRIPTS = Path(__file__).parents[2] / "cluster/local"
PORTS = ("GCS", "DASHBOARD", "CLIENT", "MLFLOW", "S3")
WRONG = "0" * 64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("moto", "flask_wtf"))), reason="needs pip install -e '.[cluster]'"
    ),
]


class Cluster:
    """What cluster/local/start.sh starts, on free ports.

    Args:
        folder: of the cluster.
        hosts: beginning of the addresses of hosts of their own, such as 10.77.0; None has all on loopback.
    """

    def __init__(self, folder: Path, hosts: str | None = None) -> None:
        self.folder, self.hosts = folder, hosts
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
            for free in sockets:
                free.bind(("127.0.0.1", 0))
            self.ports = {name: int(free.getsockname()[1]) for name, free in zip(PORTS, sockets, strict=True)}
        self.outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.outside["METARAY_PYTHON"] = sys.executable
        self.outside["METARAY_HOSTS"] = hosts or ""
        self.outside |= {f"METARAY_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.inside: dict[str, str] = {}  # the environment of someone who sourced env.sh

    def script(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts."""
        command = [str(SCRIPTS / name), *map(str, arguments)]
        return subprocess.run(command, env=self.outside, capture_output=True, text=True, timeout=PATIENT_S)

    def start(self) -> None:
        """Start it, and learn what env.sh sets."""
        done = self.script("start.sh", self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        sourced = f"source '{self.folder}/env.sh' && env -0"
        text = subprocess.run(["bash", "-c", sourced], env=self.outside, capture_output=True, text=True, check=True)
        self.inside = dict(line.split("=", 1) for line in text.stdout.split("\0") if line)

    def url(self, service: str, path: str) -> str:
        """Of a path at a service."""
        variables = {"DASHBOARD": "RAY_API_SERVER_ADDRESS", "MLFLOW": "MLFLOW_TRACKING_URI", "S3": "AWS_ENDPOINT_URL"}
        return self.inside[variables[service]] + path

    def python(self, code: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Run a program as someone who sourced env.sh, with other values of some variables; None takes one away."""
        env = {name: value for name, value in (self.inside | changes).items() if value is not None}
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENT_S)

    def pid(self, service: str) -> int:
        """Of the process that start.sh or node.sh started."""
        return int((self.folder / "pids" / service).read_text())

    def processes(self) -> list[psutil.Process]:
        """All that run for it."""
        found = []
        for file in (self.folder / "pids").glob("*.started"):
            leader = psutil.Process(self.pid(file.stem))
            found += [leader, *leader.children(recursive=True)]
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster") / "local")
    found.start()
    yield found
    done = found.script("stop.sh", "--delete", found.folder)
    assert done.returncode == 0, done.stderr


def ask(url: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """The status and text of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=PATIENT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def login(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_dashboard_wants_the_token(cluster: Cluster) -> None:
    jobs = cluster.url("DASHBOARD", "/api/jobs/")
    token = (cluster.folder / "auth_token").read_text()
    assert ask(jobs, {}) == (401, "Unauthorized: Missing authentication token")
    assert ask(jobs, {"Authorization": f"Bearer {WRONG}"}) == (403, "Forbidden: Invalid authentication token")
    assert ask(jobs, {"Authorization": f"Bearer {token}"}) == (200, "[]")


def test_mlflow_wants_a_password(cluster: Cluster) -> None:
    experiments = cluster.url("MLFLOW", "/api/2.0/mlflow/experiments/search?max_results=1")
    password = cluster.inside["MLFLOW_TRACKING_PASSWORD"]
    for headers in ({}, login("metaray", WRONG), login("admin", "password1234"), login("nobody", password)):
        status, text = ask(experiments, headers)
        assert (status, text[:26]) == (401, "You are not authenticated.")
    assert ask(experiments, login("metaray", password))[0] == 200


def test_artifacts_go_through_mlflow(cluster: Cluster) -> None:
    done = cluster.python("""
import mlflow
mlflow.set_experiment("tried")
with mlflow.start_run():
    mlflow.log_text("hello", "greeting.txt")
    print(mlflow.get_artifact_uri())
mlflow.MlflowClient().create_registered_model("tried")
""")
    assert done.returncode == 0, done.stderr
    assert "mlflow-artifacts:/" in done.stdout
    assert [path.read_text() for path in (cluster.folder / "artifacts").rglob("greeting.txt")] == ["hello"]


LIST_NODES = """
import ray
ray.init(address={address!r}, logging_level="error")
print(sorted(node["NodeName"] for node in ray.nodes() if node["Alive"]), ray.cluster_resources()["CPU"])
"""


def test_the_cluster_wants_the_token(cluster: Cluster) -> None:
    code = LIST_NODES.format(address=cluster.inside["METARAY_CLUSTER"])
    done = cluster.python(code)
    assert done.stdout.strip() == "['head', 'worker-1', 'worker-2'] 2.0", done.stderr
    for changes in ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": WRONG}):
        done = cluster.python(code, **changes)
        assert done.returncode != 0
        assert "InvalidAuthToken: Authentication token is missing or incorrect" in done.stderr, done.stderr


def test_a_job_finds_the_nodes_and_the_credentials(cluster: Cluster) -> None:
    done = cluster.python("""
import sys
from ray.job_submission import JobSubmissionClient
program = '''
import os, ray
from pyarrow import fs
ray.init(log_to_driver=False)

@ray.remote(num_cpus=1)
def write(name):
    bucket, path = fs.FileSystem.from_uri(f"s3://runs/{name}")
    with bucket.open_output_stream(path) as file:
        file.write(os.environ["MLFLOW_TRACKING_USERNAME"].encode())
    return ray.get_runtime_context().get_node_id()

print(len(set(ray.get([write.options(scheduling_strategy="SPREAD").remote(f"{i}") for i in range(2)]))), "nodes")
'''
client = JobSubmissionClient()
import shlex, time
job = client.submit_job(entrypoint=shlex.join([sys.executable, "-c", program]))
while not (status := client.get_job_status(job)).is_terminal():
    time.sleep(0.2)
print(client.get_job_logs(job), status.value)
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("SUCCEEDED"), done.stdout
    assert "nodes" in done.stdout
    assert ask(cluster.url("S3", "/runs/1"), {}) == (200, "metaray")


def test_only_this_user_and_this_machine_can_read_or_connect(cluster: Cluster) -> None:
    assert [path for path in cluster.folder.rglob("*") if is_open_to_others(path)] == []
    assert (cluster.folder / "auth_token").stat().st_mode & 0o777 == 0o600
    addresses = {address for process in cluster.processes() for address in listens_at(process)}
    assert "127.0.0.1" in addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_killed_node_can_be_replaced(cluster: Cluster) -> None:
    code = LIST_NODES.format(address=cluster.inside["METARAY_CLUSTER"])
    os.killpg(cluster.pid("worker-2"), signal.SIGKILL)
    wait_until(lambda: cluster.python(code).stdout.strip() == "['head', 'worker-1'] 1.0")
    assert "worker-1 runs already" in cluster.script("node.sh", cluster.folder, "worker-1").stderr
    done = cluster.script("node.sh", cluster.folder, "worker-2", "--num-cpus=3")
    assert done.returncode == 0, done.stderr
    assert cluster.python(code).stdout.strip() == "['head', 'worker-1', 'worker-2'] 4.0"


def test_a_second_start_changes_nothing_and_a_stop_leaves_nothing(cluster: Cluster) -> None:
    before = {process.pid for process in cluster.processes()}
    done = cluster.script("start.sh", cluster.folder)
    assert (done.returncode, done.stdout[:12]) == (0, "runs already")
    processes = cluster.processes()
    assert {process.pid for process in processes} >= {cluster.pid("head")} and len(before) > 10
    done = cluster.script("stop.sh", cluster.folder)
    assert done.returncode == 0, done.stderr
    assert not any(map(is_running, processes))
    mentions = [process.info for process in psutil.process_iter(["pid", "cmdline"]) if names(process, cluster)]
    assert mentions == []
    for port in cluster.ports.values():
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0
    assert (cluster.folder / "mlflow.db").exists()


def is_open_to_others(path: Path) -> bool:
    """Whether another user may do anything with a file; one that is gone by now is open to nobody."""
    try:
        return not path.is_symlink() and bool(path.stat().st_mode & 0o77)
    except FileNotFoundError:
        return False


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return bool(process.is_running() and process.status() != "zombie")
    except psutil.NoSuchProcess:
        return False


def listens_at(process: psutil.Process) -> set[str]:
    """The addresses at which a process takes connections: none once it has ended."""
    try:
        found = process.net_connections("inet")
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return set()
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


def names(process: psutil.Process, cluster: Cluster) -> bool:
    """Does the process's command mention the cluster's folders?"""
    folders = (str(cluster.folder), str((cluster.folder / "ray").resolve()))
    return any(folder in word for word in process.info["cmdline"] or () for folder in folders)
