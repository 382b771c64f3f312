"""A run's way to MLflow where attempts break off, with an MLflow that is a list."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from metaray.experiment.experiment import Experiment
from metaray.records.estimate import Estimate
from metaray.records.journal import Journal, Metric
from metaray.records.result import RESULT, Result, Rival
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tracking import run_upload as module
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.report import NotUploaded
from metaray.tracking.run_upload import Destination, deliver
from metaray.tracking.server import MlflowServer, TrackingAway

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
    baselines={"nearest_neighbor": Rival(ESTIMATE)},
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
        server = self

        def create(
            cls: type[MlflowRun], at: MlflowServer, experiment: str, name: str, params: object, tags: Mapping[str, str]
        ) -> MlflowRun:
            server.answer("create")
            run_id = f"{name}-{len(server.runs)}"
            server.runs[run_id] = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
            return MlflowRun(at, run_id)

        def finish(run: MlflowRun, status: str = "FINISHED") -> None:
            server.answer("finish")
            server.ended.append((run.id, status))

        def publish(*arguments: Any, **options: Any) -> tuple[None, None]:
            server.answer("publish")
            return None, None

        patch.setattr(MlflowServer, "prepare", lambda at: None)
        patch.setattr(MlflowRun, "create", classmethod(create))
        patch.setattr(MlflowRun, "is_there", property(lambda run: run.id in server.runs))
        patch.setattr(MlflowRun, "log_params", lambda run, params: server.answer("log_params"))
        patch.setattr(MlflowRun, "log_metrics", lambda run, metrics: server.answer("log_metrics"))
        patch.setattr(MlflowRun, "log_text", lambda run, text, name: None)
        patch.setattr(MlflowRun, "set_tags", lambda run, tags: None)
        for told in ("log_data", "open_in_training_view"):
            patch.setattr(f"metaray.tracking.mlflow_tracker.{told}", lambda *arguments: None)
        patch.setattr(MlflowRun, "finish", finish)
        patch.setattr(module, "publish", publish)

    def answer(self, name: str) -> None:
        if self.away.get(name, 0) > 0:
            self.away[name] -= 1
            raise TrackingAway(f"no answer to {name}")


@pytest.fixture
def trained(tmp_path: Path) -> Run:
    """A run with a result, which MLflow has never heard of."""
    storage = Storage(str(tmp_path / "x"))
    storage.write(RESULT, RESULT_OF_IT.to_json().encode())
    journal = Journal(storage)
    journal.append([Metric("train/loss", 0.5, 1, 1000)])
    journal.flush(now=True)
    return Run("x", storage)


@pytest.fixture
def to(tmp_path: Path) -> Destination:
    return Destination(str(tmp_path), MlflowServer(URI))


@pytest.mark.parametrize("breaks", ["log_params", "log_metrics", "publish", "finish"])
def test_attempts_that_break_off_make_one_run(
    breaks: str, trained: Run, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, **{breaks: 2})
    report = deliver(make_experiment(), trained, to, waits=(0.0, 0.0, 0.0))
    assert list(server.runs) == ["x-0"] == [report.tracking_run] and server.ended == [("x-0", "FINISHED")]
    assert json.loads(trained.storage.read("run.json"))["tracking_run"] == "x-0" and report.result == RESULT_OF_IT


def test_a_run_that_is_elsewhere_gets_one_new_one(
    trained: Run, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment()
    trained.begin(experiment, tags={"git.commit": "of the training"}, tracking_run="elsewhere")
    server = Server(monkeypatch, log_params=2)
    report = deliver(experiment, trained, to, waits=(0.0, 0.0))
    assert server.runs == {"x-0": {"git.commit": "of the training"}} and report.tracking_run == "x-0"


def test_a_run_that_was_not_uploaded_is_named_and_goes_on_from_there(
    trained: Run, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, log_params=3)
    with pytest.raises(NotUploaded, match="could not be uploaded: no answer to log_params. This uploads it") as caught:
        deliver(make_experiment(), trained, to, waits=(0.0, 0.0))
    assert caught.value.report.tracking_run == "x-0" and server.ended == []
    assert deliver(make_experiment(), trained, to, waits=()).tracking_run == "x-0"
    assert list(server.runs) == ["x-0"]


def test_an_interrupt_ends_the_run_that_the_attempt_made(
    trained: Run, to: Destination, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver(make_experiment(), trained, to, waits=())
    assert server.ended == [("x-0", "KILLED")]


def test_passwords_are_not_in_the_command(
    trained: Run, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server(monkeypatch, create=1)
    to = Destination("s3://KEY:SECRET@bucket/runs", MlflowServer("https://TOKEN@host"))
    with pytest.raises(NotUploaded) as caught:
        deliver(make_experiment(), trained, to, waits=())
    assert "SECRET" not in str(caught.value) and "TOKEN" not in str(caught.value)
