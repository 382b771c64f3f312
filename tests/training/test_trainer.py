"""Training on a real local Ray cluster: the same run as in process, and how it ends when it does not go well."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from ray import cloudpickle
from safetensors.torch import load_file

from metaray.algorithms import MAML
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.training import trainer
from metaray.training.events import Event, Listener
from metaray.training.experiment import Evaluation, Experiment
from metaray.training.journal import read_journal
from metaray.training.local import train_in_process
from metaray.training.optimizer import Optimizer
from metaray.training.placement import Placement
from metaray.training.result import Result
from metaray.training.session import LEARNER
from metaray.training.storage import Storage

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_cluster"),
    # Ray Train trips over its own deprecations when it looks at Ray Data's settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

MakeExperiment = Callable[..., Experiment]
# Half a CPU each: tests must not depend on how many the machine has.
TWO = Placement(workers=2, samplers=2, cpus_per_worker=0.5, device="cpu")


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
) -> Result:
    trainer.connect(placement)
    return trainer.train_on_ray(
        experiment, storage, placement, display=display, listeners=listeners, should_stop=should_stop
    )


def test_two_workers_train_what_one_process_trains(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    # Five episodes a step: shares of two and three. Patterns in an order that JSON does not keep.
    experiment = make_experiment(
        meta_batch_size=5,
        num_steps=4,
        algorithm=MAML(inner_lr={"head.*": 0.3, "*": 0.1}),
        optimizer=Optimizer(kind="sgd", outer_lr=0.1, momentum=0.9),
        evaluation=Evaluation(every=2, val_episodes=5, test_episodes=5),
    )
    here, there = Storage(str(tmp_path / "here")), Storage(str(tmp_path / "there"))
    alone = train_in_process(experiment, here, Memory(), device="cpu")
    # Workers cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    display, heard = Memory(), str(tmp_path / "heard")
    result = train(experiment, there, display, listeners=[Silent(heard)])

    last = "checkpoints/step-000000004/state.safetensors"
    expected, found = (load_file(Path(storage.root) / last) for storage in (here, there))
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    assert (result.num_steps, result.best_step, result.protocol) == (4, alone.best_step, alone.protocol)
    assert result.meta_val_scores == pytest.approx(alone.meta_val_scores)
    assert result.nearest_neighbor == alone.nearest_neighbor
    assert there.names(LEARNER) == here.names(LEARNER)

    assert [e.step for e in display.events if e.kind == "step"] == [1, 2, 3, 4] and display.closed
    keys = [(m.key, m.step) for m in read_journal(here)]
    assert [(m.key, m.step) for m in read_journal(there)] == keys
    assert Path(heard).read_text().split().count("step") == 4


def test_a_stopped_run_goes_on_in_process(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(num_steps=100_000, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2))
    storage, display = Storage(str(tmp_path)), Memory()
    with pytest.raises(RunStopped, match="stopped by a signal after step"):
        train(
            experiment,
            storage,
            display,
            placement=Placement(workers=1, samplers=1, cpus_per_worker=0.5, device="cpu"),
            should_stop=lambda: any(e.kind == "step" for e in display.events),
        )
    (name,) = storage.names("checkpoints")
    done = int(name.removeprefix("step-"))
    assert 0 < done < 100_000
    with pytest.raises(RunStopped, match=f"after step {done};"):
        train_in_process(experiment, storage, Memory(), device="cpu", should_stop=lambda: True)


def test_a_loss_that_is_not_finite_ends_it_with_the_message(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(optimizer=Optimizer(kind="sgd", outer_lr=1e38))
    display = Memory()
    with pytest.raises(RunFailed, match=r"^stopped at step 1: the loss is not finite in episode 4 \(loss (nan|inf)\)"):
        train(experiment, Storage(str(tmp_path)), display)
    assert display.closed


def test_more_workers_than_cpus() -> None:
    with pytest.raises(InputError, match=r"9 workers x 1 CPUs = 9 CPUs, but the cluster has 4; lower --workers"):
        trainer.connect(Placement(workers=9))
    with pytest.raises(InputError, match="3 workers need a GPU each; the cluster has 0"):
        trainer.connect(Placement(workers=3, device="cuda"))
    trainer.connect(Placement(workers=8, cpus_per_worker=0.5))


def test_gpus_are_used_where_there_are_any() -> None:
    assert [trainer.uses_gpu(Placement(workers=1, device=device)) for device in ("auto", "cpu", "cuda")] == [
        False,
        False,
        True,
    ]


def test_the_clusters_settings_are_those_of_connect() -> None:
    assert os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"
