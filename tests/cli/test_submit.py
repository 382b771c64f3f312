import io
import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Experiment
from metaray.submission import bucket
from tests.patience import PATIENT_S
from tests.submission.fake_cluster import TOKEN, FakeCluster, fake_cluster

LASTING = ("--storage", "s3://bucket/runs", "--tracking-uri", "http://mlflow:5000")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setattr(bucket, "_look", lambda *_: True)
        yield cluster


@pytest.fixture
def project(make_experiment: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/tiny.json").write_text(make_experiment().to_json())
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def words(cluster: FakeCluster) -> list[str]:
    return shlex.split(cluster.jobs[-1]["entrypoint"])


def test_submit(cluster: FakeCluster, project: Path, command: Any) -> None:
    flags = ("--workers", "2", "--set", "num_steps=8", "--no-register")
    ended = command("submit", "train", project / "tiny.json", *flags, *LASTING, "--run", "mine")
    assert ended.code == 0, ended.err
    assert ended.out == "job: metaray-mine\n"
    assert words(cluster) == [
        *("exec", "python", "-m", "metaray.submission.job", "train", "tiny.json", *flags, *LASTING, "--run", "mine")
    ]
    assert cluster.jobs[0]["metadata"] == {"metaray.run": "mine"}
    assert "packed " in ended.err and "run: mine" in ended.err and "jobs stop metaray-mine" in ended.err
    again = command("submit", "train", "tiny.json", *LASTING, "--run", "mine")
    assert (again.code, again.out) == (2, "")
    assert again.err.splitlines()[-1].startswith("error: run 'mine' is job metaray-mine and has not ended")
    cluster.jobs[0]["status"] = "STOPPED"
    assert command("submit", "train", "tiny.json", *LASTING, "--run", "mine").out == "job: metaray-mine-2\n"


def test_what_is_not_said(cluster: FakeCluster, project: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    monkeypatch.delenv("RAY_ADDRESS")
    place = ("--address", cluster.address, "--python", "/opt/bin/python", "--json")
    ended = command("submit", *place, "train", "tiny.json", "--storage", "file:///mnt/runs")
    assert ended.code == 0, ended.err
    said = words(cluster)
    run = said[said.index("--run") + 1]
    assert json.loads(ended.out)["run"] == run and run.startswith("tiny-2")
    assert said[said.index("--tracking-uri") + 1] == "https://mlflow.example.com"
    assert said[1] == "/opt/bin/python" and "--address" not in said and "--json" not in said


def test_the_commit_goes_along(cluster: FakeCluster, project: Path, command: Any) -> None:
    for words in (("init",), ("add", "."), ("-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-m", "one")):
        subprocess.run(("git", *words), cwd=project, check=True, capture_output=True)
    assert command("submit", "train", "tiny.json", *LASTING).code == 0
    checkout = json.loads(cluster.jobs[0]["runtime_env"]["env_vars"]["METARAY_CHECKOUT"])
    assert len(checkout["git.commit"]) == 40 and checkout["git.dirty"] == "false"


def test_local_to_head(cluster: FakeCluster, project: Path, command: Any) -> None:
    assert command("submit", "train", "tiny.json", "--local-to-head").code == 0
    said = words(cluster)
    assert said[said.index("--storage") + 1] == "~/metaray/runs"
    assert said[said.index("--tracking-uri") + 1] == "sqlite:///~/metaray/mlflow.db"


def test_a_search(cluster: FakeCluster, project: Path, command: Any) -> None:
    flags = ("--search", "algorithm.inner_lr=loguniform(1e-3,1)", "--trials", "4")
    ended = command("submit", "tune", "tiny.json", *flags, *LASTING)
    assert ended.code == 0, ended.err
    said = words(cluster)
    assert said[4:6] == ["tune", "tiny.json"] and said[6:10] == list(flags)
    assert said[said.index("--run") + 1].startswith("tiny-search-2")
    assert command("submit", "tune", "--run", "s", *LASTING).out == "job: metaray-s\n"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["train", "tiny.json"], "--storage 'runs' is a folder of the head node"),
        (["train", "tiny.json", "--storage", "s3://b/r"], "--tracking-uri 'sqlite:///mlflow.db' is no server"),
        (["train", "tiny.json", *LASTING, "--wrokers", "2"], "No such option: --wrokers"),
        (["train", "tiny.json", *LASTING, "--samplers", "0"], "'--samplers'"),
        (["train", "tiny.json", *LASTING, "--workers", "x"], "workers 'x'"),
        (["train", "tiny.json", *LASTING, "--device", "gpu"], "unknown device 'gpu'"),
        (["train", "tiny.json", *LASTING, "--set", "num_stesp=3"], "num_steps"),
        (["train", "tiny.json", *LASTING, "--run", "a/b"], "run name 'a/b'"),
        (["train", "tinny.json", *LASTING], "Did you mean 'tiny.json'"),
        (["train", *LASTING], "Missing argument 'RECIPE'"),
        (["tune", "tiny.json", *LASTING], "name at least one field to search"),
        (["tune", *LASTING], "give a RECIPE"),
        (["tune", "tiny.json", *LASTING, "--apply", "best.json"], "RUN/winner.json"),
        (["tarin", "tiny.json", *LASTING], "Did you mean 'train'"),
        (
            ["train", "tiny.json", "--storage", "s3://b/r", "--tracking-uri", "http://me:hushhush@mlflow"],
            "a credential",
        ),
        (["train", "tiny.json", *LASTING, "--address", "http://head.invalid:8265"], "plain HTTP to another machine"),
        (["train", "tiny.json", *LASTING, "--address", "head:8265"], "for instance http://head:8265"),
    ],
)
def test_what_is_wrong_is_found_here(
    arguments: list[str], wanted: str, cluster: FakeCluster, project: Path, command: Any
) -> None:
    ended = command("submit", *arguments)
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.startswith("error: ") and wanted in ended.err
    assert cluster.asked == [] and "hushhush" not in ended.err


def test_a_recipe_outside_the_project(cluster: FakeCluster, project: Path, command: Any) -> None:
    (project.parent / "other.json").write_text((project / "tiny.json").read_text())
    ended = command("submit", "train", "../other.json", *LASTING)
    assert ended.code == 2 and "start from the folder of its project" in ended.err


NETS = """
from torch import nn
from parts.layers import WIDTH

class Net(nn.Module):
    pass
"""
RECIPE = """
import nets
from pathlib import Path
from metaray.experiment.experiment import Experiment

def demo():
    return Experiment.from_json(Path("tiny.json").read_text())
"""


def sent(cluster: FakeCluster) -> set[str]:
    (archive,) = cluster.packages.values()
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    return {name for name in names if not name.startswith(("metaray/", "metaray-"))}


@pytest.fixture
def unversioned(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of a recipe and what it imports, of secrets, and of other things."""
    (project / "work").mkdir()
    (project / "work/r.py").write_text(RECIPE)
    (project / "nets.py").write_text(NETS)
    for name in ("parts/__init__.py", "parts/unused.py", "secrets/db.yaml", "notes.txt"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    (project / "parts/layers.py").write_text("WIDTH = 8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield project
    for name in ("nets", "parts", "parts.layers"):
        sys.modules.pop(name, None)


def test_the_recipe_and_what_it_imports_are_sent(cluster: FakeCluster, unversioned: Path, command: Any) -> None:
    ended = command("submit", "train", "work/r.py:demo", *LASTING, "--include", "tiny.json")
    assert ended.code == 0, ended.err
    assert sent(cluster) == {"work/r.py", "nets.py", "parts/__init__.py", "parts/layers.py", "tiny.json"}
    assert "looks like a credential: secrets/db.yaml" in ended.err
    assert "in no git repository, and not imported by the recipe: notes.txt, parts/unused.py" in ended.err


def test_a_dry_run_lists_and_sends_nothing(cluster: FakeCluster, unversioned: Path, command: Any) -> None:
    subprocess.run(("git", "init"), cwd=unversioned, check=True, capture_output=True)
    subprocess.run(("git", "add", "notes.txt", "secrets"), cwd=unversioned, check=True, capture_output=True)
    ended = command("submit", "train", "work/r.py:demo", "--dry-run", "--exclude", "notes.txt")
    assert ended.code == 0, ended.err
    first, *files, own, count, one, two, three, four = ended.out.splitlines()
    assert first.startswith("would send ") and first.endswith("; nothing is sent")
    assert [line.split()[1] for line in files] == ["nets.py", "parts/__init__.py", "parts/layers.py", "work/r.py"]
    assert own.split()[1:3] == ["metaray", "itself"] and count.startswith("left out: 4 files")
    assert one == "  notes.txt: excluded" and two == "  parts/unused.py: not tracked by git"
    assert three == "  secrets/db.yaml: looks like a credential" and four == "  tiny.json: not tracked by git"
    tree = json.loads(command("submit", "train", "work/r.py:demo", "--dry-run", "--json").out)
    assert (
        tree["files"]["nets.py"] == len(NETS) and {"file": "tiny.json", "why": "not tracked by git"} in tree["left_out"]
    )
    assert cluster.asked == []


def test_a_bucket_that_is_not_there(
    cluster: FakeCluster, project: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_look", lambda *_: False)
    ended = command("submit", "train", "tiny.json", *LASTING)
    assert ended.code == 2 and "--storage 's3://bucket/runs': there is no bucket 'bucket'" in ended.err
    assert cluster.jobs == [] and cluster.packages == {}


def test_a_cluster_of_other_versions(cluster: FakeCluster, project: Path, command: Any) -> None:
    cluster.ray = "2.9.0"
    ended = command("submit", "train", "tiny.json", *LASTING)
    assert ended.code == 2 and "2.9.0 on the cluster" in ended.err
    assert cluster.jobs == [] and cluster.packages == {}


def test_a_cluster_without_authentication(cluster: FakeCluster, project: Path, command: Any) -> None:
    cluster.token = None
    ended = command("submit", "train", "tiny.json", *LASTING)
    assert ended.code == 2 and "asks nobody for a token" in ended.err and cluster.jobs == []
    assert command("submit", "train", "tiny.json", *LASTING, "--insecure").code == 0


@pytest.mark.parametrize(
    ("status", "exit_code", "wanted"), [("SUCCEEDED", 0, 0), ("FAILED", 75, 75), ("STOPPED", None, 75)]
)
def test_following_ends_as_the_job_does(
    status: str, exit_code: int | None, wanted: int, cluster: FakeCluster, command: Any
) -> None:
    cluster.add("metaray-r", status, run="r", driver_exit_code=exit_code)
    cluster.logs["metaray-r"] = "step 1\n"
    ended = command("jobs", "logs", "r", "--follow")
    assert (ended.code, ended.out) == (wanted, "step 1\n")
    assert f"metaray-r: {status}" in ended.err


def test_ctrl_c_ends_the_following_and_not_the_job(cluster: FakeCluster) -> None:
    cluster.add("metaray-r", "RUNNING", run="r")
    cluster.logs["metaray-r"] = "step 1\n"
    process = subprocess.Popen(
        [sys.executable, "-m", "metaray", "jobs", "logs", "r", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Whoever runs the tests in the background of a shell has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "step 1\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENT_S)
    assert process.returncode == 75 and "job metaray-r goes on" in err and "Traceback" not in err
    assert not [path for _, path in cluster.asked if path.endswith("/stop")]


def test_jobs(cluster: FakeCluster, command: Any) -> None:
    cluster.add("metaray-a", "SUCCEEDED", run="a", start_time=1000, end_time=3_662_000, driver_exit_code=0)
    cluster.add("metaray-b", "RUNNING", run="b", start_time=2000, entrypoint="exec python -m x", message="running\n")
    cluster.logs["metaray-b"] = "step 1\n"
    header, first, second = command("jobs", "list").out.splitlines()
    assert header.split()[:3] == ["job", "run", "status"]
    assert first.split()[:3] == ["metaray-b", "b", "RUNNING"]
    assert second.split() == ["metaray-a", "a", "SUCCEEDED", "0", "1970-01-01", "00:00:01", "1:01:01"]
    assert [job["job"] for job in json.loads(command("jobs", "list", "--json").out)] == ["metaray-b", "metaray-a"]
    shown = command("jobs", "status", "b").out
    assert "metaray-b: RUNNING\n" in shown and "command: exec python -m x\n" in shown and "Ray says: running\n" in shown
    assert json.loads(command("jobs", "status", "metaray-a", "--json").out)["exit_code"] == 0
    assert command("jobs", "logs", "b").out == "step 1\n"
    ended = command("jobs", "status", "c")
    assert ended.code == 2 and "unknown job 'c'" in ended.err


def test_stop(cluster: FakeCluster, command: Any) -> None:
    cluster.add("metaray-r", "RUNNING", run="r")
    cluster.logs["metaray-r"] = "stopped: after step 3; a checkpoint holds it; --run r goes on from there\n"
    ended = command("jobs", "stop", "r")
    assert ended.code == 0 and "up to 120 s to write a checkpoint" in ended.err
    assert ended.out == "metaray-r: STOPPED, after step 3; a checkpoint holds it; --run r goes on from there\n"
    ended = command("jobs", "stop", "r")
    assert ended.code == 2 and "has ended already: STOPPED" in ended.err


def test_these_commands_need_no_ray(cluster: FakeCluster) -> None:
    script = (
        "import sys; from metaray.cli import main; main(['jobs', 'list', '--json'])\n"
        "assert not {'ray', 'torch', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENT_S)
    assert done.returncode == 0, done.stderr
