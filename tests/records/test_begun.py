"""A run keeps the chunks that it was begun with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.experiment.chunking import chunk_size_on
from metaray.experiment.experiment import Experiment
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.begun import as_begun
from metaray.records.run import RECORD_FILE, Run
from metaray.records.storage import Storage

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def run(tmp_path: Path, make_experiment: MakeExperiment) -> Run:
    found = Run.of(Storage(str(tmp_path)), make_experiment(), "run")
    found.begin(make_experiment(), tags={})
    return found


def without_sizes(run: Run) -> None:
    """As it was before they were written down."""
    record = unsealed_json(run.storage.read(RECORD_FILE), where=RECORD_FILE)
    del record["chunk_sizes"]
    run.storage.write(RECORD_FILE, sealed_json(record))


def test_what_is_begun_now_is_as_the_experiment_says(run: Run, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment()
    assert run.record.chunk_sizes == {"cpu": 1, "cuda": 4}
    for device in ("cpu", "cuda"):
        assert as_begun(experiment, run.storage, device) == experiment
        assert as_begun(experiment, Storage(str(tmp_path / "none")), device) == experiment


def test_what_was_begun_before_keeps_its_quarters_on_a_gpu(run: Run, make_experiment: MakeExperiment) -> None:
    without_sizes(run)
    assert run.record.chunk_sizes == {}
    experiment = make_experiment()
    assert as_begun(experiment, run.storage, "cpu") == experiment
    begun = as_begun(experiment, run.storage, "cuda")
    assert chunk_size_on(begun, "cuda") == 1 and Experiment.from_json(begun.to_json()) == begun
    run.begin(experiment, tags={})
    run.begin_anew(make_experiment(num_steps=9), {})
    assert run.record.chunk_sizes == {}, "nobody knows better later"


def test_a_recorded_chunk_stands_whatever_is_usual_now(run: Run, make_experiment: MakeExperiment) -> None:
    record = run.record.model_dump(mode="json") | {"chunk_sizes": {"cpu": 2, "cuda": 3}}
    run.storage.write(RECORD_FILE, sealed_json(record))
    for device, size in {"cpu": 2, "cuda": 3}.items():
        assert chunk_size_on(as_begun(make_experiment(), run.storage, device), device) == size


def test_a_run_that_starts_from_anothers_end_goes_on_in_its_chunks(
    run: Run, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    without_sizes(run)
    later = Run("later", Storage(str(tmp_path)).child("later"))
    later.begin(make_experiment(), tags={}, origin=run.record)
    assert later.record.chunk_sizes == {}
