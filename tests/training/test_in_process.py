"""Training in process; test_session.py has the run itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.optimizers import CustomOptimizer, Group, OuterOptimizer
from metaray.records.events import Event, Listener
from metaray.records.storage import Storage
from metaray.training.checks.preflight import preflight
from tests.optimizers import own
from tests.training.whole_runs import Memory, train_in_process, train_part_in_process


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
