"""Inner steps that keep only what they start from."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MAML
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.models import Conv4
from metaray.training.execution.recomputing import recomputed
from metaray.training.execution.runner import Runner
from metaray.training.live_memory import LiveMemory

SHAPE = TaskShape((1, 16, 16), 3, classes=5)


@pytest.mark.parametrize("second_order", [True, False])
def test_bits_are_those_of_one_episode_in_float32(
    second_order: bool, make_episode: Callable[..., TensorEpisode]
) -> None:
    algorithm = MAML(inner_lr=0.1, inner_steps=3, second_order=second_order)
    network, meta = start(algorithm, Conv4(channels=4), SHAPE, seed=0)
    meta = {name: tensor.requires_grad_() for name, tensor in meta.items()}
    episode = make_episode(feature=SHAPE.feature_shape, dtype=torch.float32)
    context, runner = Context(network=network, ways=3, training=True), Runner(None, recomputes=True)
    plain = algorithm.meta_gradient(meta, episode, context)
    found = algorithm.meta_gradient(meta, episode, dataclasses.replace(context, run=runner))
    assert runner.steps == 3
    assert all(torch.equal(found.gradient[name], tensor) for name, tensor in plain.gradient.items())


def test_more_inner_steps_take_hardly_more_memory(make_episode: Callable[..., TensorEpisode]) -> None:
    def height(steps: int, runner: Runner | None) -> float:
        algorithm = MAML(inner_lr=0.1, inner_steps=steps)
        network, meta = start(algorithm, Conv4(channels=8), SHAPE, seed=0)
        meta = {name: tensor.requires_grad_() for name, tensor in meta.items()}
        episode = make_episode(feature=SHAPE.feature_shape, shots=5, dtype=torch.float32)
        with LiveMemory() as memory:
            algorithm.meta_gradient(meta, episode, Context(network=network, ways=3, training=True, run=runner))
        return float(memory.most_bytes)

    plain, again = (height(6, None) / height(1, None), height(6, Runner(None, recomputes=True)) / height(1, None))
    assert plain > 3
    assert again < 1.5


@pytest.mark.parametrize("runner", [None, Runner(None, recomputes=True)])
def test_theta_need_not_be_cut_before_the_inner_steps_are_differentiated(
    runner: Runner | None, make_episode: Callable[..., TensorEpisode]
) -> None:
    """Autograd goes back through the query pass first, and frees what it has passed: by hand it takes as much."""
    algorithm = MAML(inner_lr=0.1, inner_steps=3)
    network, meta = start(algorithm, Conv4(channels=8), SHAPE, seed=0)
    meta = {name: tensor.requires_grad_() for name, tensor in meta.items()}
    episode = make_episode(feature=SHAPE.feature_shape, dtype=torch.float32)
    context = Context(network=network, ways=3, training=True, run=runner)
    with LiveMemory() as memory:
        whole = algorithm.meta_gradient(meta, episode, context)
    with LiveMemory() as by_hand:
        adapted = algorithm.adapt(meta, episode.support, context)
        cut = {name: tensor.detach().requires_grad_() for name, tensor in adapted.items()}
        loss = context.loss(algorithm.predict(meta, cut, episode.query.x, context), episode.query.y)
        slope = torch.autograd.grad(loss, list(cut.values()))
        del loss
        found = torch.autograd.grad(list(adapted.values()), list(meta.values()), slope)
    assert all(torch.equal(one, whole.gradient[name]) for name, one in zip(meta, found, strict=True))
    assert memory.most_bytes <= by_hand.most_bytes


def test_random_numbers_are_the_same_both_times() -> None:
    x = torch.ones(100, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    (kept,) = recomputed(lambda given: [nn.functional.dropout(given, 0.5)], [x])
    after = torch.rand(1)
    (gradient,) = torch.autograd.grad(kept.sum(), x)
    assert torch.equal(gradient, kept)
    torch.manual_seed(0)
    nn.functional.dropout(x, 0.5)
    assert torch.equal(torch.rand(1), after)


def test_what_needs_no_derivative_gets_none() -> None:
    x, y = torch.ones(2, requires_grad=True), torch.ones(2)

    def function(one: Tensor, other: Tensor) -> list[Tensor]:
        return [one * other, other + 1]

    product, constant = recomputed(function, [x, y])
    (gradient,) = torch.autograd.grad(product.sum() + constant.sum(), x)
    assert gradient.tolist() == [1.0, 1.0]
