"""What the cases share: trials of every entry of ALGORITHMS, their hyperparameters, tiny networks and episodes."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context
from metaray.algorithms.problem import Problem
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models import MLP, Model
from tests.conformance.declared import DECLARED, RULES

T = TypeVar("T", bound=Callable[..., None])

FEATURE = (1, 2, 2)
PROTOCOLS = ("transductive", "inductive")
TASKS = ("classes", "values")

SETTINGS: dict[str, dict[str, Any]] = {
    "baseline": {"inner_steps": 5},
    "baselinepp": {"inner_steps": 5},
    "cavia": {"context_size": 4},
    "cnp": {"encoder": [5], "representation": 4, "decoder": [5]},
    "imaml": {"inner_steps": 3, "cg_steps": 3},
    "learned_optimizer": {"inner_steps": 2, "hidden": 4},
    "mamlpp": {"inner_steps": 2},
    "reptile": {"inner_steps": 3, "eval_steps": 3},
}
"""Hyperparameters that make a kind quick to test; others are tested with their defaults."""

DIFFERENTIABLE: dict[str, dict[str, Any]] = {
    "imaml": {"inner_lr": 0.008, "inner_steps": 20, "proximity": 100.0, "cg_steps": 15},
    "learned_optimizer": {"second_order": True},
}
"""Hyperparameters with which a meta-gradient is exact: that of iMAML where the inner problem is solved."""


class Trial(NamedTuple):
    """One algorithm under one protocol, with classes or values to learn."""

    kind: str
    task: str
    protocol: str


def has_parameters(kind: str) -> bool:
    return bool(start(ALGORITHMS[kind](), MLP(hidden=(2,)), Problem((1,), 2, None, 2), seed=0)[1])


TRAINED = [kind for kind in ALGORITHMS if has_parameters(kind)]


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
        tasks: "values" only where an algorithm takes them.
        protocols: of batch norm.
    """

    def mark(function: T) -> T:
        case = function.__name__.removeprefix("test_")
        found = []
        for kind, cls in ALGORITHMS.items():
            if (trained and kind not in TRAINED) or (steps and not cls.gradient_steps):
                continue
            for task in tasks:
                if task == "values" and not cls.regression:
                    continue
                for protocol in protocols:
                    trial = Trial(kind, task, protocol)
                    found.append(pytest.param(trial, id="-".join(trial), marks=declared(case, trial)))
        return pytest.mark.parametrize("trial", found)(function)

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


class Bench:
    """An algorithm with a network and meta-parameters for it."""

    def __init__(
        self,
        trial: Trial,
        *,
        ways: int = 3,
        target_size: int = 1,
        model: Model | None = None,
        feature: tuple[int, ...] = FEATURE,
        dtype: torch.dtype = torch.float64,
        training: bool = True,
        settings: dict[str, Any] | None = None,
    ) -> None:
        values = trial.task == "values"
        chosen = {"batch_norm": trial.protocol, **SETTINGS.get(trial.kind, {}), **(settings or {})}
        self.algorithm: Algorithm = ALGORITHMS[trial.kind].parse(chosen, where=trial.kind)
        self.problem = Problem(feature, 1, target_size, 0) if values else Problem(feature, ways, None, ways + 2)
        network, meta = start(self.algorithm, model or MLP(hidden=(6, 5)), self.problem, seed=1)
        network.to(dtype)
        self.meta = {name: t.to(dtype).requires_grad_() for name, t in meta.items()}
        self.context = Context(network=network, ways=self.problem.ways, training=training, regression=values)

    def output(self, support: Examples, x: Tensor) -> Tensor:
        """Logits or values of the queries x."""
        adapted = self.algorithm.adapt(self.meta, support, self.context)
        return self.algorithm.predict(self.meta, adapted, x, self.context)

    def episode(
        self, *, shots: int = 2, queries: int = 2, size: int | None = None, dtype: torch.dtype = torch.float64
    ) -> TensorEpisode:
        """A random task; with `size`, a chunk of so many. Values: as many examples as three classes would have."""
        generator = torch.Generator().manual_seed(0)
        lead = () if size is None else (size,)
        ways, values = self.problem.ways, self.problem.target_size

        def side(each: int) -> Examples:
            count = 3 * each if values else ways * each
            x = torch.randn(*lead, count, *self.problem.feature_shape, generator=generator, dtype=dtype)
            if values:
                return Examples(x, torch.randn(*lead, count, values, generator=generator, dtype=dtype))
            return Examples(x, torch.arange(ways).repeat_interleave(each).expand(*lead, count).clone())

        classes = torch.arange(1, ways + 1).expand(*lead, ways).clone()
        return TensorEpisode(side(shots), side(queries), torch.arange(size or 1).view(lead), classes)


def episode_of(chunk: TensorEpisode, i: int) -> TensorEpisode:
    support, query = (Examples(side.x[i], side.y[i]) for side in (chunk.support, chunk.query))
    return TensorEpisode(support, query, chunk.seed[i], chunk.classes[i])


def close(a: Tensor, b: Tensor, *, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def smoothen(network: nn.Module) -> None:
    """Tanh for ReLU, in place: a difference quotient across a kink is no derivative."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Tanh())
