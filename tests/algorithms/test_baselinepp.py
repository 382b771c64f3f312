"""Cosine classifiers against autograd and torch's own optimiser."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import BaselinePP
from metaray.algorithms.algorithm import start
from metaray.algorithms.baselinepp import unit
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.prefixes import without
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP

MakeEpisode = Callable[..., TensorEpisode]


def bench(*, training: bool = False, batch_norm: bool = False) -> tuple[Context, Tensors]:
    network, meta = start(
        BaselinePP(), MLP(hidden=(6,), batch_norm=batch_norm), TaskShape((1, 2, 2), 3, classes=7), seed=1
    )
    context = Context(network=network.double(), ways=3, training=training)
    return context, {name: value.double() for name, value in meta.items()}


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([nn.functional.cosine_similarity(features, row[None]) for row in weight], dim=1)


def test_training_loss_is_that_of_scaled_cosines(make_episode: MakeEpisode) -> None:
    context, meta = bench(training=True)
    episode = make_episode()._replace(classes=torch.tensor([4, 0, 6]))
    outcome = BaselinePP(scale=4).loss(meta, episode, context)
    features = context.network(torch.cat([episode.support.x, episode.query.x]))
    labels = torch.tensor([4] * 2 + [0] * 2 + [6] * 2).repeat(2)
    expected = nn.functional.cross_entropy(4 * cosines(features, meta["joint:weight"]), labels)
    torch.testing.assert_close(outcome.loss, expected)
    assert {name for name in meta if name.startswith("joint:")} == {"joint:weight"}


def test_the_gradient_of_a_head_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    features, slope, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((8, 5), (8, 3), (3, 5))
    )
    weight.requires_grad_()
    algorithm = BaselinePP(scale=7)
    found = algorithm.head_gradient({"weight": weight.detach()}, features, slope)["weight"]
    expected = torch.autograd.grad((algorithm.logits({"weight": weight}, features) * slope).sum(), weight)[0]
    torch.testing.assert_close(found, expected)


def test_fine_tuning_is_that_of_torch(make_episode: MakeEpisode) -> None:
    context, meta = bench()
    episode = make_episode()
    algorithm = BaselinePP(inner_lr=0.3, inner_steps=12, scale=3, weight_decay=0.02)
    with torch.no_grad():
        adapted = algorithm.adapt(meta, episode.support, context)
        features = torch.func.functional_call(context.network, without(meta, "joint:"), (episode.support.x,))
    weight = nn.Parameter(unit(unit(features).mean(0)).repeat(3, 1))
    sgd = torch.optim.SGD([weight], lr=0.3, momentum=0.9, dampening=0.9, weight_decay=0.02)
    for _ in range(12):
        sgd.zero_grad()
        nn.functional.cross_entropy(3 * cosines(features, weight), episode.support.y).backward()
        sgd.step()
    torch.testing.assert_close(adapted["weight"], weight.detach())


def test_before_adaptation_every_class_is_as_likely(make_episode: MakeEpisode) -> None:
    context, meta = bench(batch_norm=True)
    episode = make_episode()
    adapted = BaselinePP().adapt(meta, episode.support, replace(context, inner_steps=0))
    logits = BaselinePP().predict(meta, adapted, episode.query.x, context)
    torch.testing.assert_close(logits, logits[:, :1].expand(-1, 3))


def test_adapting_tells_the_support_apart(make_episode: MakeEpisode) -> None:
    context, meta = bench()
    episode = make_episode(shots=1, queries=1)
    adapted = BaselinePP(inner_lr=0.5).adapt(meta, episode.support, context)
    logits = BaselinePP().predict(meta, adapted, episode.support.x, context)
    assert torch.equal(logits.argmax(1), episode.support.y)


def test_permuted_labels_permute_the_logits(make_episode: MakeEpisode) -> None:
    context, meta = bench(batch_norm=True)
    episode, order = make_episode(), torch.tensor([2, 0, 1])
    renamed = Examples(episode.support.x, order[episode.support.y])
    before, after = (
        BaselinePP().predict(meta, BaselinePP().adapt(meta, support, context), episode.query.x, context)
        for support in (episode.support, renamed)
    )
    torch.testing.assert_close(after[:, order], before)


def test_an_embedding_of_zeros_harms_nobody() -> None:
    features = torch.zeros(4, 5, dtype=torch.float64)
    algorithm = BaselinePP()
    head = algorithm.new_head(features, 2)
    logits = algorithm.logits(head, features)
    assert not logits.any() and not algorithm.head_gradient(head, features, torch.ones(4, 2).double())["weight"].any()


def test_the_scale_is_positive() -> None:
    with pytest.raises(InputError, match=r"scale: .*greater than 0"):
        BaselinePP.parse({"scale": 0}, where="baselinepp")
