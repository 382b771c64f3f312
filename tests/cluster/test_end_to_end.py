"""All of it on the cluster of cluster/local, each test printing what it saw; `cluster/local/demo.sh` runs this file.

The tests are the steps of one story, in this order, on one cluster.
"""

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from metaray.algorithms import MAML
from metaray.data import ClassStore
from metaray.data.glyphs import glyph_store
from metaray.data.store_file import read_store
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.models import Conv4
from tests.cluster.test_local_cluster import LIST_NODES, WRONG, Cluster, ask, login
from tests.patience import PATIENT_S, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("moto", "flask_wtf"))), reason="needs pip install -e '.[cluster]'"
    ),
]

URI = "s3://data/store.arrow"
NAME = "end-to-end"
FIRST, AGAIN = "e2e", "e2e-node-lost"
TASKS, WAYS, QUERIES = 3, 5, 3


def say(what: str, seen: object) -> None:
    """Print a line for who follows with `pytest -s`, whose own dots then end lines."""
    print(f"\n  {what}: {seen}", end="", flush=True)


@dataclass(frozen=True)
class Ended:
    """How a submitted run ended.

    Attributes:
        code: exit code of `metaray submit --follow`.
        text: all that it printed.
        seconds: from the command to its end.
    """

    code: int
    text: str
    seconds: float

    @property
    def sha256(self) -> str:
        """Of the parameters."""
        return str(re.findall(r"parameters sha256: ([0-9a-f]{64})", self.text)[-1])


class Submission:
    """`metaray submit train ... --follow`, under way."""

    def __init__(self, cluster: Cluster, folder: Path, run: str) -> None:
        self._log = folder / f"{run}.log"
        self._began_s = time.monotonic()
        command = [sys.executable, "-m", "metaray", "submit", "train", "experiment.json", "--workers", "2", "--spread"]
        command += ["--samplers", "2", "--device", "cpu", "--storage", "s3://runs", "--run", run, "--follow"]
        command += ["--promote"]  # sixty steps need not surpass anything
        command += ["--insecure"] if cluster.hosts else []  # plain HTTP to another host
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=cluster.inside, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """See that it ends with its test."""
        self.process.kill()
        self.process.wait()

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def ended(self) -> Ended:
        try:
            code = self.process.wait(PATIENT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done within {PATIENT_S:g} s: {self.text[-3000:]}") from None
        ended = Ended(code, self.text, time.monotonic() - self._began_s)
        assert code == 0, ended.text[-3000:]
        return ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the demonstration; $METARAY_DEMO_FOLDER is kept."""
    found = Path(os.environ.get("METARAY_DEMO_FOLDER") or tmp_path_factory.mktemp("demo") / "demo")
    found.mkdir(mode=0o700)
    return found


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    found = Cluster(folder / "cluster", f"10.77.{secrets.randbelow(256)}" if can_make_hosts() else None)
    began_s = time.monotonic()
    found.start()
    where = (
        f"each on a host of its own, {found.hosts}.*"
        if found.hosts
        else "all on 127.0.0.1, as only root makes hosts: how workers find other hosts is not tried"
    )
    say("started", f"head, worker-1, worker-2, MLflow, S3 in {time.monotonic() - began_s:.0f} s; {where}")
    yield found
    folders = (str(found.folder), str((found.folder / "ray").resolve()))
    before = processes_of(folders)
    kept = () if "METARAY_DEMO_FOLDER" in os.environ else ("--delete",)
    done = found.script("stop.sh", *kept, found.folder)
    assert done.returncode == 0, done.stderr
    left = processes_of(folders)
    say("stopped", f"{len(before)} processes, {len(left)} left\n")
    assert before and left == []
    if found.hosts:
        for what in ("netns", "link"):
            shown = subprocess.run(["ip", what], capture_output=True, text=True, check=True).stdout
            assert not re.search(rf"(mr-?|metaray-){re.escape(found.hosts)}\b", shown)
        return
    for port in found.ports.values():
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0


def can_make_hosts() -> bool:
    """Whether we may make network namespaces here, and connect them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"mr{secrets.token_hex(3)}"
    tries = [("netns", "add", name), ("link", "add", name, "type", "bridge"),
             ("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name),
             ("netns", "exec", name, "true")]  # fmt: skip
    possible = all(subprocess.run(["ip", *words], capture_output=True).returncode == 0 for words in tries)
    for words in (("link", "delete", name), ("netns", "delete", name)):
        subprocess.run(["ip", *words], capture_output=True)
    return possible


def processes_of(folders: tuple[str, ...]) -> list[int]:
    """Ids of the processes whose command names one of the folders."""
    words = {process.pid: " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    return [pid for pid, command in words.items() if any(folder in command for folder in folders)]


@pytest.fixture(scope="module")
def store() -> tuple[Path, str]:
    """A class store on this machine, and the split scheme to use."""
    path = Path(os.environ.get("STORE") or glyph_store())
    return path, next(iter(read_store(path).meta.schemes))


@pytest.fixture(scope="module")
def project(cluster: Cluster, folder: Path, store: tuple[Path, str]) -> Path:
    """A folder with the experiment, whose source is in the bucket."""
    path, scheme = store
    done = cluster.python(f"from pyarrow import fs; fs.copy_files({str(path)!r}, {URI!r})")
    assert done.returncode == 0, done.stderr
    experiment = Experiment(
        name=NAME,
        source=ClassStore(path=URI, split=scheme),
        episodes=EpisodeSpec(ways=WAYS, shots=1, queries=QUERIES),
        model=Conv4(downsample="stride"),
        algorithm=MAML(inner_lr=0.4, inner_steps=1),
        meta_batch_size=8,
        num_steps=60,
        evaluation=Evaluation(every=0, val_episodes=20, test_episodes=40),
        checkpoint=Checkpoint(every=10),
    )
    found = folder / "project"
    found.mkdir()
    (found / "experiment.json").write_text(experiment.to_json())
    say("store", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, is now {URI}")
    return found


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, project: Path) -> Ended:
    with Submission(cluster, project, FIRST) as submission:
        return submission.ended()


def dashboard(cluster: Cluster, path: str) -> Any:
    """What the dashboard answers to who has the token."""
    token = (cluster.folder / "auth_token").read_text()
    status, text = ask(cluster.url("DASHBOARD", path), {"Authorization": f"Bearer {token}"})
    assert status == 200, text
    return json.loads(text)


def listed(cluster: Cluster, what: str) -> list[dict[str, Any]]:
    """Nodes or actors, as Ray's state API has them."""
    found: list[dict[str, Any]] = dashboard(cluster, f"/api/v0/{what}?limit=1000&detail=1")["data"]["result"]["result"]
    return found


def workers_of(cluster: Cluster, run: str) -> Counter[str]:
    """How many train workers of a run there were on each node."""
    names = {node["node_id"]: node["node_name"] for node in listed(cluster, "nodes")}
    job = dashboard(cluster, f"/api/jobs/metaray-{run}")["job_id"]
    actors = [actor for actor in listed(cluster, "actors") if actor["job_id"] == job]
    return Counter(names[actor["node_id"]] for actor in actors if "RayTrainWorker" in actor["class_name"])


def fetches(cluster: Cluster) -> dict[str, int]:
    """How often each node fetched the store, by the notes in its cache."""
    notes = (cluster.folder / "cache").glob("*/stores/*.json")
    found = [(note.parts[-3], json.loads(note.read_text())) for note in notes]
    assert all(note["uri"] == URI for _, note in found)
    assert len(dict(found)) == len(found), "a cache with two entries"
    return {node: note["fetches"] for node, note in sorted(found)}


def steps_saved(cluster: Cluster, run: str) -> list[int]:
    """Of the whole checkpoints in the bucket."""
    status, text = ask(cluster.url("S3", f"/runs?list-type=2&prefix={run}/checkpoints/"), {})
    assert status == 200, text
    return sorted({int(step) for step in re.findall(r"checkpoints/step-(\d+)/manifest\.json<", text)})


def test_a_job_trains_on_two_nodes_and_each_fetches_the_store_once(cluster: Cluster, undisturbed: Ended) -> None:
    say("submitted and followed", f"exit code {undisturbed.code} after {undisturbed.seconds:.0f} s")
    for line in re.findall(
        r"(?m)^(?:first step after|meta-test accuracy|speed|registered|parameters).*$", undisturbed.text
    ):
        say("its log", line)
    workers = workers_of(cluster, FIRST)
    say("train workers", dict(workers))
    assert workers == {"worker-1": 1, "worker-2": 1}
    say("checkpoints in s3://runs, of steps", steps_saved(cluster, FIRST))
    times = fetches(cluster)
    say("fetches of the store, by node", times)
    assert times == {"head": 1, "worker-1": 1, "worker-2": 1}


ADAPT = """
import os, sys
from pathlib import Path
import metaray
from metaray.serving.folders import read_query, read_support
assert not any(name.startswith(("AWS_", "RAY_")) for name in os.environ) and not any(Path().iterdir())
learner = metaray.load(sys.argv[1])
right = asked = 0
for task in sys.argv[2:]:
    support, query = read_support(Path(task) / "support"), read_query(Path(task) / "query")
    found = learner.adapt(support.paths, support.labels).predict(query.paths)
    right += sum(a == b for a, b in zip(found, query.labels, strict=True))
    asked += len(found)
print(right, asked)
"""


def test_the_champion_adapts_where_there_is_nothing_but_the_registry(
    cluster: Cluster,
    undisturbed: Ended,
    folder: Path,
    store: tuple[Path, str],
    command: Callable[..., Any],
) -> None:
    tasks = [folder / f"task-{index}" for index in range(TASKS)]
    for index, task in enumerate(tasks):
        done = command("data", "export", store[0], "--split", store[1], "--ways", WAYS, "--queries", QUERIES,
                       "--index", index, "--out", task)  # fmt: skip
        assert done.code == 0, done.err
    empty = folder / "elsewhere"
    empty.mkdir()
    variables = {name: value for name, value in cluster.inside.items() if name.startswith("MLFLOW_TRACKING_")}
    program = [sys.executable, "-c", ADAPT, f"models:/{NAME}@champion", *map(str, tasks)]
    done = subprocess.run(program, env=variables, cwd=empty, capture_output=True, text=True, timeout=PATIENT_S)
    assert done.returncode == 0, done.stderr
    right, asked = map(int, done.stdout.split())
    say(
        f"models:/{NAME}@champion, with {', '.join(variables)} only",
        f"{right} of {asked} right, by chance {asked / WAYS:g}",
    )
    assert right > 2 * asked / WAYS


def test_a_run_that_loses_a_node_ends_in_the_same_parameters(
    cluster: Cluster, undisturbed: Ended, project: Path
) -> None:
    with Submission(cluster, project, AGAIN) as submission:
        saved: list[int] = []

        def has_saved_twice() -> bool:
            saved[:] = steps_saved(cluster, AGAIN)
            assert submission.process.poll() is None, submission.text[-3000:]
            return len(saved) >= 2

        wait_until(has_saved_twice, every_s=0.1, what=lambda: submission.text[-3000:])
        os.killpg(cluster.pid("worker-2"), signal.SIGKILL)
        say("worker-2 killed", f"with checkpoints of steps {saved}")
        done = cluster.script("node.sh", cluster.folder, "worker-3")
        assert done.returncode == 0, done.stdout + done.stderr
        say("replaced by", done.stdout.strip())
        ended = submission.ended()
    for line in re.findall(r"(?m)^(?:a worker or its node is gone|going on from).*$", ended.text):
        say("its log", line)
    workers = workers_of(cluster, AGAIN)
    say("train workers", dict(workers))
    assert workers["worker-2"] == 1 and workers["worker-3"] >= 1, "the node was lost too late"
    times = fetches(cluster)
    say("fetches of the store, by node", times)
    assert times == {"head": 1, "worker-1": 1, "worker-2": 1, "worker-3": 1}
    say("undisturbed", f"{undisturbed.sha256} after {undisturbed.seconds:.0f} s")
    say("disturbed  ", f"{ended.sha256} after {ended.seconds:.0f} s")
    assert ended.sha256 == undisturbed.sha256


def test_nobody_gets_in_without_the_token_or_the_password(cluster: Cluster) -> None:
    code = LIST_NODES.format(address=cluster.inside["METARAY_CLUSTER"])
    changes: list[Mapping[str, str | None]] = [
        {"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_TOKEN": WRONG},
    ]
    with ThreadPoolExecutor() as pool:  # Ray tries for 20 s
        joined = pool.map(lambda change: cluster.python(code, **change), changes)
        jobs = cluster.url("DASHBOARD", "/api/jobs/")
        experiments = cluster.url("MLFLOW", "/api/2.0/mlflow/experiments/search?max_results=1")
        answers = {
            "dashboard, no token": ask(jobs, {}),
            "dashboard, wrong token": ask(jobs, {"Authorization": f"Bearer {WRONG}"}),
            "MLflow, no password": ask(experiments, {}),
            "MLflow, wrong password": ask(experiments, login("metaray", WRONG)),
        }
        for what, (status, text) in answers.items():
            say(what, f"[{status}] {text.splitlines()[0].partition('. ')[0]}")
        assert [status for status, _ in answers.values()] == [401, 403, 401, 401]
        for what, done in zip(("no token", "wrong token"), joined, strict=True):
            assert done.returncode != 0
            reasons = [line for line in done.stderr.splitlines() if "InvalidAuthToken" in line]
            assert reasons, done.stderr
            say(f"GCS, {what}", reasons[0][reasons[0].index("InvalidAuthToken") :])


RECORDED = """
import json, mlflow
client = mlflow.MlflowClient()
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        print(json.dumps(run.to_dictionary()))
for version in client.search_model_versions():
    print(dict(version))
"""


def everything_shown(cluster: Cluster) -> dict[str, str]:
    """What others get to see of the two runs."""
    jobs = {run: dashboard(cluster, f"/api/jobs/metaray-{run}") for run in (FIRST, AGAIN)}
    logs = [dashboard(cluster, f"/api/jobs/metaray-{run}/logs") for run in (FIRST, AGAIN)]
    assert all(job["runtime_env"] and job["metadata"] and job["entrypoint"] for job in jobs.values())
    recorded = cluster.python(RECORDED)
    assert recorded.returncode == 0 and FIRST in recorded.stdout, recorded.stderr
    files = [path for path in (cluster.folder / "artifacts").rglob("*") if path.is_file()]
    _, names = ask(cluster.url("S3", "/runs?list-type=2"), {})
    keys = [key for key in re.findall(r"<Key>([^<]+)</Key>", names) if not key.endswith((".safetensors", "/"))]
    return {
        "jobs API": json.dumps([dashboard(cluster, "/api/jobs/"), jobs]),
        "job logs": json.dumps(logs),
        "actors and nodes": json.dumps([listed(cluster, "actors"), listed(cluster, "nodes")]),
        "MLflow's params, tags, versions": recorded.stdout,
        "MLflow's artifacts": "".join(path.read_bytes().decode("latin-1") for path in files),
        "s3://runs, but for tensors": "".join(ask(cluster.url("S3", f"/runs/{key}"), {})[1] for key in keys),
    }


def test_no_secret_is_in_what_is_shown(cluster: Cluster) -> None:
    hidden = {
        name: (cluster.folder / name).read_text()
        for name in ("auth_token", "mlflow_password", "mlflow_admin_password", "s3_access_key", "s3_secret_key")
    }
    assert all(len(secret) == 64 for secret in hidden.values())
    shown = everything_shown(cluster)
    assert min(map(len, shown.values())) > 1000, "it has not looked where it should"
    found = {(name, where) for name, secret in hidden.items() for where, text in shown.items() if secret in text}
    sizes = ", ".join(f"{where} ({len(text)} characters)" for where, text in shown.items())
    say(f"{len(hidden)} secrets looked for in", sizes)
    say("found", sorted(found) or "none")
    assert not found
