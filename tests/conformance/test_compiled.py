"""Every algorithm by graphs of its pieces: the meta-gradient that it has line by line."""

import dataclasses

import pytest
import torch

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.algorithm import MetaGradient
from metaray.models import Conv4
from metaray.training.execution.compiling import Compiler
from metaray.training.execution.runner import Runner
from tests.conformance.bench import Bench, Trial, close, every

CLASSES = ("classification",)
WATCHED = {"cavia"}
"""Algorithms that enter a network by hooks, of which no graph is made."""


def bench(trial: Trial) -> Bench:
    steps = {"inner_steps": 2} if "inner_steps" in ALGORITHMS[trial.kind].model_fields else {}
    return Bench(trial, settings=steps)


def meta_gradient(bench: Bench, runner: Runner | None, size: int | None = None) -> MetaGradient:
    torch.manual_seed(3)
    context = dataclasses.replace(bench.context.with_batched(size is not None), run=runner)
    return bench.algorithm.meta_gradient(bench.meta, bench.episode(size=size), context)


def alike(found: MetaGradient, expected: MetaGradient) -> None:
    close(found.outcome.loss, expected.outcome.loss)
    close(found.outcome.score, expected.outcome.score)
    for name, tensor in expected.gradient.items():
        close(found.gradient[name], tensor, tolerance=1e-9)


@every(trained=True, tasks=CLASSES)
def test_graphs_of_one_episode(trial: Trial) -> None:
    """As plain the first time and the next, when no new graph is made."""
    one = bench(trial)
    expected, runner = meta_gradient(one, None), Runner(Compiler("traced"))
    alike(meta_gradient(one, runner), expected)
    made = list(runner.regions)
    alike(meta_gradient(one, runner), expected)
    assert runner.regions == made
    assert bool(made) == (trial.kind not in WATCHED)


@every(trained=True, tasks=CLASSES, protocols=("inductive",))
def test_graphs_of_a_chunk(trial: Trial) -> None:
    one = bench(trial)
    alike(meta_gradient(one, Runner(Compiler("traced")), 2), meta_gradient(one, None, 2))


@every(trained=True, steps=True, tasks=CLASSES, protocols=("inductive",))
@pytest.mark.parametrize("size", [None, 2])
def test_inner_steps_that_are_computed_again(trial: Trial, size: int | None) -> None:
    one, runner = bench(trial), Runner(None, recomputes=True)
    alike(meta_gradient(one, runner, size), meta_gradient(one, None, size))


@pytest.mark.parametrize(
    "kind",
    [pytest.param("maml", marks=pytest.mark.slow), "anil", pytest.param("fomaml", marks=pytest.mark.slow), "protonet"],
)
@pytest.mark.parametrize("size", [None, 2])
def test_what_is_made_ready_for_a_compiler(kind: str, size: int | None) -> None:
    one = bench(Trial(kind, "classification", "inductive"))
    alike(meta_gradient(one, Runner(Compiler("aot_eager")), size), meta_gradient(one, None, size))


@pytest.mark.parametrize("kind", ["maml", "r2d2"])
def test_graphs_of_convolutions(kind: str) -> None:
    one = Bench(Trial(kind, "classification", "inductive"), model=Conv4(channels=3), feature=(1, 16, 16))
    for size in (None, 2):
        alike(meta_gradient(one, Runner(Compiler("traced")), size), meta_gradient(one, None, size))
