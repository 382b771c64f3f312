"""Training on a real local Ray cluster: the same run as in process, and how it ends when it does not go well."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from ray import cloudpickle
from safetensors.torch import load_file

from metaray.algorithms import MAML
from metaray.distributed.cluster import connect
from metaray.distributed.trainer import OnRay
from metaray.errors import Diverged, RunFailed, RunStopped
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.models import MLP
from metaray.records.events import Event, Listener
from metaray.records.execution import Executed, read_executed
from metaray.records.journal import read_journal
from metaray.records.result import Result, read_result
from metaray.records.run import LEARNER, PROFILE_TABLE
from metaray.records.storage import Storage
from metaray.training.place import Extent
from metaray.training.placement import Placement, Workers
from tests.training.broken import Broken
from tests.training.whole_runs import train_in_process

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_cluster"),
    # Ray Train trips over its own deprecations when it looks at Ray Data's settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

MakeExperiment = Callable[..., Experiment]
# Half a CPU each: tests must not depend on how many the machine has.
TWO = Placement(workers=Workers(2, 2), samplers=2, cpus_per_worker=0.5, device="cpu")


class Memory(Listener):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


class Silent(Listener):
    """Sent to rank 0; in the end it writes what kinds of events it heard to a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kinds: list[str] = []

    def on_event(self, event: Event) -> None:
        self._kinds.append(event.kind)

    def close(self) -> None:
        Path(self._path).write_text(" ".join(self._kinds))


def train(
    experiment: Experiment,
    storage: Storage,
    display: Listener,
    *,
    placement: Placement = TWO,
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
    profile: int = 0,
) -> Result:
    connect(placement)
    OnRay(placement, listeners).train(experiment, storage, display, Extent(should_stop=should_stop, profile=profile))
    return read_result(storage)


def untimed(result: Result) -> Result:
    return dataclasses.replace(result, seconds=0.0, wait_share=0.0, episodes_per_s=0.0)


def undated(storage: Storage) -> list[tuple[str, float, int]]:
    return [
        (m.key, m.value, m.step)
        for m in read_journal(storage)
        if "wait" not in m.key and not m.key.startswith("speed/")
    ]


def test_two_workers_train_what_one_process_trains(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    # Five episodes a step: shares of two and three. Patterns in an order that JSON does not keep. Here episodes travel
    # whole, there as rows of the store.
    experiment = make_experiment(
        meta_batch_size=5,
        num_steps=4,
        algorithm=MAML(inner_lr={"head.*": 0.3, "*": 0.1}),
        optimizer=Optimizer(outer_lr=0.02, clip_norm=0.5),
        evaluation=Evaluation(every=2, val_episodes=5, test_episodes=5),
    )
    here, there = Storage(str(tmp_path / "here")), Storage(str(tmp_path / "there"))
    alone = train_in_process(experiment, here, Memory(), device="cpu")
    # Workers cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    display, heard = Memory(), str(tmp_path / "heard")
    placement = dataclasses.replace(TWO, data_on="device")
    result = train(experiment, there, display, placement=placement, listeners=[Silent(heard)], profile=1)
    assert any("live on the device" in event.text for event in display.events if event.kind == "note")

    last = "checkpoints/step-000000004/state.safetensors"
    expected, found = (load_file(Path(storage.root) / last) for storage in (here, there))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert untimed(result) == untimed(alone)
    executed = read_executed(here)
    assert executed == Executed(kind="each", convolutions="plain", data_on="host", most_workers=5)
    assert read_executed(there) == executed.model_copy(update={"data_on": "device"})
    assert there.names(LEARNER) == here.names(LEARNER)
    assert all(there.read(f"{LEARNER}/{name}") == here.read(f"{LEARNER}/{name}") for name in here.names(LEARNER))

    assert [e.step for e in display.events if e.kind == "step"] == [1, 2, 3, 4] and display.closed
    assert undated(there) == undated(here)
    assert Path(heard).read_text().split().count("step") == 4
    table = there.read(PROFILE_TABLE).decode()
    assert table.startswith("profile of steps 3 to 3 on rank 0 of 2, cpu, ") and "\ninner loop " in table


@pytest.mark.slow
def test_two_workers_compute_by_compiled_pieces_as_one_process_does(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    experiment = make_experiment(model=MLP(hidden=(4,), batch_norm=False), execution="compiled", num_steps=3)
    alone = train_in_process(experiment, Storage(str(tmp_path / "here")), Memory(), device="cpu")
    display = Memory()
    result = train(experiment, Storage(str(tmp_path / "there")), display)
    assert (alone.execution, result.execution) == ("compiled", "compiled"), [
        e.text for e in display.events if e.kind == "note"
    ]
    assert result.parameters_sha256 == alone.parameters_sha256


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_process(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(num_steps=100_000, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2))
    storage, display = Storage(str(tmp_path)), Memory()
    with pytest.raises(RunStopped, match="stopped by a signal after step"):
        train(
            experiment,
            storage,
            display,
            placement=Placement(workers=Workers(1, 1), samplers=1, cpus_per_worker=0.5, device="cpu"),
            should_stop=lambda: any(e.kind == "step" for e in display.events),
        )
    (name,) = storage.names("checkpoints")
    done = int(name.removeprefix("step-"))
    assert 0 < done < 100_000
    with pytest.raises(RunStopped, match=f"after step {done};"):
        train_in_process(experiment, storage, Memory(), device="cpu", should_stop=lambda: True)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_it_with_the_message(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(optimizer=Optimizer(kind="sgd", outer_lr=1e38))
    display = Memory()
    with pytest.raises(Diverged, match=r"^stopped at step 1: the loss is not finite in episode 4 \(loss (nan|inf)\)"):
        train(experiment, Storage(str(tmp_path)), display)
    assert display.closed


@pytest.mark.slow
def test_what_an_algorithm_of_the_users_own_raises_in_a_worker(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(algorithm=Broken(inner_lr=0.1))
    with pytest.raises(
        RunFailed, match=r"gave up after 2 failures .*; worker [01]: KeyError: 'b' \(.*broken.py:\d+"
    ) as caught:
        train(experiment, Storage(str(tmp_path)), Memory())
    assert caught.value.told.splitlines()[-1] == "E   KeyError: 'b'" and "broken.py" in caught.value.told
    assert {f"Attempt {n}, worker" in caught.value.tracebacks for n in (1, 2)} == {True}
    assert "Ray's own logs: " in caught.value.tracebacks
