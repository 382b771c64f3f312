"""Optimisers of the user's own are tried out before anything starts."""

from collections.abc import Callable

import pytest
import torch

from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.optimizers import Adam, CustomOptimizer, OuterOptimizer
from metaray.training.checks.preflight import preflight
from metaray.training.checks.users_optimizer import check_optimizer
from tests.optimizers import own

MakeExperiment = Callable[..., Experiment]
OWN = own.__name__
TORCHS = ["Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


def check(optimizer: OuterOptimizer, make_experiment: MakeExperiment) -> None:
    meta = {"w": torch.ones(2, 3, requires_grad=True), "b": torch.ones((), requires_grad=True)}
    check_optimizer(make_experiment(optimizer=optimizer), meta)
    assert all(bool((tensor == 1).all()) and tensor.grad is None for tensor in meta.values())


@pytest.mark.parametrize("path", [*(f"torch.optim:{name}" for name in TORCHS), f"{OWN}:Nested"])
def test_what_is_right_passes(path: str, make_experiment: MakeExperiment) -> None:
    check(CustomOptimizer(path=path), make_experiment)


def test_kinds_of_ones_own_pass_the_whole_preflight(make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(optimizer=own.Signum(schedule=own.Polynomial(power=2))))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Hidden", "Hidden goes on otherwise from a checkpoint of step 3: it keeps something where checkpoints do not"),
        ("Drawing", "Drawing is no function of the gradients"),
        ("Counting", "Counting is no function of the gradients"),
        (
            "Queue",
            r"Queue has a state that no checkpoint can hold: state\[\w\]\['recent'\] is of type collections.deque",
        ),
        ("Sharing", r"Sharing has a state that .* state\[\w\]\['flat'\] is a tensor that shares memory with \w"),
        (
            "Broken",
            r"Broken was tried out, and raised an error:[\s\S]*own.py:\d+[\s\S]*ZeroDivisionError: no direction",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_name(name: str, told: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=f"^optimizer {OWN}:{told}"):
        check(CustomOptimizer(path=f"{OWN}:{name}"), make_experiment)


def test_one_that_needs_a_closure_is_refused(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"(?s)optimizer torch.optim:LBFGS was tried out.*'closure'"):
        check(CustomOptimizer(path="torch.optim:LBFGS"), make_experiment)


def test_a_schedule_is_looked_at_over_the_whole_run(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(optimizer=Adam(schedule=own.Negative()))
    with pytest.raises(InputError, match=r"optimizer.schedule: Negative gives the rate -0.01 at step 5"):
        preflight(replace(experiment, optimizer=replace(experiment.optimizer, outer_lr=0.01)))
    check(Adam(schedule=own.Negative()), lambda **changes: make_experiment(num_steps=5, **changes))


def test_groups_are_checked_before_training(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"optimizer.groups: pattern 'haed.\*' fits no parameter"):
        preflight(make_experiment(optimizer={"groups": {"haed.*": {"outer_lr": 0.1}}}))
