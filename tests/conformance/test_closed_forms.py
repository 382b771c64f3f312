"""Gradient-based algorithms on L(w) = w^2, where every meta-gradient has a closed form.

The loss is the mean squared error of the target 0 at the input 1, where the network is one weight (or two in a row).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.tasks import Regression

W, H, M = 1.7, 0.6, (0.5, -0.3)

Expected = dict[str, float | list[float]]


class Line(nn.Module):
    """w x; `linear` is a layer that an algorithm may look for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        return found


class TwoLines(nn.Module):
    """h w x."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x))
        return found


class Form(NamedTuple):
    """What an algorithm should find.

    Attributes:
        expected: the meta-gradient for inner rate a and k > 0 steps.
        settings: hyperparameters besides these.
        network: of it.
        rate: whether the hyperparameters have an `inner_lr`, and `inner_steps`.
    """

    expected: Callable[[float, int], Expected]
    settings: dict[str, Any] = {}
    network: type[nn.Module] = Line
    at: dict[str, Any] = {"linear.weight": W}


def maml(a: float, k: int) -> Expected:
    return {"linear.weight": 2 * W * (1 - 2 * a) ** (2 * k)}


def meta_sgd(a: float, k: int) -> Expected:
    return {**maml(a, k), "inner_lr:linear.weight": -4 * k * W**2 * (1 - 2 * a) ** (2 * k - 1)}


def mamlpp(a: float, k: int) -> Expected:
    """At outer step 0 the losses after all steps count alike."""
    r = 1 - 2 * a
    rates = [sum(-4 * W**2 * r ** (2 * i - 1) for i in range(j, k + 1)) / k for j in range(1, k + 1)]
    return {
        "linear.weight": sum(2 * W * r ** (2 * i) for i in range(1, k + 1)) / k,
        "inner_lr:linear.weight": rates,
    }


def imaml(a: float, k: int, proximity: float = 3.0) -> Expected:
    """phi approaches w lambda / (lambda + 2) by k steps; whatever it is, (1 + H / lambda)^-1 is exact."""
    solution = W * proximity / (proximity + 2)
    phi = solution + (W - solution) * (1 - a * (2 + proximity)) ** k
    return {"linear.weight": 2 * phi / (1 + 2 / proximity)}


def cavia(a: float, k: int) -> Expected:
    """The output is w + m phi; a step multiplies it by 1 - 2 a |m|^2."""
    s = 1 - 2 * a * sum(m * m for m in M)
    return {
        "linear.weight": 2 * W * s ** (2 * k),
        "modulation:linear:shift": [-8 * W**2 * k * a * m * s ** (2 * k - 1) for m in M],
    }


def one_of_two(moving: str, still: str, at: dict[str, float]) -> Callable[[float, int], Expected]:
    """L = (h w)^2 where only one of both weights, m, takes inner steps: m' = m r^k with r = 1 - 2 a s^2."""

    def expected(a: float, k: int) -> Expected:
        m, s = at[moving], at[still]
        r = 1 - 2 * a * s**2
        through = m**2 * s**2 * 2 * k * r ** (2 * k - 1) * (-4 * a * s)
        return {moving: 2 * m * s**2 * r ** (2 * k), still: 2 * m**2 * s * r ** (2 * k) + through}

    return expected


TWO = {"body.weight": W, "head.weight": H}

FORMS: dict[str, Form] = {
    "maml": Form(maml),
    "fomaml": Form(lambda a, k: {"linear.weight": 2 * W * (1 - 2 * a) ** k}),
    "reptile": Form(
        lambda a, k: {"linear.weight": W - W * (1 - 2 * a) ** k}, {"inner_optimizer": "sgd", "batch_size": None}
    ),
    "anil": Form(one_of_two("head.weight", "body.weight", TWO), network=TwoLines, at=TWO),
    "boil": Form(one_of_two("body.weight", "head.weight", TWO), network=TwoLines, at=TWO),
    "meta_sgd": Form(meta_sgd),
    "mamlpp": Form(mamlpp),
    "imaml": Form(imaml, {"proximity": 3.0}),
    "cavia": Form(cavia, {"context_size": 2}, at={"linear.weight": W, "modulation:linear:shift": [list(M)]}),
    "baseline": Form(lambda a, k: {"linear.weight": 2 * W}),
}
"""What joins with a line; those below have no such form."""

WITHOUT = {
    "learned_optimizer": "its steps are what an untrained LSTM says",
    "proto_maml": "tells classes apart",
    "baselinepp": "tells classes apart",
}


def test_tables_name_known_kinds() -> None:
    assert FORMS.keys() | WITHOUT.keys() <= ALGORITHMS.keys()
    assert not FORMS.keys() & WITHOUT.keys()


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("size", [None, 3])
# Rates that float32 holds exactly.
@pytest.mark.parametrize(("a", "k"), [(0.0, 1), (0.125, 1), (0.375, 2), (0.0625, 5), (0.75, 3)])
def test_meta_gradient_of_a_square(kind: str, a: float, k: int, size: int | None) -> None:
    form = FORMS[kind]
    algorithm = ALGORITHMS[kind].parse({"inner_lr": a, "inner_steps": k, **form.settings}, where=kind)
    network, task_shape = form.network().double(), TaskShape((1,), 1, Regression())
    meta = {name: tensor.double() for name, tensor in algorithm.init(network, task_shape).items()}
    for name, value in form.at.items():
        meta[name] = torch.tensor(value, dtype=torch.float64).expand_as(meta[name]).clone()
    meta = {name: tensor.requires_grad_() for name, tensor in meta.items()}
    lead = () if size is None else (size,)
    side = Examples(*(torch.full((*lead, 2, 1), value, dtype=torch.float64) for value in (1.0, 0.0)))
    counts = torch.zeros(lead, dtype=torch.int64), torch.zeros(*lead, 1, dtype=torch.int64)
    context = Context(network=network, ways=1, training=True, batched=size is not None, task=Regression())
    found = algorithm.meta_gradient(meta, TensorEpisode(side, side, *counts), context).gradient
    expected = form.expected(a, k)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        wanted = torch.tensor(expected[name], dtype=torch.float64).expand(tensor.numel()) * (size or 1)
        torch.testing.assert_close(tensor.flatten(), wanted, rtol=1e-11, atol=1e-13)
