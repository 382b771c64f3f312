"""Whole runs by compiled pieces: the same parameters after kills and on any number of workers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaray.errors import RunStopped
from metaray.experiment.experiment import Experiment
from metaray.models import MLP
from metaray.records.execution import Executed, read_executed
from metaray.records.storage import Storage
from metaray.training.execution.compiling import compiler_lacking, compiler_version
from tests.training.whole_runs import Memory, train_in_process, train_part_in_process

pytestmark = pytest.mark.slow


def test_a_compiled_run_that_was_stopped_ends_in_the_same_parameters(
    make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    if compiler_lacking(torch.device("cpu")) is not None:
        pytest.skip("no C++ compiler here")
    experiment = make_experiment(model=MLP(hidden=(4,), batch_norm=False), execution="compiled", num_steps=3)
    storage, memory = Storage(str(tmp_path / "whole")), Memory()
    whole = train_in_process(experiment, storage, memory, device="cpu")
    assert whole.execution == "compiled", memory.notes()
    assert read_executed(storage) == Executed(
        kind="compiled",
        compiler=compiler_version(torch.device("cpu")),
        convolutions="plain",
        data_on="host",
        most_workers=experiment.meta_batch_size,
    )
    assert "compiling" in [event.text for event in memory.events if event.kind == "phase"]
    parts = Storage(str(tmp_path / "parts"))
    with pytest.raises(RunStopped):
        train_part_in_process(experiment, parts, Memory(), device="cpu", until=1)
    assert train_in_process(experiment, parts, Memory(), device="cpu").parameters_sha256 == whole.parameters_sha256
    plain = train_in_process(
        make_experiment(model=experiment.model, num_steps=3), Storage(str(tmp_path / "plain")), Memory(), device="cpu"
    )
    assert plain.execution == "each"
    assert plain.meta_test.mean == pytest.approx(whole.meta_test.mean, abs=0.05)
