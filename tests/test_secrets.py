"""Secrets are planted wherever users put them; then all that was written and printed is searched."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metaray.data import ClassStore
from metaray.data.access import ACCESS
from metaray.experiment.experiment import Experiment
from metaray.submission import bucket
from tests.data.small_server import SmallServer, small_server, without_proxies
from tests.submission.fake_cluster import TOKEN, FakeCluster, fake_cluster

SIGNED = "X-Amz-Date=1&X-Amz-" + "Signature=hush01&X-Amz-Credential=hush02&X-Amz-Security-Token=hush03&sig" + "=hush04"
SIGNED += "&access_token=hush05#hush06"
ACCOUNT = "me:hush07/hush08"
REFUSED = (
    ("--set", "source.path=https://me:hush09/hush09@nowhere.invalid/a"),
    ("--set", "source.path=S3://KEY:hush10@bucket/a"),
    ("--set", "model.options.url=https://nowhere.invalid/x?password=hush11"),
    ("--set", 'source={"kind":"class_store","path":"https://me:hush12@h/a","colour":"red"}'),
    ("--set", "https://me:hush13@nowhere.invalid"),
    ("--storage", "S3://KEY:hush14/hush14@bucket/runs"),
    ("--storage", "s3://bucket/runs?secret_key=hush15"),
    ("--storage", "nosuch://me:hush16@bucket/runs"),
    ("--tracking-uri", "postgresql://u:hush17/hush17@nowhere.invalid/db"),
    ("--tracking-uri", "mysql+nosuch://u:hush18@nowhere.invalid/db?ssl_password=hush18"),
    ("--tracking-uri", "https://me:hush19@127.0.0.1:9/x?token=hush19"),
    ("--tracking-uri", "https://me:hush20/hush20@nowhere.invalid"),
    ("--tracking-uri", "nosuch://me:hush21@host"),
    ("--wrokers", "https://me:hush22@host"),
)


def told(folder: Path, *but: Path) -> list[str]:
    """Files below a folder that tell a secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and path not in but]
    assert files
    return [str(path) for path in files if b"hush" in path.read_bytes() or "hush" in path.name]


@pytest.fixture
def server(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ACCESS, "")
    with small_server() as served:
        without_proxies(monkeypatch, served)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        served.objects["/tiny"] = tiny_store.read_bytes()
        yield served


@pytest.fixture
def recipe(server: SmallServer, make_experiment: Callable[..., Experiment], tmp_path: Path) -> Path:
    """An experiment as a user writes it, with a signed address in it."""
    path = tmp_path / "in/tiny.json"
    path.parent.mkdir()
    tree = json.loads(make_experiment(name="secrets").to_json())
    tree["source"]["path"] = f"{server.address}/tiny?{SIGNED}"
    path.write_text(json.dumps(tree))
    return path


def test_nothing_that_a_run_writes_or_prints_tells_a_secret(
    recipe: Path, server: SmallServer, command: Any, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--storage", tmp_path / "runs", "--tracking-uri", database, "--run", "mine")
    first = ("train", recipe, *where)
    monkeypatch.setattr("sys.argv", ["metaray", *map(str, first), f"{server.address}/tiny?{SIGNED}"])
    ended = command(*first)
    assert ended.code == 0, ended.err
    again = command(*first, "--set", f"source.path={server.address}/tiny?X-Amz-Date=2&X-Amz-{'Signature'}=hush99")
    assert again.code == 0 and "parameters sha256" in again.out, "the same data, signed anew"
    assert "hush" not in ended.out + ended.err + again.out + again.err
    page = tmp_path / "report.html"
    reported = command("report", "mine", *where[:4], "--out", page, "--episodes", 2)
    assert reported.code == 0 and "hush" not in reported.out + reported.err, reported.err
    assert f"{server.address}/tiny" in page.read_text()
    assert told(tmp_path, recipe) == told(Path(database.removeprefix("sqlite:///")).parent) == []
    record = json.loads((tmp_path / "runs/mine/run.json").read_text())
    assert record["experiment"]["source"]["path"] == f"{server.address}/tiny"
    assert "X-Amz-Signature=***" in record["tags"]["command"]


@pytest.mark.parametrize("words", REFUSED)
def test_no_message_tells_a_secret(
    words: tuple[str, str], make_experiment: Callable[..., Experiment], command: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(make_experiment().to_json())
    places = ("--storage", tmp_path / "runs", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    ended = command("train", path, *places, *words)
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.startswith("error: ") and "hush" not in ended.err, ended.err
    assert told(tmp_path) == []


def test_an_account_of_a_node_is_used_and_told_nowhere(
    server: SmallServer, make_experiment: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ACCESS, f"{server.address}/tiny".replace("//", f"//{ACCOUNT}@"))
    experiment = make_experiment(source=ClassStore(path=f"{server.address}/tiny"))
    assert experiment.source.fingerprint and all(account is not None for account in server.accounts)
    assert "hush" not in experiment.to_json() and told(tmp_path) == []


def test_a_crash_tells_no_secret_either(
    recipe: Path, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        try:
            raise KeyError("https://me:hush@host")
        except KeyError as error:
            raise ZeroDivisionError("of metaray") from error

    monkeypatch.setattr("metaray.api.train.train", crash)
    ended = command("train", recipe)
    assert ended.code == 1 and "ZeroDivisionError: of metaray" in ended.err and "hush" not in ended.err


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_nothing_that_a_search_writes_or_prints_tells_a_secret(
    recipe: Path, command: Any, database: str, tmp_path: Path
) -> None:
    where = ("--storage", tmp_path / "runs", "--tracking-uri", database, "--run", "mine")
    grid = ("--search", "algorithm.inner_lr=choice(0.1,0.2)", "--searcher", "grid", "--scheduler", "none")
    ended = command("tune", recipe, *where, *grid, "--apply", tmp_path / "best.json")
    assert ended.code == 0, ended.err
    secret = ("--search", 'source.path=choice("https://h/a?token=hush23","b")')
    refused = command("tune", recipe, *where[:-1], "other", *secret, "--searcher", "grid", "--scheduler", "none")
    assert refused.code == 2 and "space: source.path holds a credential" in refused.err
    assert "hush" not in ended.out + ended.err + refused.out + refused.err
    assert told(tmp_path, recipe) == told(Path(database.removeprefix("sqlite:///")).parent) == []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        monkeypatch.setattr(bucket, "_look", lambda *_: True)
        yield cluster


def test_no_submission_tells_a_secret(
    cluster: FakeCluster, recipe: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    places = ("--address", cluster.address, "--storage", "s3://b/r", "--tracking-uri", "http://mlflow:5000")
    ended = command("submit", "train", "tiny.json", *places)
    assert ended.code == 2 and "tiny.json, line 1: a signed address" in ended.err
    tree = json.loads(recipe.read_text())
    monkeypatch.setenv(ACCESS, tree["source"]["path"])
    tree["source"]["path"] = tree["source"]["path"].partition("?")[0]
    recipe.write_text(json.dumps(tree))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    for words in (w for w in REFUSED if w[0] != "--wrokers"):
        refused = command("submit", "train", "tiny.json", *places, *words)
        assert refused.code == 2 and "hush" not in refused.out + refused.err, refused.err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hush@mlflow")
    assert command("submit", "train", "tiny.json", *places[:4]).code == 2 and not cluster.jobs
    done = command("submit", "train", "tiny.json", *places)
    assert done.code == 0, done.err
    assert "hush" not in ended.err + done.out + done.err + json.dumps(cluster.jobs)
    assert not any(b"hush" in archive for archive in cluster.packages.values())
