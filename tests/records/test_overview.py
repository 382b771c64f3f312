"""Runs at a glance, in every state."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.events import Fanout
from metaray.records.failure import write_failure
from metaray.records.journal import Journal, Metric
from metaray.records.overview import Score, is_run, look
from metaray.records.run import Run, held
from metaray.records.storage import Storage
from tests.training.whole_runs import train_in_process


@pytest.fixture(scope="module")
def finished(make_waves: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    root = Storage(str(tmp_path_factory.mktemp("runs")))
    experiment = make_waves()
    folder = Run.of(root, experiment, "run")
    folder.begin(experiment, tags={}, tracking_run="tracked")
    train_in_process(experiment, folder.storage, Fanout([]))
    return folder.storage.local_folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Storage:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "run")
    return Storage(str(tmp_path / "run"))


def test_a_finished_run(run: Storage, make_waves: Callable[..., Experiment]) -> None:
    seen = look(run, "mine")
    result = json.loads(run.read("result.json"))
    steps = make_waves().num_steps
    assert (seen.name, seen.kind, seen.state, seen.done, seen.planned) == ("mine", "run", "finished", steps, steps)
    assert (seen.experiment, seen.tracking_run, seen.holder, seen.why) == (make_waves().name, "tracked", "", "")
    assert seen.score == Score("meta-test", "mse", result["meta_test"]["mean"], result["meta_test"]["half_width"])
    assert time.time() - 3600 < seen.changed_s <= time.time() + 5
    assert seen.size_bytes == sum(path.stat().st_size for path in run.local_folder.rglob("*") if path.is_file())


def test_an_unfinished_run_is_where_its_newest_checkpoint_is(run: Storage) -> None:
    run.delete_file("result.json")
    seen = look(run, "run")
    progress = json.loads(max(run.local_folder.glob("checkpoints/*/progress.json")).read_text())
    assert (seen.state, seen.done) == ("unfinished", progress["step"])
    assert seen.score == Score("meta-val", "mse", progress["best_score"])
    shutil.rmtree(run.local_folder / "checkpoints")
    seen = look(run, "run")
    assert (seen.state, seen.done, seen.score) == ("unfinished", 0, None)


def test_a_run_that_runs_is_as_far_as_its_journal(run: Storage) -> None:
    run.delete_file("result.json")
    shutil.rmtree(run.local_folder / "checkpoints")
    with held(run):
        seen = look(run, "run")
        assert seen.state == "running" and seen.done == seen.planned
        assert seen.holder.startswith("process ")
        assert look(run, "run", mine=True).state == "unfinished"
    assert look(run, "run").state == "unfinished"


def test_a_failed_run_says_why_until_it_goes_on(run: Storage) -> None:
    run.delete_file("result.json")
    write_failure(run, RunFailed("it fell over\nand this is more", tracebacks="Traceback"))
    seen = look(run, "run")
    assert seen.state == "failed" and seen.why.endswith(" UTC: it fell over")
    with held(run):
        seen = look(run, "run")
        assert (seen.state, seen.why) == ("running", "")


def test_the_quality_is_found_in_older_segments(run: Storage) -> None:
    run.delete_file("result.json")
    journal = Journal(run)
    journal.append([Metric("own/metric", 1.0, 3, 0)])
    journal.flush(now=True)
    seen = look(run, "run")
    assert seen.score is not None and seen.score.quality == "mse"
    shutil.rmtree(run.local_folder / "metrics")
    seen = look(run, "run")
    assert seen.score is not None and seen.score.quality == ""


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("run.json", b"{", "not JSON"),
        ("run.json", b"{}", "experiment is missing"),
        ("result.json", b"\xff", "result.json"),
        ("result.json", b"{}", "result.json"),
    ],
)
def test_damage_is_said(run: Storage, name: str, text: bytes, why: str) -> None:
    run.write(name, text)
    seen = look(run, "run")
    assert seen.state == "damaged" and why in seen.why and "\n" not in seen.why
    assert seen.size_bytes > 0


def test_an_experiment_without_steps_is_damaged(run: Storage) -> None:
    record = unsealed_json(run.read("run.json"), where="run.json")
    record["experiment"]["num_steps"] = "six"
    run.write("run.json", sealed_json(record))
    assert look(run, "run").why == "run.json: experiment.num_steps is no whole number (got 'six')"


def test_a_lost_record_and_a_run_that_was_never_begun(run: Storage, tmp_path: Path) -> None:
    run.delete_file("run.json")
    seen = look(run, "run")
    assert (seen.state, seen.why) == ("damaged", "run.json is missing, but there is checkpoints, metrics, result.json")
    refused = Storage(str(tmp_path / "refused"))
    assert not is_run(refused)
    with held(refused):
        assert is_run(refused) and look(refused, "refused").state == "running"
    assert look(refused, "refused").state == "not begun"
    (tmp_path / "other" / "sub").mkdir(parents=True)
    assert not is_run(Storage(str(tmp_path / "other")))


def test_what_a_run_of_somebody_elses_code_is_needs_none_of_it(run: Storage) -> None:
    record = unsealed_json(run.read("run.json"), where="run.json")
    record["experiment"]["model"] = {"kind": "custom", "path": "no_such_package:Net"}
    run.write("run.json", sealed_json(record))
    assert look(run, "run").state == "finished"
