"""When a run computes something else than in the step before: both are made ready before its first step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from metaray.algorithms import MAML, MAMLPP
from metaray.algorithms.families.inner_lr import Schedule
from metaray.experiment.experiment import Experiment
from metaray.models import MLP
from metaray.records.execution import Executed
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training import readiness
from metaray.training.execution.strategy import Strategy
from metaray.training.execution.turns import kinds_of_steps
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.readiness import Ground, made_ready
from metaray.training.reduction import LocalReducer
from tests.training.test_outer_loop import arrivals, train

CPU = torch.device("cpu")
MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize(
    ("algorithm", "first", "rates", "steps"),
    [
        (MAML(), 0, True, [0, 9]),
        (MAML(inner_lr=Schedule(steps=(0, 3, 5, 40), values=(0.1, 0.2, 0.1, 0.3))), 0, False, [0, 9]),
        (MAML(inner_lr=Schedule(steps=(0, 3, 5, 40), values=(0.1, 0.2, 0.1, 0.3))), 0, True, [0, 3, 5, 9]),
        (MAMLPP(first_order_steps=4, msl_steps=6), 0, False, [0, 4, 6, 9]),
        (MAMLPP(first_order_steps=4, msl_steps=6), 5, False, [5, 6, 9]),
        (MAMLPP(first_order_steps=4, msl_steps=5000), 10, False, [10]),
    ],
)
def test_known_beforehand(
    algorithm: MAML | MAMLPP, first: int, rates: bool, steps: list[int], make_experiment: MakeExperiment
) -> None:
    assert kinds_of_steps(make_experiment(algorithm=algorithm, num_steps=10), first, rates=rates) == steps


def ready(experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Strategy, TrainState]:
    """What computes a compiled run of it, without a compiler, and what that is to train."""
    monkeypatch.setattr(readiness, "Strategy", partial(Strategy, backend="traced"))
    here = Ground(Storage(str(folder)), CPU, True, lambda one: [one], lambda kind, text: None)
    state = initial_state(experiment, CPU)
    return made_ready(experiment, Executed(kind="compiled"), state, here)[0], state


@pytest.mark.parametrize(("protocol", "chunk_size"), [("inductive", 1), ("transductive", 2)])
def test_nothing_is_compiled_in_the_middle_of_an_annealed_run(
    protocol: Any, chunk_size: int, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First order with a loss at each step, second order so, second order with the last loss: graphs of all three."""
    algorithm = MAMLPP(inner_lr=0.1, inner_steps=2, first_order_steps=2, msl_steps=4, batch_norm=protocol)
    experiment = make_experiment(
        algorithm=algorithm, num_steps=5, chunk_size=chunk_size, execution="compiled", model=MLP(hidden=(4,))
    )
    strategy, state = ready(experiment, tmp_path, monkeypatch)
    regions, digest = list(strategy.runner.regions), strategy.compiler and strategy.compiler.digest
    assert regions.count("InnerStep") >= 2, "of first and of second order"
    steps = list(outer_loop(experiment, state, arrivals(experiment), LocalReducer(), CPU, strategy=strategy))
    assert len(steps) == 5
    assert strategy.runner.regions == regions
    assert strategy.compiler and strategy.compiler.digest == digest
    _, plain = train(experiment.model_copy(update={"execution": "auto"}))
    assert [one.loss for one in steps] == pytest.approx([one.loss for one in plain], rel=1e-3)


def test_what_is_compiled_late_all_the_same_counts_as_alive(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    at = 0

    @contextmanager
    def alive(ground: Ground) -> Iterator[None]:
        beats.append(at)
        yield

    monkeypatch.setattr(readiness, "_alive", alive)
    monkeypatch.setattr(readiness, "kinds_of_steps", lambda *_: [0])
    algorithm = MAMLPP(inner_lr=0.1, inner_steps=1, first_order_steps=2, msl_steps=0)
    experiment = make_experiment(algorithm=algorithm, num_steps=4, execution="compiled", model=MLP(hidden=(4,)))
    strategy, state = ready(experiment, tmp_path, monkeypatch)
    beats.clear()
    for step in outer_loop(experiment, state, arrivals(experiment), LocalReducer(), CPU, strategy=strategy):
        at = step.step + 1
    assert beats == [2], "where the second order begins"
