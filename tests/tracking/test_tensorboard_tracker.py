"""Runs for TensorBoard, read back as it reads them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from metaray.api.train import Report, train
from metaray.api.upload import upload
from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.tracking.report import NotUploaded
from metaray.tracking.server import MlflowServer

MakeExperiment = Callable[..., Experiment]


def events(folder: Path) -> Iterator[Event]:
    """All events of a run, by TFRecord's own format: length, its checksum, data, their checksum."""
    for path in sorted(folder.glob("tensorboard/events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            body = data[12 : 12 + length]
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(body)
            yield Event.FromString(body)
            data = data[16 + length :]


def scalars(folder: Path) -> list[tuple[str, float, int, int]]:
    return [
        (value.tag, value.simple_value, event.step, round(event.wall_time * 1000))
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def tags(folder: Path) -> set[str]:
    return {value.tag.partition("/text_summary")[0] for event in events(folder) for value in event.summary.value}


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Report]:
    def started(experiment: Experiment, tracker: Any = "tensorboard", **changes: Any) -> Report:
        storage = str(tmp_path / "runs")
        return train(experiment, run="x", storage=storage, tracker=tracker, progress=False, **changes)

    return started


def test_it_has_what_the_journal_has_once(
    make_experiment: MakeExperiment, start: Callable[..., Report], tmp_path: Path
) -> None:
    report = start(make_experiment())
    entries = report.run.metrics
    found = scalars(tmp_path / "runs/x")
    assert sorted((key, step, time) for key, _, step, time in found) == sorted(
        (entry.key, entry.step, entry.time_ms) for entry in entries
    )
    assert {(key, step): value for key, value, step, _ in found} == pytest.approx(
        {(entry.key, entry.step): entry.value for entry in entries}, rel=1e-6
    )
    assert {"learning_curve", "result", "experiment", "ending"} <= tags(tmp_path / "runs/x")
    assert report.version is None and report.tracked is None


def test_a_run_that_goes_on_has_each_metric_once(
    make_experiment: MakeExperiment, start: Callable[..., Report], tmp_path: Path
) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(RunStopped):
        start(make_experiment(), should_stop=stop)
    report = start(make_experiment())
    steps = [step for key, _, step, _ in scalars(tmp_path / "runs/x") if key == "train/loss"]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6] and report.result.num_steps == 6


def test_both_at_once(
    make_experiment: MakeExperiment, start: Callable[..., Report], database: str, tmp_path: Path
) -> None:
    report = start(make_experiment(name="both-trackers"), ["mlflow", "tensorboard"], tracking_uri=database)
    assert report.version is not None and report.tracked is not None
    assert scalars(tmp_path / "runs/x")


def test_object_stores_are_refused_before_anything_starts(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match="needs a folder as --storage, not 'mock://x/tiny-"):
        train(make_experiment(), storage="mock://x", tracker="tensorboard", progress=False)


def test_where_one_record_cannot_be_opened_the_other_is_closed(
    make_experiment: MakeExperiment, start: Callable[..., Report], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise InputError("no room for event files")

    monkeypatch.setattr("metaray.tracking.tensorboard_tracker.TensorBoardTracker.begin", broken)
    with pytest.raises(InputError, match="no room for event files"):
        start(make_experiment(name="half-open"), ["mlflow", "tensorboard"], tracking_uri=database)
    client = MlflowServer(database).client
    (found,) = client.search_runs([client.get_experiment_by_name("half-open").experiment_id])
    assert found.info.status == "FAILED"


def test_what_one_tracker_does_not_take_the_others_get(
    make_experiment: MakeExperiment, start: Callable[..., Report], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("metaray.tracking.tensorboard_tracker.TensorBoardTracker.log_file", full)
    told = r"run 'x' is trained and complete in .*, but TensorBoard does not take all of it: No space left"
    with pytest.raises(NotUploaded, match=told) as caught:
        start(make_experiment(name="one-of-two"), ["tensorboard", "mlflow"], tracking_uri=database)
    report = caught.value.report
    assert report.version is not None and report.tracked is not None
    assert report.tracked.status == "FINISHED"


def test_a_run_without_trackers_is_registered_later(
    make_experiment: MakeExperiment, start: Callable[..., Report], database: str, tmp_path: Path
) -> None:
    first = start(make_experiment(name="later"), "none")
    assert first.tracking_run is None and first.run.tracking_run is None
    done = upload("x", storage=str(tmp_path / "runs"), tracking=database, register=True)
    assert isinstance(done, Report) and done.version is not None and done.tracked is not None
    found = done.tracked.server.client.get_run(done.tracked.id)
    assert found.data.metrics["test/accuracy"] == first.result.meta_test.mean
    assert found.data.tags["command"] == first.run.record.tags["command"]


def test_without_mlflow_a_run_needs_none(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Where it cannot be imported; the learner is in the run's folder."""
    (tmp_path / "tiny.json").write_text(make_experiment().to_json())
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from metaray.cli import main\n"
        f"main(['train', {str(tmp_path / 'tiny.json')!r}, '--tracker', sys.argv[1], '--run', 'x', "
        f"'--storage', {str(tmp_path / 'runs')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code, "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"learner: {tmp_path}/runs/x/learner" in done.stdout and "registered" not in done.stdout
    assert (tmp_path / "runs/x/learner/learner.json").exists()
    done = subprocess.run([sys.executable, "-c", code, "mlflow"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
