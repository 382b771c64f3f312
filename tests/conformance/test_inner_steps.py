"""Algorithms with inner steps, by each inner optimiser and with a part that adapts: derivatives, chunks, graphs."""

import dataclasses
from typing import Any

import pytest
import torch

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.context import Tensors
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP
from metaray.training.execution.compiling import Compiler
from metaray.training.execution.runner import Runner
from tests.conformance.bench import DIFFERENTIABLE, SETTINGS, Bench, Trial, close, episode_of, smoothen
from tests.conformance.test_gradients import slope

ADAM = {"kind": "adam", "betas": [0.8, 0.9], "eps": 1e-3}
FIRST_ORDER = ("fomaml", "reptile")
WAYS: dict[str, dict[str, Any]] = {
    "momentum": {"inner_optimizer": {"kind": "momentum", "momentum": 0.7}},
    "adam": {"inner_optimizer": ADAM},
    "biases": {"adapts": ["*.bias"]},
    "head": {"adapts": ["head.*"]},
    "head-adam": {"adapts": ["head.*"], "inner_optimizer": ADAM},
}
OWN = {"anil": "head.weight", "boil": "body.*.weight", "proto_maml": "prototype:*"}
"""In the place of `head.*`, for those to which that is all or nothing."""
UNSOLVED = {("imaml", "adam"), ("imaml", "head-adam")}
"""At a constant rate Adam circles around the solution, of which alone that meta-gradient is."""


def trials(*, differentiable: bool = False) -> pytest.MarkDecorator:
    found = []
    for kind, cls in ALGORITHMS.items():
        if differentiable and kind in FIRST_ORDER:
            continue
        for way, fields in WAYS.items():
            if differentiable and (kind, way) in UNSOLVED:
                continue
            if fields.keys() <= cls.model_fields.keys() and kind != "baseline":
                found.append(pytest.param(kind, way, id=f"{kind}-{way}"))
    return pytest.mark.parametrize(("kind", "way"), found)


def prepared(kind: str, way: str, more: dict[str, Any] | None = None) -> Bench:
    fields = dict(WAYS[way])
    if "adapts" in fields and kind in OWN:
        fields["adapts"] = [OWN[kind]]
    steps = {"inner_steps": 2} if "inner_steps" in ALGORITHMS[kind].model_fields else {}
    settings = {**steps, **SETTINGS.get(kind, {}), **(more or {}), **fields}
    model = MLP(hidden=(6, 5), batch_norm=False)
    return Bench(Trial(kind, "classification", "inductive"), model=model, settings=settings)


@trials(differentiable=True)
def test_inner_steps_slopes(kind: str, way: str) -> None:
    """The meta-gradient along a random direction of each meta-parameter is the difference quotient of the loss."""
    bench = prepared(kind, way, DIFFERENTIABLE.get(kind))
    smoothen(bench.context.network)
    episode = bench.episode()
    gradient = bench.algorithm.meta_gradient(bench.meta, episode, bench.context).gradient

    def loss(meta: Tensors) -> float:
        return float(bench.algorithm.loss(meta, episode, bench.context).loss.detach())

    generator, wrong = torch.Generator().manual_seed(7), {}
    for name, tensor in bench.meta.items():
        along = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        found, numeric = float((gradient[name] * along).sum()), slope(loss, bench.meta, {name: along})
        if found != pytest.approx(numeric, rel=1e-5, abs=1e-7):
            wrong[name] = (found, numeric)
    assert not wrong


@trials()
def test_inner_steps_in_chunks(kind: str, way: str) -> None:
    """Mapped over: what one by one gives."""
    bench = prepared(kind, way)
    alike(bench, bench.episode(size=2), None)


@pytest.mark.parametrize(("kind", "way"), [("maml", "adam"), ("fomaml", "head"), ("mamlpp", "momentum")])
def test_inner_steps_by_graphs(kind: str, way: str) -> None:
    """By graphs of pieces, and with steps that are computed again: the same."""
    bench = prepared(kind, way)
    chunk = bench.episode(size=2)
    for runner in (Runner(Compiler("traced")), Runner(None, recomputes=True)):
        alike(bench, chunk, runner)


def alike(bench: Bench, chunk: TensorEpisode, runner: Runner | None) -> None:
    alone = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(2)]
    context = dataclasses.replace(bench.context.with_batched(True), run=runner)
    found = bench.algorithm.meta_gradient(bench.meta, chunk, context)
    close(found.outcome.loss, torch.cat([one.outcome.loss for one in alone]), tolerance=1e-9)
    for name in bench.meta:
        close(found.gradient[name], alone[0].gradient[name] + alone[1].gradient[name], tolerance=1e-8)


def test_a_graph_serves_all_steps_of_adam() -> None:
    """How many steps were before is a number that goes in, not one that a graph is made for."""
    bench, runner = prepared("maml", "adam", {"inner_steps": 4}), Runner(Compiler("traced"))
    context = dataclasses.replace(bench.context, run=runner)
    bench.algorithm.meta_gradient(bench.meta, bench.episode(), context)
    assert runner.regions.count("InnerStep") <= 2  # the first has leaves, the others what came of them
