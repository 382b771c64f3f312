"""A local MLflow takes seconds, for which no first step waits; nothing of the run is lost by that."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray import train
from metaray.errors import InputError, RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.events import Fanout
from metaray.records.journal import read_journal
from metaray.records.storage import Storage
from metaray.tracking.client import open_client
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.report import NotUploaded
from metaray.tracking.server import MlflowServer
from tests.training.whole_runs import AtStep

MakeExperiment = Callable[..., Experiment]
SCRIPT = """
import sys
import metaray
from metaray.experiment.experiment import Experiment
from metaray.records.events import Listener

class Ear(Listener):
    def on_event(self, event):
        if event.kind == "step" and event.step == 1:
            print("first step:", sorted({"mlflow", "ray", "sqlalchemy", "pandas"} & set(sys.modules)))
    def close(self):
        pass

experiment = Experiment.from_json(open(sys.argv[1]).read())
report = metaray.train(experiment, progress=Ear(), run="x", register=False)
print("MLflow run:", report.tracking_run)
"""


def test_the_first_step_waits_for_no_mlflow(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(make_experiment(name="waits").to_json())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "x.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "first step: []" in done.stdout.splitlines()
    assert_whole(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "runs/x")


def assert_whole(uri: str, folder: Path) -> None:
    """MLflow has exactly what the journal has."""
    client = open_client(uri)
    experiment = client.get_experiment_by_name("waits")
    (run,) = client.search_runs([experiment.experiment_id])
    journal = read_journal(Storage(str(folder)))
    assert journal and run.info.status == "FINISHED" and run.data.metrics.keys() == {entry.key for entry in journal}
    for key in run.data.metrics:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, key)]
        assert steps == [entry.step for entry in journal if entry.key == key]


@pytest.fixture
def options(database: str, tmp_path: Path) -> dict[str, Any]:
    return {"run": "x", "storage": str(tmp_path / "runs"), "tracking_uri": database, "register": False}


def test_a_deleted_experiment_is_refused_before_the_first_step(
    make_experiment: MakeExperiment, options: dict[str, Any], database: str, tmp_path: Path
) -> None:
    client = open_client(database)
    client.delete_experiment(client.create_experiment("deleted-before"))
    ear = AtStep()
    with pytest.raises(InputError, match="experiment 'deleted-before' was deleted"):
        train(make_experiment(name="deleted-before"), progress=ear, **options)
    assert not ear.of("step") and not (tmp_path / "runs/x/run.json").exists()


def test_what_fails_when_mlflow_is_opened_costs_no_training(
    make_experiment: MakeExperiment, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    experiment = make_experiment(name="opened-late", num_steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowServer, "prepare", full)
        with pytest.raises((NotUploaded, OSError), match="No space left"):
            train(experiment, progress=Fanout([]), **options)
    assert (tmp_path / "runs/x/result.json").exists()
    report = train(experiment, progress=Fanout([]), **options)
    assert report.tracking_run is not None


def test_a_run_that_fails_at_once_is_failed_in_mlflow(
    make_experiment: MakeExperiment, options: dict[str, Any], database: str
) -> None:
    def fail() -> None:
        raise RunFailed("the sky fell")

    with pytest.raises(RunFailed, match="the sky fell"):
        train(make_experiment(name="fails-at-once"), progress=AtStep(step_1=fail), **options)
    client = open_client(database)
    experiment = client.get_experiment_by_name("fails-at-once")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def test_two_that_open_a_run_make_one(
    make_experiment: MakeExperiment, options: dict[str, Any], database: str, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from metaray.records.run import Run
    from metaray.tracking.mlflow_tracker import open_mlflow_run

    experiment = make_experiment(name="opened-twice")
    run = Run("x", Storage(str(tmp_path / "runs/x")))
    run.begin(experiment, tags={"command": "test"})
    server = MlflowServer.of(database)
    with ThreadPoolExecutor() as pool:
        found = {made.id for made in pool.map(lambda _: open_mlflow_run(server, experiment, run), range(4))}
    assert len(found) == 1 == len(open_client(database).search_runs([experiment_id(database, "opened-twice")]))


def experiment_id(uri: str, name: str) -> str:
    return str(open_client(uri).get_experiment_by_name(name).experiment_id)


def test_what_was_put_off_is_done_once(make_experiment: MakeExperiment, database: str, tmp_path: Path) -> None:
    from metaray.records.run import Run

    experiment = make_experiment(name="put-off")
    run = Run("x", Storage(str(tmp_path / "runs/x")))
    tracker = MlflowTracker.at(database)
    assert tracker.is_sure(experiment, run)
    tracker.begin(experiment, run, lambda text: None)
    assert run.tracking_run is None
    tracker.open()
    first = run.tracking_run
    assert first is not None and tracker.place == first
    tracker.open()
    assert run.tracking_run == first
    assert not tracker.is_sure(experiment, run)  # one that goes on is marked as running from its start
