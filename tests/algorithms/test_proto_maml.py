"""Proto-MAML: the head that prototypes make."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch

from metaray.algorithms import ProtoMAML, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.proto_maml import BIAS, WEIGHT
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import TensorEpisode
from metaray.models import MLP

MakeEpisode = Callable[..., TensorEpisode]


def bench(algorithm: ProtoMAML, *, batch_norm: bool = False) -> tuple[Tensors, Context]:
    network, meta = start(algorithm, MLP(hidden=(6, 5), batch_norm=batch_norm), TaskShape((1, 2, 2), 3), seed=1)
    context = Context(network=network.double(), ways=3, training=True)
    return {name: tensor.double().requires_grad_() for name, tensor in meta.items()}, context


@pytest.mark.parametrize("temperature", [None, 7.0, "size"])
def test_without_steps_it_is_a_prototypical_network(
    temperature: Literal["size"] | float | None, make_episode: MakeEpisode
) -> None:
    algorithm = ProtoMAML(inner_steps=0, temperature=temperature)
    meta, context = bench(algorithm)
    episode, protonet = make_episode(shots=3), ProtoNet(temperature=temperature)
    logits = algorithm.predict(meta, algorithm.adapt(meta, episode.support, context), episode.query.x, context)
    other = protonet.predict(meta, protonet.adapt(meta, episode.support, context), episode.query.x, context)
    # Equal up to ||f(x)||^2, the same for all classes.
    torch.testing.assert_close(logits.softmax(dim=1), other.softmax(dim=1))


@pytest.mark.parametrize("second_order", [True, False])
def test_one_step_by_hand(second_order: bool, make_episode: MakeEpisode) -> None:
    algorithm = ProtoMAML(inner_lr=0.3, second_order=second_order)
    meta, context = bench(algorithm)
    episode = make_episode()
    fixed = {name: tensor.detach() for name, tensor in meta.items()}
    embedded = context.forward(fixed, episode.support.x)
    centres = torch.stack([embedded[episode.support.y == way].mean(dim=0) for way in range(3)])
    theta = fixed | {WEIGHT: 2 * centres, BIAS: -centres.square().sum(dim=1)}
    theta = {name: tensor.requires_grad_() for name, tensor in theta.items()}
    body = {name: theta[name] for name in meta}
    loss = torch.nn.functional.cross_entropy(
        context.forward(body, episode.support.x) @ theta[WEIGHT].T + theta[BIAS], episode.support.y
    )
    gradients = torch.autograd.grad(loss, list(theta.values()))
    adapted = algorithm.adapt(meta, episode.support, context)
    for (name, value), gradient in zip(theta.items(), gradients, strict=True):
        torch.testing.assert_close(adapted[name], value - 0.3 * gradient)


def test_rates_by_pattern_reach_the_head(make_episode: MakeEpisode) -> None:
    algorithm = ProtoMAML(inner_lr={"*": 0.0, "prototype:*": 0.5})
    meta, context = bench(algorithm)
    support = make_episode().support
    adapted, still = (a.adapt(meta, support, context) for a in (algorithm, replace_steps(algorithm, 0)))
    assert all(torch.equal(adapted[name], meta[name]) for name in meta)
    assert not torch.equal(adapted[WEIGHT], still[WEIGHT])


def replace_steps(algorithm: ProtoMAML, steps: int) -> ProtoMAML:
    return ProtoMAML(inner_lr=algorithm.inner_lr, inner_steps=steps)


def test_any_number_of_ways(make_episode: MakeEpisode) -> None:
    algorithm = ProtoMAML(batch_norm="inductive")
    meta, context = bench(algorithm, batch_norm=True)
    episode = make_episode(ways=5)
    adapted = algorithm.adapt(meta, episode.support, replace(context, ways=5))
    assert algorithm.predict(meta, adapted, episode.query.x, replace(context, ways=5)).shape == (10, 5)
