"""Training in process; test_session.py has the run itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.episodes.augmentation import Augmentation
from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.optimizers import CustomOptimizer, Group, OuterOptimizer
from metaray.records.events import Event, Listener
from metaray.records.result import read_result
from metaray.records.storage import Storage
from metaray.training.checks.preflight import preflight
from metaray.training.in_process import InProcess
from metaray.training.place import Extent
from tests.optimizers import own
from tests.training.whole_runs import Memory, comparable, train_in_process, train_part_in_process


class Broken(Listener):
    closed = False

    def on_event(self, event: Event) -> None:
        raise OSError("nobody reads this pipe any more")

    def close(self) -> None:
        self.closed = True


def test_listeners_are_closed_whatever_happens(make_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    listener = Broken()
    with pytest.raises(OSError, match="nobody reads"):
        train_in_process(make_experiment(), Storage(str(tmp_path)), listener, device="cpu")
    assert listener.closed


def test_a_wrong_device_is_found_first(make_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        train_in_process(make_experiment(), Storage(str(tmp_path)), Broken(), device="tpu")
    assert list(tmp_path.iterdir()) == []


def test_data_that_live_on_the_device_lead_to_the_same_bits(
    make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    source = make_experiment().source.model_copy(update={"rotations": True})
    experiment = make_experiment(source=source, augmentation=Augmentation(crop_padding=2), chunk_size=3)
    results, notes = {}, {}
    for data_on in ("host", "device"):
        storage, memory = Storage(str(tmp_path / data_on)), Memory()
        place = InProcess("cpu", data_on)
        with pytest.raises(RunStopped):
            place.train(experiment, storage, memory, Extent(until=2))
        place.train(experiment, storage, memory)
        results[data_on], notes[data_on] = comparable(read_result(storage)), memory.notes()
    assert results["device"] == results["host"]
    assert "live on the device" in notes["device"] and "live on the device" not in notes["host"]


@pytest.mark.parametrize(
    "optimizer",
    [
        own.Signum(outer_lr=0.01, schedule=own.Polynomial(power=2), warmup_steps=2, clip_norm=0.1),
        CustomOptimizer(path=f"{own.__name__}:Nested", outer_lr=0.05, groups={"head.*": Group(outer_lr=0.5)}),
        CustomOptimizer(path="torch.optim:NAdam", outer_lr=0.01, weight_decay=0.1),
    ],
    ids=lambda one: one.kind,
)
def test_a_run_with_an_optimizer_of_ones_own_goes_on_to_the_same_parameters(
    optimizer: OuterOptimizer, make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment = make_experiment(optimizer=optimizer)
    preflight(experiment)
    whole = train_in_process(experiment, Storage(str(tmp_path / "whole")), Memory(), device="cpu")
    parts = Storage(str(tmp_path / "parts"))
    for until in (1, 4):
        with pytest.raises(RunStopped):
            train_part_in_process(experiment, parts, Memory(), device="cpu", until=until)
    assert train_in_process(experiment, parts, Memory(), device="cpu").parameters_sha256 == whole.parameters_sha256
    adam = train_in_process(make_experiment(), Storage(str(tmp_path / "adam")), Memory(), device="cpu")
    assert adam.parameters_sha256 != whole.parameters_sha256
