import json
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.submission import request
from metaray.submission.choice import LeftOut
from metaray.submission.client import JobsClient
from metaray.submission.packing import Pack
from metaray.submission.request import Order
from tests.submission.fake_cluster import TOKEN, FakeCluster

VERSIONS = {"ray": "2.60.0", "python": "3.11.9", "torch": "2.13.0+cpu", "metaray": "0.1.0"}


@pytest.mark.parametrize(
    ("storage", "local", "wanted"),
    [
        ("s3://bucket/runs", False, None),
        ("gs://bucket/runs?region=x", True, None),
        ("file:///mnt/shared/runs", False, None),
        ("runs", True, "~/metaray/runs"),
        ("deep/runs", True, "~/metaray/deep/runs"),
        ("/data/runs", True, None),
        ("~/runs", True, None),
    ],
)
def test_storage(storage: str, local: bool, wanted: str | None) -> None:
    assert request.lasting_storage(storage, local=local) == wanted


@pytest.mark.parametrize("storage", ["runs", "/data/runs", "~/runs"])
def test_storage_on_the_head_is_refused(storage: str) -> None:
    with pytest.raises(InputError, match=r"^--storage .* is a folder of the head node: .*s3://.*--local-to-head"):
        request.lasting_storage(storage, local=False)


def test_storage_of_no_kind() -> None:
    with pytest.raises(InputError, match="Did you mean 's3'"):
        request.lasting_storage("s4://bucket/runs", local=True)


@pytest.mark.parametrize(
    ("flag", "environment", "local", "wanted"),
    [
        ("https://mlflow.example.com", None, False, None),
        ("http://mlflow:5000", "http://other:5000", False, None),
        (None, "http://mlflow:5000", False, "http://mlflow:5000"),
        (None, "postgresql+psycopg2://me@db/mlflow", False, "postgresql+psycopg2://me@db/mlflow"),
        (None, None, True, "sqlite:///~/metaray/mlflow.db"),
        ("sqlite:///deep/mine.db", None, True, "sqlite:///~/metaray/mine.db"),
        ("sqlite:////data/mlflow.db", None, True, None),
        ("http://localhost:5000", None, True, None),
        (None, "http://localhost:5000", True, "http://localhost:5000"),
    ],
)
def test_tracking(flag: str | None, environment: str | None, local: bool, wanted: str | None) -> None:
    for address in ("https://head", "http://localhost:8265"):
        assert request.lasting_tracking(flag, environment, address, local=local) == wanted


@pytest.mark.parametrize(
    ("flag", "environment", "wanted"),
    [
        (None, None, "is no server"),
        ("sqlite:////data/mlflow.db", "http://mlflow:5000", "is no server"),
        (None, "mlruns", "is no server"),
        ("http://localhost:5000", None, "the head node itself"),
        (None, "http://me:hushhush@127.0.0.1:5000", "the head node itself"),
        (None, "postgresql://me:hushhush@localhost/mlflow", "the head node itself"),
    ],
)
def test_tracking_on_the_head_is_refused(flag: str | None, environment: str | None, wanted: str) -> None:
    with pytest.raises(InputError, match=r"^--tracking-uri .*--local-to-head") as caught:
        request.lasting_tracking(flag, environment, "https://head", local=False)
    assert wanted in str(caught.value) and "hushhush" not in str(caught.value)


def test_a_server_of_this_machine_for_a_cluster_of_this_machine() -> None:
    for uri in ("http://127.0.0.1:5000", "postgresql://me@localhost/mlflow"):
        assert request.lasting_tracking(None, uri, "http://127.0.0.1:8265", local=False) == uri


@pytest.mark.parametrize(
    "word",
    [
        "http://me:hushhush@mlflow:5000",
        "https://hushhush@mlflow",
        "--tracking-uri=postgresql://me:hushhush@db/x",
        "s3://KEY:hush/hush@bucket/runs",
        "s3://bucket/runs?secret_key=hushhush",
        "s3://bucket/runs?region=x&access_key=hushhush",
        "postgresql://db/x?user=me&password=hushhush",
    ],
)
def test_credentials_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_PASSWORD") as caught:
        request.check_secrets(["train", "r.py:f", word])
    assert "hush" not in str(caught.value) and "AWS_SECRET_ACCESS_KEY" in str(caught.value)


def test_what_is_no_credential() -> None:
    request.check_secrets(["s3://bucket/runs?region=eu-west-1", "--set", "source.path=a@b:c", "http://mlflow:5000"])


def test_the_command_line_of_a_job() -> None:
    order = Order("r", ("train", "r.py:f", "--set", "a='b c'; rm -rf $HOME"), "/opt/my env/bin/python")
    changed = request.with_options(order, {"--storage": "~/metaray/runs", "--tracking-uri": None})
    assert changed.entrypoint == (
        "exec '/opt/my env/bin/python' -m metaray.submission.job train r.py:f "
        """--set 'a='"'"'b c'"'"'; rm -rf $HOME' --storage '~/metaray/runs'"""
    )


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ("r.py:f", "r.py:f"),
        ("./jobs/../jobs/j.py:f", "jobs/j.py:f"),
        ("{project}/jobs/j.py:f", "jobs/j.py:f"),
        ("best.json", "best.json"),
    ],
)
def test_recipes_are_named_as_in_the_pack(recipe: str, wanted: str, tmp_path: Path) -> None:
    found = request.shipped_recipe(recipe.format(project=tmp_path), tmp_path)
    assert found == (wanted, tmp_path / wanted.partition(":")[0])


def test_recipes_outside_the_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="start from the folder of its project"):
        request.shipped_recipe("../r.py:f", tmp_path)


def test_versions_of_the_head(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.ray = "2.60.0"
    for python in (None, "3.11.2"):
        cluster.python = python
        request.check_versions(client, VERSIONS)
    cluster.python = "3.12.1"
    with pytest.raises(InputError, match=r"other versions: python 3\.11\.9 here, 3\.12\.1 on the cluster\. Install"):
        request.check_versions(client, VERSIONS)
    cluster.ray = "2.59.1"
    with pytest.raises(InputError, match=r"ray 2\.60\.0 here, 2\.59\.1 on the cluster"):
        request.check_versions(client, VERSIONS)


def send(client: JobsClient, run: str = "r", notes: list[str] | None = None, left: tuple[LeftOut, ...] = ()) -> str:
    pack = Pack({}, {"a.txt": b"a" * 10_000}, left)
    note = list[str]().append if notes is None else notes.append
    order = Order(run, ("train", "r.py:f"), checkout={"git.commit": "0a1b"})
    return request.send(client, order, pack, VERSIONS, note)


def test_sending(cluster: FakeCluster, client: JobsClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    notes: list[str] = []
    assert send(client, notes=notes, left=(LeftOut("token.txt", "looks like a credential"),)) == "metaray-r"
    (job,) = cluster.jobs
    (path,) = cluster.packages
    assert job["runtime_env"]["working_dir"] == path.replace("/api/packages/gcs/", "gcs://")
    variables = job["runtime_env"]["env_vars"]
    assert set(variables) == {"METARAY_EXPECTS", "METARAY_CHECKOUT", "RAY_JOB_STOP_WAIT_TIME_S"}
    assert json.loads(variables["METARAY_CHECKOUT"]) == {"git.commit": "0a1b"}
    assert json.loads(variables["METARAY_EXPECTS"]) == VERSIONS and int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) > 60
    assert not {"hushhush", TOKEN} & set(json.dumps(job).split('"')) and "hushhush" not in json.dumps(job)
    assert notes[0] == "packed 1 files, 0.01 MB (0.00 MB compressed)"
    assert notes[1].startswith("left out: looks like a credential: token.txt. --include PATTERN")


def test_jobs_run_under_the_python_that_runs_ray(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.command = ["--python_worker_command=/opt/venv/bin/python3.11 x"]
    send(client)
    assert cluster.jobs[0]["entrypoint"].startswith("exec /opt/venv/bin/python3.11 -m metaray.submission.job train")


def test_a_run_that_is_busy(cluster: FakeCluster, client: JobsClient) -> None:
    send(client)
    for status in ("PENDING", "RUNNING"):
        cluster.jobs[0]["status"] = status
        with pytest.raises(InputError) as caught:
            send(client)
        assert str(caught.value).startswith("run 'r' is job metaray-r and has not ended: `metaray jobs logs metaray-r")
    assert len(cluster.jobs) == 1 and send(client, "other") == "metaray-other"


def test_a_run_that_has_ended_goes_on_as_another_job(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.add("metaray-r", "STOPPED", run="r")
    cluster.add("metaray-r-2", "RUNNING", run="r-2")  # of a run that is called so
    assert send(client) == "metaray-r-3"


def test_a_run_that_somebody_submits_at_the_same_time(
    cluster: FakeCluster, client: JobsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add("metaray-r", "RUNNING", run="r")
    monkeypatch.setattr(JobsClient, "jobs", lambda _: [])  # as they were a moment ago
    with pytest.raises(InputError, match="run 'r' is job metaray-r and has not ended"):
        send(client)


def test_a_credential_is_found_before_anything_is_sent(cluster: FakeCluster, client: JobsClient) -> None:
    order = Order("r", ("train", "--tracking-uri", "http://me:hushhush@mlflow"))
    with pytest.raises(InputError, match="holds a credential"):
        request.send(client, order, Pack({}, {}), VERSIONS, print)
    assert cluster.asked == []
