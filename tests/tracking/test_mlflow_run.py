"""Runs in a real MLflow database."""

import math
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from metaray.errors import InputError, RunFailed
from metaray.records.journal import Metric
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.server import MlflowServer, TrackingAway


def history(run: MlflowRun, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in run.server.client.get_metric_history(run.id, key)]


def test_a_run_with_many_and_long_parameters(server: MlflowServer) -> None:
    params = {f"p{i}": str(i) for i in range(250)} | {"long": "x" * 7000}
    made = MlflowRun.create(server, "many", "name", params, {"command": "y" * 9000})
    run = server.client.get_run(made.id)
    assert run.info.run_name == "name"
    assert run.info.status == "RUNNING"
    assert len(run.data.params) == 251
    assert run.data.params["p249"] == "249"
    assert len(run.data.params["long"]) == 6000
    assert run.data.params["long"].endswith("xx... (7000 characters)")
    assert len(run.data.tags["command"]) == 8000


def test_artifacts_lie_beside_the_database(server: MlflowServer, tmp_path: Path) -> None:
    run = MlflowRun.create(server, "odd name: 50% & more", "name", {}, {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    run.log_file(tmp_path / "folder", "kept")
    run.log_text("b", "b.txt")
    root = (
        Path(server.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "odd-name-50-more" / run.id / "artifacts"
    )
    assert (root / "kept" / "folder" / "a.txt").read_text() == "a"
    assert (root / "b.txt").read_text() == "b"


def test_end_and_resume_a_run(tracked: MlflowRun) -> None:
    tracked.finish("KILLED")
    assert tracked.status == "KILLED"
    tracked.reopen()
    assert tracked.status == "RUNNING"
    assert tracked.is_there
    assert not MlflowRun(tracked.server, "nosuch").is_there
    tracked.server.client.delete_run(tracked.id)
    assert not tracked.is_there


def test_the_same_parameters_again(server: MlflowServer) -> None:
    run = MlflowRun.create(server, "again", "name", {"a": "1", "long": "x" * 7000}, {})
    run.log_params({"a": "1", "long": "x" * 7000, "b": "2"})
    assert set(server.client.get_run(run.id).data.params) == {"a", "b", "long"}


def test_patterns_in_keys(server: MlflowServer) -> None:
    params = {"algorithm.inner_lr.head.*": "1", "algorithm.inner_lr.head.?": "2", "groups.[ab]*": "3", "a/b-c_d.e": "4"}
    run = MlflowRun.create(server, "patterns", "r", params, {})
    run.log_params(params)
    found = server.client.get_run(run.id).data.params
    expected = ["algorithm.inner_lr.head.:2a:", "algorithm.inner_lr.head.:3f:", "groups.:5b:ab:5d::2a:", "a/b-c_d.e"]
    assert found == dict(zip(expected, params.values(), strict=True))


def test_a_run_found_by_its_tags(server: MlflowServer) -> None:
    made = MlflowRun.create(server, "tagged", "r", {}, {"a": "1", "b": "2"})
    assert MlflowRun.tagged(server, "tagged", {"a": "1", "b": "2"}) == made
    assert MlflowRun.tagged(server, "tagged", {"a": "1", "b": "3"}) is None
    assert MlflowRun.tagged(server, "no such experiment", {"a": "1"}) is None
    made.set_tags({"b": "3"})
    assert MlflowRun.tagged(server, "tagged", {"a": "1", "b": "3"}) == made


def test_deleted_experiment(server: MlflowServer) -> None:
    MlflowRun.create(server, "gone", "name", {}, {})
    found = server.client.get_experiment_by_name("gone")
    assert found is not None
    server.client.delete_experiment(found.experiment_id)
    with pytest.raises(InputError, match="experiment 'gone' was deleted"):
        MlflowRun.create(server, "gone", "name", {}, {})


def test_metrics_in_batches(tracked: MlflowRun) -> None:
    tracked.log_metrics([Metric(key, step / 2, step, step) for step in range(1200) for key in ("a", "b")])
    assert history(tracked, "a") == [(step, step / 2) for step in range(1200)]


def test_the_same_metric_twice_is_stored_once(tracked: MlflowRun) -> None:
    for _ in range(2):
        tracked.log_metrics([Metric("a", 1.0, 3, 77), Metric("b", math.nan, 3, 77)])
    assert history(tracked, "a") == [(3, 1.0)]
    assert len(history(tracked, "b")) == 1


def test_values_that_are_not_finite_are_gaps(tracked: MlflowRun) -> None:
    tracked.log_metrics([Metric("a", math.nan, 0, 0), Metric("a", math.inf, 1, 1), Metric("a", 2.0, 2, 2)])
    assert [math.isnan(value) for _, value in history(tracked, "a")] == [True, True, False]


def test_what_can_not_be_stored_at_the_end(tracked: MlflowRun, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="'.*missing.txt' could not be stored at 'sqlite") as caught:
        tracked.log_file(tmp_path / "missing.txt")
    assert not isinstance(caught.value, TrackingAway), "it will not be there later either"
    with pytest.raises(RunFailed, match="the end of run nosuch could not be stored") as caught:
        MlflowRun(tracked.server, "nosuch").finish()
    assert not isinstance(caught.value, TrackingAway)


@pytest.mark.parametrize("error", [ConnectionError("refused"), TimeoutError("late"), MlflowException("HTTP 500")])
def test_a_server_that_is_away(error: Exception) -> None:
    expected = r"^MLflow could not be brought up to date at 'http://me:\*\*\*@host': "
    with pytest.raises(TrackingAway, match=expected), MlflowServer("http://me:secret@host").asking():
        raise error
