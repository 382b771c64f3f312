"""Runs in a real MLflow database."""

import math
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from metaray.errors import InputError, RunFailed
from metaray.retry import retry
from metaray.tracking import mlflow_tracker
from metaray.tracking.client import open_client
from metaray.tracking.mlflow_tracker import (
    MlflowTracker,
    TrackingAway,
    asking,
    create_run,
    finish_run,
    is_there,
    log_params,
    reopen_run,
    status_of,
)
from metaray.tracking.tracker import Metric
from tests.patience import PATIENT_S, wait_until


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in open_client(uri).get_metric_history(run_id, key)]


def test_a_run_with_many_and_long_parameters(uri: str) -> None:
    params = {f"p{i}": str(i) for i in range(250)} | {"long": "x" * 7000}
    run_id = create_run(uri, "many", "name", params, {"command": "y" * 9000})
    run = open_client(uri).get_run(run_id)
    assert run.info.run_name == "name"
    assert run.info.status == "RUNNING"
    assert len(run.data.params) == 251
    assert run.data.params["p249"] == "249"
    assert len(run.data.params["long"]) == 6000
    assert run.data.params["long"].endswith("xx... (7000 characters)")
    assert len(run.data.tags["command"]) == 8000


def test_artifacts_lie_beside_the_database(uri: str, tmp_path: Path) -> None:
    run_id = create_run(uri, "odd name: 50% & more", "name", {}, {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    tracker = MlflowTracker(uri, run_id)
    tracker.log_artifact(tmp_path / "folder", "kept")
    tracker.log_text("b", "b.txt")
    root = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "odd-name-50-more" / run_id / "artifacts"
    assert (root / "kept" / "folder" / "a.txt").read_text() == "a"
    assert (root / "b.txt").read_text() == "b"


def test_end_and_resume_a_run(uri: str, run_id: str) -> None:
    finish_run(uri, run_id, "KILLED")
    assert open_client(uri).get_run(run_id).info.status == "KILLED"
    reopen_run(uri, run_id)
    assert open_client(uri).get_run(run_id).info.status == "RUNNING"
    assert is_there(uri, run_id)
    assert not is_there(uri, "nosuch")
    open_client(uri).delete_run(run_id)
    assert not is_there(uri, run_id)


def test_the_same_parameters_again(uri: str) -> None:
    run_id = create_run(uri, "again", "name", {"a": "1", "long": "x" * 7000}, {})
    log_params(uri, run_id, {"a": "1", "long": "x" * 7000, "b": "2"})
    assert set(open_client(uri).get_run(run_id).data.params) == {"a", "b", "long"}


def test_patterns_in_keys(uri: str) -> None:
    params = {"algorithm.inner_lr.head.*": "1", "algorithm.inner_lr.head.?": "2", "groups.[ab]*": "3", "a/b-c_d.e": "4"}
    run_id = create_run(uri, "patterns", "r", params, {})
    log_params(uri, run_id, params)
    found = open_client(uri).get_run(run_id).data.params
    expected = ["algorithm.inner_lr.head.:2a:", "algorithm.inner_lr.head.:3f:", "groups.:5b:ab:5d::2a:", "a/b-c_d.e"]
    assert found == dict(zip(expected, params.values(), strict=True))


def test_deleted_experiment(uri: str) -> None:
    create_run(uri, "gone", "name", {}, {})
    client = open_client(uri)
    found = client.get_experiment_by_name("gone")
    assert found is not None
    client.delete_experiment(found.experiment_id)
    with pytest.raises(InputError, match="experiment 'gone' was deleted"):
        create_run(uri, "gone", "name", {}, {})


def test_metrics_arrive_in_batches(uri: str, run_id: str) -> None:
    tracker = MlflowTracker(uri, run_id)
    for step in range(1200):
        tracker.log([Metric("train/loss", step / 2, step, step), Metric("train/accuracy", 0.5, step, step)])
    tracker.close()
    assert history(uri, run_id, "train/loss") == [(step, step / 2) for step in range(1200)]
    assert tracker.problem is None


def test_metrics_arrive_before_the_end(uri: str, run_id: str) -> None:
    tracker = MlflowTracker(uri, run_id, flush_every_s=0.02)
    tracker.log([Metric("a", 1.0, 0, 1)])
    wait_until(lambda: history(uri, run_id, "a"))
    assert history(uri, run_id, "a") == [(0, 1.0)]
    tracker.close()


def test_the_same_metric_twice_is_stored_once(uri: str, run_id: str) -> None:
    for _ in range(2):
        tracker = MlflowTracker(uri, run_id)
        tracker.log([Metric("a", 1.0, 3, 77), Metric("b", math.nan, 3, 77)])
        tracker.close()
    assert history(uri, run_id, "a") == [(3, 1.0)]
    assert len(history(uri, run_id, "b")) == 1


def test_values_that_are_not_finite_are_gaps(uri: str, run_id: str) -> None:
    tracker = MlflowTracker(uri, run_id)
    tracker.log([Metric("a", math.nan, 0, 0), Metric("a", math.inf, 1, 1), Metric("a", 2.0, 2, 2)])
    tracker.close()
    stored = history(uri, run_id, "a")
    assert [math.isnan(value) for _, value in stored] == [True, True, False]


def more_than(uri: str, run_id: str, count: int) -> bool:
    return len(history(uri, run_id, "a")) > count


def test_a_run_is_reopened_with_its_first_metrics(uri: str, run_id: str) -> None:
    finish_run(uri, run_id, "KILLED")
    for step, (reopen, expected) in enumerate([(False, "KILLED"), (True, "RUNNING")]):
        tracker = MlflowTracker(uri, run_id, reopen=reopen, flush_every_s=0.01)
        tracker.log([Metric("a", 1.0, step, 0)])
        wait_until(partial(more_than, uri, run_id, step))
        assert status_of(uri, run_id) == expected
        tracker.close()


def test_a_run_that_ends_is_not_reopened_by_its_last_metrics(uri: str, run_id: str) -> None:
    """They arrive while, or after, somebody else marks how it ended."""
    tracker = MlflowTracker(uri, run_id, reopen=True, flush_every_s=3600)
    tracker.log([Metric("a", 1.0, 0, 0)])
    finish_run(uri, run_id, "KILLED")
    tracker.close()
    assert status_of(uri, run_id) == "KILLED" and history(uri, run_id, "a") == [(0, 1.0)]


def test_closing_twice_or_without_metrics(uri: str, run_id: str) -> None:
    tracker = MlflowTracker(uri, run_id)
    tracker.close()
    tracker.close()
    with pytest.raises(RunFailed, match="after its tracker was closed"):
        tracker.log([Metric("a", 1.0, 0, 0)])


class Absent:
    """A client whose server is away for the first `failures` calls."""

    def __init__(self, failures: float) -> None:
        self.failures, self.stored = failures, 0

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("server away")
        self.stored += len(metrics)


def test_metrics_wait_for_a_server_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Absent(failures=math.inf)
    monkeypatch.setattr(mlflow_tracker, "open_client", lambda uri: client)
    tracker = MlflowTracker("http://me:secret@away", "run", flush_every_s=0.05)
    tracker.log([Metric("a", 1.0, 0, 0)])
    wait_until(lambda: tracker.problem)
    assert tracker.problem == "MLflow at 'http://me:***@away' takes no metrics: server away"
    client.failures = 0
    wait_until(lambda: client.stored)
    tracker.log([Metric("a", 1.0, 1, 0)])
    tracker.close()
    assert client.stored == 2
    assert tracker.problem is None


def test_close_says_what_was_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_tracker, "open_client", lambda uri: Absent(failures=math.inf))
    monkeypatch.setattr(mlflow_tracker, "retry", partial(retry, sleep=lambda seconds: None))
    tracker = MlflowTracker("http://away", "run")
    tracker.log([Metric("a", 1.0, step, 0) for step in range(7)])
    with pytest.raises(RunFailed, match="7 metrics of run run could not be delivered: MLflow .* server away"):
        tracker.close()


def test_what_can_not_be_stored_at_the_end(uri: str, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="'.*missing.txt' could not be stored at 'sqlite") as caught:
        MlflowTracker(uri, run_id).log_artifact(tmp_path / "missing.txt")
    assert not isinstance(caught.value, TrackingAway), "it will not be there later either"
    with pytest.raises(RunFailed, match="the end of run nosuch could not be stored") as caught:
        finish_run(uri, "nosuch")
    assert not isinstance(caught.value, TrackingAway)


@pytest.mark.parametrize("error", [ConnectionError("refused"), TimeoutError("late"), MlflowException("HTTP 500")])
def test_a_server_that_is_away(error: Exception) -> None:
    expected = r"^MLflow could not be brought up to date at 'http://me:\*\*\*@host': "
    with pytest.raises(TrackingAway, match=expected), asking("http://me:secret@host"):
        raise error


def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Hangs:
        def log_batch(self, run_id: str, metrics: list[Any]) -> None:
            release.wait(PATIENT_S)

    monkeypatch.setattr(mlflow_tracker, "open_client", lambda uri: Hangs())
    tracker = MlflowTracker("http://hangs", "run")
    tracker.log([Metric("a", 1.0, 0, 0)])
    with pytest.raises(RunFailed, match="no answer from 'http://hangs' within 0.1 s"):
        tracker.close(within_s=0.1)
    release.set()
