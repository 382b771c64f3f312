"""What the cases share: for which algorithms they are run, and comparisons; the trials are those of the benchmarks."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import pytest
import torch
from torch import Tensor, nn

from jobs.benchmarks.trials import PROTOCOLS, SETTINGS, TRAINED, Bench, Trial, episode_of
from metaray.algorithms import ALGORITHMS
from metaray.errors import InputError
from metaray.tasks import TASK_KINDS
from tests.conformance.declared import DECLARED, RULES

__all__ = [
    "DIFFERENTIABLE",
    "PROTOCOLS",
    "SETTINGS",
    "TASKS",
    "TRAINED",
    "Bench",
    "Trial",
    "close",
    "declared",
    "episode_of",
    "every",
    "smoothen",
]

T = TypeVar("T", bound=Callable[..., None])

TASKS = tuple(TASK_KINDS)

DIFFERENTIABLE: dict[str, dict[str, Any]] = {
    "imaml": {"inner_lr": 0.004, "inner_steps": 60, "proximity": 100.0, "cg_steps": 15},
    "learned_optimizer": {"second_order": True},
}
"""Hyperparameters with which a meta-gradient is exact: that of iMAML where the inner problem is solved."""


def every(
    *,
    trained: bool = False,
    steps: bool = False,
    tasks: Iterable[str] = TASKS,
    protocols: Iterable[str] = PROTOCOLS,
) -> Callable[[T], T]:
    """Run a case as `trial` of every algorithm to which it makes sense.

    Args:
        trained: of those with meta-parameters.
        steps: of those with inner steps.
        tasks: kinds of them, each only where an algorithm takes it.
        protocols: of batch norm.
    """

    def mark(function: T) -> T:
        case = function.__name__.removeprefix("test_")
        found = []
        for kind, cls in ALGORITHMS.items():
            if (trained and kind not in TRAINED) or (steps and not cls.gradient_steps):
                continue
            for task in tasks:
                try:
                    cls().check_task(TASK_KINDS[task]())
                except InputError:
                    continue
                for protocol in protocols:
                    trial = Trial(kind, task, protocol)
                    found.append(pytest.param(trial, id="-".join(trial), marks=declared(case, trial)))
        return cast(T, pytest.mark.parametrize("trial", found)(function))

    return mark


def declared(case: str, trial: Trial) -> list[pytest.MarkDecorator]:
    """The mark of a case that is declared not to hold."""
    reasons = [
        reason
        for (name, kind, *where), reason in DECLARED.items()
        if name == case and kind == trial.kind and set(where) <= set(trial)
    ]
    fails, reason = RULES.get(case, (lambda _: False, ""))
    if fails(ALGORITHMS[trial.kind]()):
        reasons.append(reason)
    return [pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason) for reason in reasons[:1]]


def close(a: Tensor, b: Tensor, *, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def smoothen(network: nn.Module) -> None:
    """Tanh for ReLU, in place: a difference quotient across a kink is no derivative."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Tanh())
