"""A run's way to MLflow where attempts break off, with an MLflow that is a list."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Experiment
from metaray.records.estimate import Estimate
from metaray.records.result import RESULT, Result
from metaray.records.run_folder import RunFolder, record_run
from metaray.records.storage import Storage
from metaray.tracking import run_upload as module
from metaray.tracking.mlflow_tracker import TrackingAway
from metaray.tracking.run_upload import Destination, NotUploaded, deliver

MakeExperiment = Callable[..., Experiment]
ESTIMATE = Estimate(0.5, 0.1, 10)
RESULT_OF_IT = Result(
    num_steps=3,
    best_step=2,
    meta_val=ESTIMATE,
    meta_val_scores=(0.25,),
    meta_test=ESTIMATE,
    before_adaptation=None,
    before_training=ESTIMATE,
    nearest_neighbor=ESTIMATE,
    parameters_sha256="ab",
    protocol="5-way",
    seconds=1.5,
    wait_share=0.01,
    episodes_per_s=100.0,
)
URI = "http://host:5000"


class Server:
    """What is asked of MLflow; `away` says how often each kind of call fails before it works."""

    def __init__(self, patch: pytest.MonkeyPatch, **away: int) -> None:
        self.runs: dict[str, Mapping[str, str]] = {}
        self.ended: list[tuple[str, str]] = []
        self.away = away
        for name in ("prepare", "create_run", "is_there", "log_params", "log_metrics", "publish", "finish_run"):
            patch.setattr(module, name, self._guarded(name, getattr(self, f"_{name}")))
        patch.setattr(module, "MlflowTracker", self._tracker)

    def _guarded(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.away.get(name, 0) > 0:
                self.away[name] -= 1
                raise TrackingAway(f"no answer to {name}")
            return act(*arguments, **options)

        return call

    def _prepare(self, uri: str) -> None: ...

    def _create_run(
        self, uri: str, experiment: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        run_id = f"{name}-{len(self.runs)}"
        self.runs[run_id] = tags
        return run_id

    def _is_there(self, uri: str, run_id: str) -> bool:
        return run_id in self.runs

    def _log_params(self, uri: str, run_id: str, params: Mapping[str, str]) -> None: ...

    def _log_metrics(self, uri: str, run_id: str, metrics: object) -> None: ...

    def _publish(self, *arguments: Any, **options: Any) -> tuple[None, None]:
        return None, None

    def _finish_run(self, uri: str, run_id: str, status: str = "FINISHED") -> None:
        self.ended.append((run_id, status))

    def _tracker(self, uri: str, run_id: str) -> Any:
        class Tracker:
            def log_text(self, text: str, name: str) -> None: ...

        return Tracker()


@pytest.fixture
def trained(tmp_path: Path) -> RunFolder:
    """A run with a result, which MLflow has never heard of."""
    storage = Storage(str(tmp_path / "x"))
    storage.write(RESULT, RESULT_OF_IT.to_json().encode())
    return RunFolder("x", storage, result=RESULT_OF_IT)


@pytest.fixture
def to(tmp_path: Path) -> Destination:
    return Destination(str(tmp_path), URI)


@pytest.mark.parametrize("breaks", ["log_params", "log_metrics", "publish", "finish_run"])
def test_attempts_that_break_off_make_one_run(
    breaks: str, trained: RunFolder, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, **{breaks: 2})
    report = deliver(make_experiment(), trained, to, waits=(0.0, 0.0, 0.0))
    assert list(server.runs) == ["x-0"] == [report.tracking_run] and server.ended == [("x-0", "FINISHED")]
    assert json.loads(trained.storage.read("run.json"))["tracking_run"] == "x-0" and report.result == RESULT_OF_IT


def test_a_run_that_is_elsewhere_gets_one_new_one(
    trained: RunFolder, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment()
    record_run(trained, experiment, "elsewhere", {"git.commit": "of the training"})
    server = Server(monkeypatch, log_params=2)
    report = deliver(experiment, trained.reread(), to, waits=(0.0, 0.0))
    assert server.runs == {"x-0": {"git.commit": "of the training"}} and report.tracking_run == "x-0"


def test_a_run_that_was_not_uploaded_is_named_and_goes_on_from_there(
    trained: RunFolder, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, log_params=3)
    with pytest.raises(NotUploaded, match="could not be uploaded: no answer to log_params. This uploads it") as caught:
        deliver(make_experiment(), trained, to, waits=(0.0, 0.0))
    assert caught.value.report.tracking_run == "x-0" and server.ended == []
    assert deliver(make_experiment(), trained.reread(), to, waits=()).tracking_run == "x-0"
    assert list(server.runs) == ["x-0"]


def test_an_interrupt_ends_the_run_that_the_attempt_made(
    trained: RunFolder, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver(make_experiment(), trained, to, waits=())
    assert server.ended == [("x-0", "KILLED")]


def test_passwords_are_not_in_the_command(
    trained: RunFolder, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server(monkeypatch, create_run=1)
    to = Destination("s3://KEY:SECRET@bucket/runs", "https://TOKEN@host")
    with pytest.raises(NotUploaded) as caught:
        deliver(make_experiment(), trained, to, waits=())
    assert "SECRET" not in str(caught.value) and "TOKEN" not in str(caught.value)
