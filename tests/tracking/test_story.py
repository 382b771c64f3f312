"""What MLflow says of a run, a search and a version, read back from a real database."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from metaray.api.train import Report
from metaray.experiment.experiment import Experiment
from metaray.tracking.mlflow_tracker import MlflowTracker
from metaray.tracking.server import MlflowServer
from metaray.tracking.story import _source_name
from tests.patience import wait_until

MakeExperiment = Callable[..., Experiment]


@pytest.fixture(scope="module")
def told(make_experiment: MakeExperiment, database: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    from metaray.api.train import train

    storage = str(tmp_path_factory.mktemp("story") / "runs")
    return train(make_experiment(name="story"), storage=storage, tracking_uri=database, progress=False)


def mlflow_run(report: Report) -> Any:
    assert report.tracked is not None
    return report.tracked.server.client.get_run(report.tracked.id)


def test_what_it_was_trained_for_is_among_its_metrics(told: Report) -> None:
    metrics, result = mlflow_run(told).data.metrics, told.result
    assert metrics["test/accuracy"] == result.meta_test.mean
    assert metrics["test/accuracy_half_width"] == result.meta_test.half_width
    assert result.before_adaptation is not None and result.nearest_neighbor is not None
    assert metrics["test/accuracy_before_adaptation"] == result.before_adaptation.mean
    assert metrics["test/accuracy_before_training"] == result.before_training.mean
    assert metrics["test/accuracy_nearest_neighbor"] == result.nearest_neighbor.mean
    assert metrics["best/val_accuracy"] == result.meta_val.mean and metrics["best/step"] == result.best_step
    assert metrics["speed/episodes_per_s"] == result.episodes_per_s > 0
    assert {"speed/wait_share", "speed/seconds"} <= metrics.keys()


def test_its_data_are_a_data_set_once(told: Report, make_experiment: MakeExperiment) -> None:
    source = make_experiment().source
    MlflowTracker.opened(told.tracked.server, make_experiment(name="story"), told.run)  # type: ignore[union-attr]
    (found,) = mlflow_run(told).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("tiny", source.fingerprint[:32])
    assert json.loads(found.dataset.profile) == {
        "fingerprint": source.fingerprint,
        "classes of meta-train": 12,
        "classes of meta-val": 8,
        "classes of meta-test": 8,
    }
    assert {tag.value for tag in found.tags} == {"meta-train, meta-val, meta-test"}


def test_mlflows_own_columns_and_view(told: Report) -> None:
    run = mlflow_run(told)
    tags = run.data.tags
    assert tags["mlflow.user"] and tags["mlflow.source.name"] and tags["mlflow.source.type"] == "LOCAL"
    assert tags.get("mlflow.source.git.commit") == tags.get("git.commit")
    assert told.tracked is not None
    view = told.tracked.server.client.get_experiment(run.info.experiment_id).tags
    assert view["mlflow.experimentKind"] == "custom_model_development"
    assert view["mlflow.experiment.primaryMetric.name"] == "test/accuracy"
    assert view["mlflow.experiment.primaryMetric.greaterIsBetter"] == "true"
    assert not any(key.startswith("mlflow.") for key in told.run.record.tags), "the record speaks of the run alone"


def test_the_descriptions_say_what_it_does_how_well_against_what_and_how_to_use_it(told: Report) -> None:
    assert told.tracked is not None and told.version is not None
    note = mlflow_run(told).data.tags["mlflow.note.content"]
    version = told.tracked.server.client.get_model_version("story", str(told.version.version))
    for text in (note, version.description):
        assert str(told.result.meta_test) in text and str(told.result.nearest_neighbor) in text
        assert told.result.protocol in text and f"path=learning_curve.png&run_uuid={told.tracked.id}" in text
    assert f'metaray.load("models:/story/{told.version.version}").adapt(x, y)' in version.description
    assert "mlflow.pyfunc.load_model" in version.description
    assert "Answers depend on the other queries" in version.description, "it is transductive"


def test_what_somebody_chose_for_the_experiment_stays(
    make_experiment: MakeExperiment, train: Callable[..., Report], database: str
) -> None:
    client = MlflowServer(database).client
    made = client.create_experiment("chosen", tags={"mlflow.experimentKind": "genai_development"})
    train(make_experiment(name="chosen", num_steps=0), register=False)
    assert client.get_experiment(made).tags["mlflow.experimentKind"] == "genai_development"


def test_system_metrics_where_mlflow_is_asked_for_them(
    make_experiment: MakeExperiment, database: str, train: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")

    def slow() -> bool:
        time.sleep(0.1)
        return False

    report = train(make_experiment(name="measured"), register=False, should_stop=slow)
    assert not [thread for thread in threading.enumerate() if "SystemMetrics" in thread.name]
    wait_until(lambda: [key for key in mlflow_run(report).data.metrics if key.startswith("system/")])
    assert mlflow_run(report).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("metaray train jobs/glyphs.py:demo --workers 2", "jobs/glyphs.py:demo"),
        ("metaray train best.json", "best.json"),
        ("notebook", "notebook"),
    ],
)
def test_the_source_is_the_recipe(command: str, name: str) -> None:
    assert _source_name(command) == name
