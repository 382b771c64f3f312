"""MLflow away: at the start, in the middle, at the end of a run; and the runs that are uploaded later."""

import json
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from metaray.api.train import NotUploaded, Report, train
from metaray.api.upload import upload
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.events import Event, Fanout, Listener
from metaray.records.journal import read_journal
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tracking import probes, server
from metaray.tracking.client import open_client
from metaray.tracking.registry import show
from metaray.tracking.server import MlflowServer, Unreachable
from metaray.training.in_process import InProcess
from tests.tracking.mlflow_server import Server

Command = Callable[..., Any]
MakeExperiment = Callable[..., Experiment]
QUIET = Fanout([])


class Link:
    """The way to MLflow. What the client does while it is down fails as if the server were away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = False
        for name in ("log_batch", "get_run", "update_run", "set_terminated", "create_run", "log_artifact"):
            monkeypatch.setattr(mlflow.MlflowClient, name, self._guarded(getattr(mlflow.MlflowClient, name)))
        monkeypatch.setattr(server, "probe", self._prepare)
        # A server: of none is it sure before it was asked.
        monkeypatch.setattr("metaray.tracking.mlflow_tracker.takes_run", lambda *_: False)

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.down:
                raise ConnectionError("[Errno 111] Connection refused")
            return method(*arguments, **options)

        return call

    def _prepare(self, uri: str) -> None:
        if self.down:
            raise Unreachable(f"tracking server {uri!r} can't be reached")
        probes.probe(uri)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    monkeypatch.setattr("metaray.api.train.AWAY_WITHIN_S", 0.0)
    monkeypatch.setattr("metaray.tracking.feed.EVERY_S", 0.02)
    monkeypatch.setattr("metaray.records.journal.FLUSH_EVERY_S", 0.01)
    return Link(monkeypatch)


Options = dict[str, Any]


@pytest.fixture
def options(database: str, tmp_path: Path) -> Options:
    return {"run": "x", "storage": str(tmp_path / "runs"), "tracking_uri": database}


def run(experiment: Experiment, options: Options, ear: Listener, **changes: Any) -> Report:
    return train(experiment, **options, progress=ear, **changes)


@pytest.fixture
def again(database: str, tmp_path: Path) -> Callable[..., Any]:
    """Uploads run x."""

    def start(*, register: bool = True, tracking: str = database, promote: bool = False) -> Any:
        return upload("x", storage=str(tmp_path / "runs"), tracking=tracking, register=register, promote=promote)

    return start


class Ear(Listener):
    """Remembers notes, and does something at a step."""

    def __init__(self, at: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.at, self.action, self.notes = at, action, list[str]()

    def on_event(self, event: Event) -> None:
        if event.kind == "note":
            self.notes.append(event.text)
        if event.kind == "step" and event.step == self.at:
            self.action()

    def close(self) -> None:
        pass


def assert_whole(uri: str, run_id: str | None, folder: Path, status: str = "FINISHED") -> None:
    """MLflow has exactly what the journal has: each (key, step) once."""
    assert run_id is not None
    assert json.loads((folder / "run.json").read_text())["tracking_run"] == run_id
    client, journal = open_client(uri), read_journal(Storage(str(folder)))
    assert client.get_run(run_id).info.status == status
    assert set(client.get_run(run_id).data.metrics) == {entry.key for entry in journal}
    found = [
        (metric.key, metric.value, metric.step, metric.timestamp)
        for key in {entry.key for entry in journal}
        for metric in client.get_metric_history(run_id, key)
    ]
    assert sorted(found) == sorted(tuple(entry) for entry in journal)
    assert len({(key, step) for key, _, step, _ in found}) == len(found) > 0
    assert "experiment.json" in {item.path for item in client.list_artifacts(run_id)}
    assert len(client.get_run(run_id).data.params) > 20


def versions(uri: str, name: str, run_id: str) -> list[int]:
    return [version.version for version in show(MlflowServer(uri), name).versions if version.run_id == run_id]


def test_a_server_that_goes_and_comes_back(
    make_experiment: MakeExperiment, options: Options, link: Link, database: str, tmp_path: Path
) -> None:
    class Absence(Ear):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            link.down = link.down or (event.kind == "step" and event.step == 2)
            if event.kind == "step":
                time.sleep(0.02)
            if "takes no metrics" in event.text:
                link.down = False

    ear = Absence()
    report = run(
        make_experiment(
            name="returns", num_steps=100, evaluation=Evaluation(every=100, val_episodes=2, test_episodes=2)
        ),
        options,
        ear,
    )
    assert [note.partition(": ")[2] or note for note in ear.notes if "metrics" in note] == [
        "[Errno 111] Connection refused; metrics wait in the run's journal, and training goes on",
        "MLflow takes metrics again",
    ]
    assert_whole(database, report.tracking_run, tmp_path / "runs/x")
    assert versions(database, "returns", report.tracking_run or "") == [1]


def test_a_server_that_stays_away_and_an_upload_later(
    make_experiment: MakeExperiment,
    link: Link,
    database: str,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = InProcess.train

    def lose(*arguments: Any) -> None:
        link.down = True
        original(*arguments)

    monkeypatch.setattr(InProcess, "train", lose)
    (tmp_path / "x.json").write_text(make_experiment(name="stays").to_json())
    places = ("--storage", tmp_path / "runs", "--tracking-uri", database)
    code, out, err = command("train", tmp_path / "x.json", "--run", "x", "--promote", *places)
    assert code == 1, err
    assert {"meta-test accuracy", "parameters sha256", "run"} <= {line.partition(":")[0] for line in out.splitlines()}
    assert "registered" not in out
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert err.splitlines()[-1] == failed[0]
    assert (
        f"run 'x' is trained and complete in {tmp_path}/runs/x, but could not be uploaded: tracking server" in failed[0]
    )
    assert {"result.json", "learner", "checkpoints", "metrics"} <= {p.name for p in (tmp_path / "runs/x").iterdir()}

    typed = shlex.split(failed[0].partition("once that is mended: ")[2])
    assert typed == ["metaray", "upload", "x", *map(str, places), "--promote"]
    code, out, err = command(*typed[1:])
    assert (code, out) == (2, ""), "still away"
    assert "can't be reached" in err
    link.down = False
    for _ in range(2):
        code, out, err = command(*typed[1:], "--json")
        assert (code, err) == (0, "")
        shown = json.loads(out)
        assert (shown["registered"], shown["champion"]) == ("models:/stays/1 (@champion)", True)
        assert_whole(database, shown["tracking_run"], tmp_path / "runs/x")
    assert versions(database, "stays", shown["tracking_run"]) == [1]


def test_a_server_that_comes_back_while_a_trained_run_waits(
    make_experiment: MakeExperiment,
    options: Options,
    link: Link,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("metaray.api.train.AWAY_WITHIN_S", 60.0)

    class Patient(Ear):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if event.kind == "step":
                link.down = True
            if "waiting up to" in event.text:
                link.down = False

    ear = Patient()
    report = run(make_experiment(name="patient"), options, ear)
    assert [note for note in ear.notes if "waiting" in note] == [
        f"MLflow at {database!r} does not answer; waiting up to 60 s for it"
    ]
    assert_whole(database, report.tracking_run, tmp_path / "runs/x")


def test_to_go_on_needs_no_server(
    make_experiment: MakeExperiment, options: Options, link: Link, database: str, tmp_path: Path
) -> None:
    experiment, stop = make_experiment(name="goes-on"), list[int]()
    with pytest.raises(RunStopped):
        run(experiment, options, Ear(3, lambda: stop.append(1)), should_stop=lambda: bool(stop))
    link.down = True
    ear = Ear()
    with pytest.raises(NotUploaded, match="run 'x' is trained and complete") as caught:
        run(experiment, options, ear)
    assert [note for note in ear.notes if "metrics" in note] == [
        f"tracking server {database!r} can't be reached; metrics wait in the run's journal, and training goes on"
    ]
    assert caught.value.report.result.num_steps == 6
    link.down = False
    report = run(experiment, options, QUIET)
    assert report.result == caught.value.report.result
    assert report.version is not None
    assert_whole(database, report.tracking_run, tmp_path / "runs/x")


def test_a_resumed_run_is_running_again(
    make_experiment: MakeExperiment, options: Options, database: str, tmp_path: Path
) -> None:
    experiment, seen = make_experiment(name="running"), list[str]()

    def status() -> str:
        run_id = json.loads((tmp_path / "runs/x/run.json").read_text())["tracking_run"]
        return str(open_client(database).get_run(run_id).info.status)

    with pytest.raises(RunStopped):
        run(experiment, options, QUIET, should_stop=lambda: True)
    assert status() == "KILLED"
    run(experiment, options, Ear(2, lambda: seen.append(status())))
    assert (seen, status()) == (["RUNNING"], "FINISHED")


def test_a_new_run_needs_the_server(
    make_experiment: MakeExperiment, options: Options, link: Link, tmp_path: Path
) -> None:
    link.down = True
    with pytest.raises(InputError, match="can't be reached"):
        run(make_experiment(name="new"), options, QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_experiment_leaves_no_file(
    make_experiment: MakeExperiment, options: Options, database: str, tmp_path: Path
) -> None:
    client = open_client(database)
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(InputError, match="experiment 'deleted' was deleted"):
        run(make_experiment(name="deleted"), options, QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_uri_is_wrong_also_for_a_run_that_goes_on(
    make_experiment: MakeExperiment, options: Options
) -> None:
    experiment = make_experiment(name="malformed")
    with pytest.raises(RunStopped):
        run(experiment, options, QUIET, should_stop=lambda: True)
    for uri in ("htp://host", "mlruns", "http://"):
        with pytest.raises(InputError, match="tracking"):
            run(experiment, options | {"tracking_uri": uri}, QUIET)


@pytest.mark.slow
def test_to_another_server_and_back(
    make_experiment: MakeExperiment, options: Options, again: Callable[..., Any], database: str, tmp_path: Path
) -> None:
    first = run(make_experiment(name="moves"), options | {"promote": True}, QUIET)
    command_before = open_client(database).get_run(first.tracking_run or "").data.tags["command"]
    other = f"sqlite:///{tmp_path}/other.db"
    moved = again(tracking=other, promote=True)
    assert moved.tracking_run != first.tracking_run
    assert (moved.version.version, moved.version.aliases) == (1, ("champion",))
    assert_whole(other, moved.tracking_run, tmp_path / "runs/x")
    assert open_client(other).get_run(moved.tracking_run).data.tags["command"] == command_before
    assert again(tracking=other) == moved


def test_an_unfinished_run_is_uploaded_as_far_as_it_goes(
    make_experiment: MakeExperiment, options: Options, link: Link, database: str, tmp_path: Path, command: Command
) -> None:
    experiment, stop = make_experiment(name="part"), list[int]()

    class Losing(Ear):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if event.kind == "step":
                link.down = True

    with pytest.raises(RunStopped) as stopped:
        run(experiment, options, Losing(3, lambda: stop.append(1)), should_stop=lambda: bool(stop))
    assert "the end of run" in stopped.value.__notes__[0]
    link.down = False
    run_id = json.loads((tmp_path / "runs/x/run.json").read_text())["tracking_run"]
    assert open_client(database).get_run(run_id).info.status == "RUNNING", "nobody could mark it"
    places = ("--storage", tmp_path / "runs", "--tracking-uri", database)
    code, out, err = command("upload", "x", *places)
    assert (code, err) == (0, "")
    assert "unfinished: its newest checkpoint is that of step 4 of 6; metrics so far are uploaded" in out
    assert f"go on: metaray train RECIPE --run x --storage {tmp_path}/runs" in out
    assert_whole(database, run_id, tmp_path / "runs/x", "KILLED")
    code, out, _ = command("upload", "x", *places, "--json")
    assert (code, json.loads(out)["finished"], json.loads(out)["step"]) == (0, False, 4)
    assert "part" not in [model.name for model in open_client(database).search_registered_models()]
    report = run(experiment, options, QUIET)
    assert report.tracking_run == run_id
    assert_whole(database, run_id, tmp_path / "runs/x")


def test_without_registering_the_data_are_not_needed(
    make_experiment: MakeExperiment,
    tiny_store: Path,
    options: Options,
    again: Callable[..., Any],
    tmp_path: Path,
    database: str,
) -> None:
    (tmp_path / "copy.arrow").write_bytes(tiny_store.read_bytes())
    experiment = make_experiment(
        name="no-data", source={"kind": "class_store", "path": str(tmp_path / "copy.arrow")}, num_steps=2
    )
    run(experiment, options, QUIET)
    (tmp_path / "copy.arrow").unlink()
    other = f"sqlite:///{tmp_path}/other.db"
    with pytest.raises(InputError, match=r"copy\.arrow: no such class store"):
        again(tracking=other)
    assert not (tmp_path / "other.db").exists()
    report = again(tracking=other, register=False)
    assert report.version is None
    assert_whole(other, report.tracking_run, tmp_path / "runs/x")


def test_one_process_a_run(
    make_experiment: MakeExperiment, options: Options, again: Callable[..., Any], tmp_path: Path
) -> None:
    experiment = make_experiment(name="held")
    with pytest.raises(RunStopped):
        run(experiment, options, QUIET, should_stop=lambda: True)
    before = sorted(path for path in tmp_path.rglob("*"))
    with Run("x", Storage(str(tmp_path / "runs/x"))).held():
        for start in (lambda: run(experiment, options, QUIET), again):
            with pytest.raises(InputError, match=r"runs/x is in use by process \d+ on host \S+ since 20\d\d-.* UTC"):
                start()
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert run(experiment, options, QUIET).result.num_steps == 6


def test_a_run_that_another_process_finished_meanwhile_is_shown(
    make_experiment: MakeExperiment, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metaray.api import train as module

    experiment, original = make_experiment(name="meanwhile"), module._checked

    def slow(*arguments: Any) -> Any:
        found = original(*arguments)
        monkeypatch.setattr(module, "_checked", original)
        run(experiment, options, QUIET)
        monkeypatch.setattr(InProcess, "train", lambda *arguments: pytest.fail("trained twice"))
        return found

    monkeypatch.setattr(module, "_checked", slow)
    assert run(experiment, options, QUIET).version is not None


def test_a_failed_run_says_how_to_go_on(
    make_experiment: MakeExperiment, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, stop = make_experiment(name="fails"), list[int]()
    with pytest.raises(RunStopped):
        run(experiment, options, Ear(3, lambda: stop.append(1)), should_stop=lambda: bool(stop))

    def fail(*arguments: Any, **changes: Any) -> Any:
        raise RunFailed("gave up.")

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "train", fail)
        expected = r"^gave up; --run x goes on from the newest checkpoint, that of step 4$"
        with pytest.raises(RunFailed, match=expected):
            run(experiment, options, QUIET)


def test_a_refusal_after_training(
    make_experiment: MakeExperiment,
    options: Options,
    again: Callable[..., Any],
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: Any, **changes: Any) -> Any:
        raise InputError("'bad' can't name a registered model")

    with monkeypatch.context() as patch:
        patch.setattr("metaray.tracking.run_upload.publish", refuse)
        with pytest.raises(
            NotUploaded, match="but could not be uploaded: 'bad' can't name a registered model"
        ) as caught:
            run(make_experiment(name="refused"), options, QUIET)
    run_id = caught.value.report.tracking_run
    assert_whole(database, run_id, tmp_path / "runs/x", "FAILED")
    assert again().version is not None
    assert_whole(database, run_id, tmp_path / "runs/x")


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # uvicorn, which MLflow starts by name, lies beside this Python.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    found = Server(tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.mark.slow
def test_a_real_server_is_killed_while_a_run_trains_and_started_again(
    make_experiment: MakeExperiment, real: Server, tmp_path: Path
) -> None:
    experiment = make_experiment(name="killed", num_steps=200)

    def start() -> None:
        time.sleep(4)
        real.start()

    starting = threading.Thread(target=start)

    class Killer(Ear):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if event.kind == "step":
                time.sleep(0.1)
            if event.kind == "step" and event.step == 40:
                real.kill()
                starting.start()
            if event.kind == "step" and event.step == 130:
                starting.join()

    ear = Killer()
    options: Options = {"run": "x", "storage": str(tmp_path / "runs"), "tracking_uri": real.uri}
    report = run(experiment, options, ear)
    assert [note for note in ear.notes if "takes no metrics" in note and "Connection refused" in note]
    assert "MLflow takes metrics again" in ear.notes
    assert_whole(real.uri, report.tracking_run, tmp_path / "runs/x")
    assert report.version is not None
    assert run(experiment, options, QUIET).version == report.version
    assert_whole(real.uri, report.tracking_run, tmp_path / "runs/x")


@pytest.mark.slow
def test_a_real_server_that_stays_away_and_an_upload(
    make_experiment: MakeExperiment, real: Server, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaray.api.train.AWAY_WITHIN_S", 5.0)
    experiment = make_experiment(name="gone", num_steps=60)
    options: Options = {"run": "x", "storage": str(tmp_path / "runs"), "tracking_uri": real.uri}
    with pytest.raises(NotUploaded, match="Connection refused") as caught:
        run(experiment, options, Ear(10, real.kill))
    typed = shlex.split(str(caught.value).partition("once that is mended: ")[2])
    assert command(*typed[1:]).code == 2
    real.start()
    for _ in range(2):
        code, out, err = command(*typed[1:], "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["parameters_sha256"] == caught.value.report.result.parameters_sha256
        assert_whole(real.uri, json.loads(out)["tracking_run"], tmp_path / "runs/x")
    assert versions(real.uri, "gone", json.loads(out)["tracking_run"]) == [1]
