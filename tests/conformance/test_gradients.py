"""Meta-gradients against finite differences, in float64."""

import itertools
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn

from metaray.algorithms.context import Tensors
from metaray.models import MLP, Conv4, Model
from metaray.models.batch_norm import EpisodicBatchNorm
from tests.conformance.bench import DIFFERENTIABLE, SETTINGS, Bench, Trial, every, smoothen
from tests.conformance.declared import QUIET

STEP = 1e-6
NOTHING, SOMETHING = 1e-9, 1e-7  # Reptile's Adam makes up to 1e-10 of rounding errors


def slope(function: Callable[[Tensors], float], at: Tensors, along: Tensors) -> float:
    """The derivative of a function along a direction, by central differences of fourth order."""

    def moved(length: float) -> float:
        return function({name: at[name].detach() + length * along[name] if name in along else at[name] for name in at})

    return (8 * (moved(STEP) - moved(-STEP)) - (moved(2 * STEP) - moved(-2 * STEP))) / (12 * STEP)


@every(trained=True)
def test_meta_gradient_against_finite_differences(trial: Trial) -> None:
    """Along one random direction of each meta-parameter."""
    settings = SETTINGS.get(trial.kind, {}) | DIFFERENTIABLE.get(trial.kind, {})
    bench = Bench(trial, settings=settings)
    episode = bench.episode()
    smoothen(bench.context.network)

    def loss(meta: Tensors) -> float:
        return float(bench.algorithm.loss(meta, episode, bench.context).loss.detach())

    gradient = bench.algorithm.meta_gradient(bench.meta, episode, bench.context).gradient
    generator = torch.Generator().manual_seed(7)
    wrong = {}
    for name, tensor in bench.meta.items():
        along = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        exact, numeric = float((gradient[name] * along).sum()), slope(loss, bench.meta, {name: along})
        if exact != pytest.approx(numeric, rel=1e-6, abs=1e-8):
            wrong[name] = (exact, numeric)
    assert not wrong


def silent(network: nn.Module) -> list[str]:
    """Biases of layers right before a batch norm: it subtracts them again, so their gradient is zero."""
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    return [
        f"{name}.bias" for (name, _), (_, after) in itertools.pairwise(leaves) if isinstance(after, EpisodicBatchNorm)
    ]


@every(trained=True)
@pytest.mark.parametrize(
    "model", [MLP(hidden=(8, 8)), MLP(hidden=(8,), batch_norm=False), Conv4(channels=3, downsample="stride")], ids=str
)
def test_gradients_reach_every_meta_parameter(trial: Trial, model: Model) -> None:
    """But for silent biases (and what goes by their names, as learned rates do), and what is declared."""
    bench = Bench(trial, model=model, feature=(1, 16, 16))
    gradient = bench.algorithm.meta_gradient(bench.meta, bench.episode(shots=3, queries=3), bench.context).gradient
    expected = {f"*{name}" for name in silent(bench.context.network)}
    expected |= {pattern for kind, pattern, *where in QUIET if kind == trial.kind and set(where) <= set(trial)}
    largest = {name: float(tensor.abs().max()) for name, tensor in gradient.items()}
    quiet = {name for name in gradient if any(fnmatchcase(name, pattern) for pattern in expected)}
    assert {name: size for name, size in largest.items() if name in quiet and size > NOTHING} == {}
    assert {name: size for name, size in largest.items() if name not in quiet and size < SOMETHING} == {}
